"""`make train-demo`: does the memory matter? Small models from scratch, minutes on a CPU.

Trained on a release of synthetic videos of three minutes, in each of which a card of one colour is seen for a moment,
and asked about other such videos, in which it is seen for one second. Three models read 90 tokens of each video:

- `memaug`: random forgetting of 3/4 of a frame's tokens, uniform forgetting of 3/4 of the frames, and MemAug;
- `forgetting`: the same forgetting without MemAug;
- `sampling`: whole frames, uniformly sampled, without MemAug.

Each is trained from three seeds. The vision tower is random and frozen, so its features are computed once.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel
from transformers.utils import logging

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.hour_llava.evaluation.cards import COLOURS, PATTERNS, CardSettings, cards_of, numbered
from marathon_pipeline.hour_llava.evaluation.evaluate import evaluate
from marathon_pipeline.hour_llava.evaluation.needles import write_needles
from marathon_pipeline.hour_llava.evaluation.report import Report, percent, put, table
from marathon_pipeline.hour_llava.evaluation.settings import EvaluateJob
from marathon_pipeline.hour_llava.evaluation.tally import Accuracy, Share, share_of
from marathon_pipeline.hour_llava.extraction import extracted
from marathon_pipeline.hour_llava.features import Cached, FeatureSettings, read_features, write_features
from marathon_pipeline.hour_llava.forgetting import uniform_frames
from marathon_pipeline.hour_llava.tiny import tiny_tokenizer
from marathon_pipeline.hour_llava.training.folder import claim, is_done, model_of
from marathon_pipeline.hour_llava.training.log import read_log
from marathon_pipeline.hour_llava.training.settings import TrainJob
from marathon_pipeline.hour_llava.training.worker import train_one

FRAMES = 180
VARIANTS: dict[str, dict[str, Any]] = {
    "memaug": {"memaug": {"depth": 1}, "forgetting": {"min_frames": 1}},
    "forgetting": {"memaug": {"depth": 0}, "forgetting": {"min_frames": 1}},
    "sampling": {
        "memaug": {"depth": 0},
        "forgetting": {"spatial": "none", "temporal_keep": 1.0, "min_frames": 1, "max_frames": FRAMES // 10},
    },
}
SIDE = 2  # 2 x 2 tokens a frame; a quarter of them and the newline are 2, of 45 frames 90, as of 18 whole frames
VISION = SiglipVisionConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=4
)
LEARNING_RATE = 3e-3


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--videos", type=int, default=200, help="to train on")
    parser.add_argument("--held-out", type=int, default=80)
    parser.add_argument("--cards", type=int, default=1, help="in a video; of several, the question names one")
    parser.add_argument("--processes", type=int, default=2)
    told = parser.parse_args(arguments)
    run(told)


def run(told: argparse.Namespace) -> dict[str, Any]:
    """Returns what the report says."""
    began = time.monotonic()
    _quiet()
    learned, asked = _learned(told), _asked(told)
    release = write_needles(told.out / "needles", [learned, asked], _counted("videos"))
    _parts(told.out, told.seeds)
    _cache(told.out, [video_id for each in (learned, asked) for video_id, *_ in numbered(each)])
    prepared = time.monotonic() - began
    runs = [(variant, seed) for variant in VARIANTS for seed in range(told.seeds)]  # the longest first
    found: dict[tuple[str, int], tuple[Report, float]] = {}
    with ProcessPoolExecutor(told.processes, mp_context=get_context("spawn")) as pool:
        pending = {
            pool.submit(_one, told.out, release, variant, seed, told.steps, told.batch): (variant, seed)
            for variant, seed in runs
        }
        for future in as_completed(pending):
            found[pending[future]] = future.result()
            variant, seed = pending[future]
            report, seconds = found[variant, seed]
            print(f"{variant} {seed}: {percent(report.accuracies[0].overall)} %, {seconds:.0f} s", flush=True)
    return _write(told, found, prepared, time.monotonic() - began)


def _learned(told: argparse.Namespace) -> CardSettings:
    seconds = (1, 40 // told.cards)  # short and long: long ones are found first, and teach how to find the short ones
    return _cards(told, videos=told.videos, seed=1, seconds=seconds, split="train", formats=("open",))


def _asked(told: argparse.Namespace) -> CardSettings:
    return _cards(told, videos=told.held_out, seed=2, formats=("choice",))


def _cards(told: argparse.Namespace, **more: Any) -> CardSettings:
    return CardSettings(minutes=(FRAMES / 60,), height=90, cards=told.cards, **more)


def _parts(out: Path, seeds: int) -> None:
    """A vision tower for all, and a language model with its tokenizer for each seed."""
    if not (out / "tower" / "config.json").exists():
        torch.manual_seed(0)
        SiglipVisionModel(VISION).save_pretrained(out / "tower")
    texts = [f"A {pattern} card fills the picture for a moment. What colour is it?" for pattern in PATTERNS]
    tokenizer = tiny_tokenizer([*texts, *COLOURS] * 4, 400)
    for seed in range(seeds):
        folder = out / f"llm-{seed}"
        if not (folder / "tokenizer.json").exists():
            torch.manual_seed(seed)
            config = Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=48,
                intermediate_size=144,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                tie_word_embeddings=True,
                initializer_range=0.1,  # at 0.02 a model this narrow begins with no signal at all
            )
            Qwen2ForCausalLM(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def _cache(out: Path, videos: Sequence[str]) -> None:
    storage = Storage(str(out / "needles"))
    settings = FeatureSettings(tower=str(out / "tower"), side=SIDE, chunk=FRAMES)
    told = _counted("features")
    for number, video_id in enumerate(videos):
        try:
            made = read_features(storage, video_id).fingerprint == settings.fingerprint
        except Failed:
            made = False
        if not made:
            proxy = storage.read(media_key("proxies", video_id, ".mp4"))
            features = extracted(proxy, video_id, settings)
            write_features(storage, video_id, Cached(features, settings.fingerprint, hashlib.sha256(proxy).hexdigest()))
        told(number + 1, len(videos))


def _one(out: Path, release: Path, variant: str, seed: int, steps: int, batch: int) -> tuple[Report, float]:
    """Train and ask one model, and how many seconds training took."""
    torch.set_num_threads(1)
    _quiet()
    job = train_job(out, release, variant, seed, steps, batch)
    stage = job.stages[0]
    if not is_done(job, stage):
        claim(job, stage)
        train_one(job, stage, torch.device("cpu"), out / "stop")
    seconds = sum(step.seconds for step, _ in read_log(job.folder(stage)))
    asked = EvaluateJob(
        out=str(Path(job.out) / "evaluation"),
        model=str(model_of(job, stage)),
        releases=(str(release),),
        features=True,
        by=("texts",),
        minutes=(),
        depths=6,
        gpu=False,
    )
    return evaluate(asked)[0], seconds


def train_job(out: Path, release: Path, variant: str, seed: int, steps: int, batch: int) -> TrainJob:
    rates = {"vision": 0.0, "projector": LEARNING_RATE, "memaug": LEARNING_RATE, "llm": LEARNING_RATE}
    return TrainJob.model_validate(
        {
            "out": str(out / f"{variant}-{seed}"),
            "model": {
                "vision": str(out / "tower"),
                "llm": str(out / f"llm-{seed}"),
                "system": "",
                "pooled_side": SIDE,
                **VARIANTS[variant],
            },
            "stages": [
                {
                    "stage": "s3",
                    "learning_rates": rates,
                    "betas": (0.9, 0.98),
                    "steps": steps,
                    "batch": batch,
                    "warmup": 0.1,
                    "data": {
                        "releases": [str(release)],
                        "features": True,
                        "turns": 1,
                        "batch_size": batch,
                        "window": 8 * batch,
                        "workers": 0,
                        "seed": seed,
                    },
                }
            ],
            "seed": seed,
            "run": {"gpu": False, "precision": "fp32", "activation_checkpointing": False, "checkpoint_every": 10_000},
        }
    )


def _write(
    told: argparse.Namespace, found: dict[tuple[str, int], tuple[Report, float]], prepared: float, seconds: float
) -> dict[str, Any]:
    chance = next(iter(found.values()))[0].chance
    results: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        own = [found[variant, seed][0] for seed in range(told.seeds)]
        seen = [next(each for each in report.accuracies if not each.blind) for report in own]
        blind = [next(each for each in report.accuracies if each.blind) for report in own]
        results[variant] = {
            "seeds": [each.overall.model_dump() for each in seen],
            "all": _pooled(seen).model_dump(),
            "blind": _pooled(blind).model_dump(),
            "ceiling": _ceiling(told, variant, chance),
            "training_seconds": [round(found[variant, seed][1], 1) for seed in range(told.seeds)],
        }
    report = {
        "steps": told.steps,
        "batch": told.batch,
        "videos": {"train": told.videos, "held_out": told.held_out},
        "cards": told.cards,
        "chance": chance,
        "tokens": FRAMES // 4 * 2,
        "seconds": {"videos and features": round(prepared, 1), "all": round(seconds, 1)},
        "variants": results,
    }
    put(told.out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    rows = []
    for variant, result in results.items():
        shares = [Share.model_validate(each) for each in result["seeds"]]
        pooled, without = (Share.model_validate(result[each]) for each in ("all", "blind"))
        rows.append(
            [
                variant,
                *(f"{100 * share.accuracy:.1f}" for share in shares),
                percent(pooled),
                f"{100 * result['ceiling']:.1f}",
                percent(without),
            ]
        )
    head = ["model", *(f"seed {seed}" for seed in range(told.seeds)), "all seeds", "knowable", "blind"]
    text = [
        "# Does the memory matter?",
        "",
        f"Multiple choice about {told.held_out} held-out videos of {FRAMES} s with {told.cards} card(s) of one second, "
        f"{FRAMES // 4 * 2} video tokens into the language model. Accuracy in percent, Wilson's interval of 95 %; "
        f"guessing gets {100 * chance:.0f} %. {told.steps} steps of {told.batch}.",
        "",
        *table(head, rows),
        "",
        "Knowable: who knows each card that is among the frames it reads, and guesses the others, gets as much. The "
        "interval of all seeds takes their answers for independent, though the questions are the same.",
        "",
        "![accuracy](report.png)",
        "",
    ]
    put(told.out / "report.md", "\n".join(text).encode())
    _draw(told.out / "report.png", results, chance)
    print("\n".join(table(head, rows)))
    print(f"report  {told.out / 'report.md'}")
    return report


def _ceiling(told: argparse.Namespace, variant: str, chance: float) -> float:
    """What the frames that a variant reads, or remembers, allow."""
    if variant == "memaug":
        return 1.0
    keep = FRAMES // 4 if variant == "forgetting" else FRAMES // 10
    kept = set(uniform_frames(FRAMES, keep).tolist())
    asked = _asked(told)
    cards = [card for _, minutes, seed in numbered(asked) for card in cards_of(asked, minutes, seed)]
    seen = sum(not kept.isdisjoint(range(int(card.span.start), int(card.span.end))) for card in cards) / len(cards)
    return seen + (1 - seen) * chance


def _pooled(accuracies: Sequence[Accuracy]) -> Share:
    """Of all seeds' answers: what one more seed's may be is wider than its interval, and the seeds stand beside it."""
    return share_of([right < each.overall.right for each in accuracies for right in range(each.overall.asked)])


def _draw(path: Path, results: dict[str, Any], chance: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for place, (_, result) in enumerate(results.items()):
        pooled = Share.model_validate(result["all"])
        error = [[pooled.accuracy - pooled.low], [pooled.high - pooled.accuracy]]
        axes.bar(place, pooled.accuracy, 0.6, color="#4477aa", yerr=error, capsize=4)
        axes.scatter(
            [place] * len(result["seeds"]), [each["accuracy"] for each in result["seeds"]], color="black", s=12
        )
        blind = result["blind"]["accuracy"]
        axes.plot([place - 0.3, place + 0.3], [blind, blind], color="#cc3311", label="blind" if place == 0 else None)
    axes.axhline(chance, linestyle=":", color="grey", label="guessing")
    axes.set_xticks(range(len(results)), list(results))
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy; dots are seeds")
    axes.legend(frameon=False)
    figure.tight_layout()
    partial = path.with_name(f".{path.name}.part")
    figure.savefig(partial, dpi=150, format="png")
    pyplot.close(figure)
    partial.replace(path)


def _quiet() -> None:
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _counted(what: str) -> Any:
    def told(done: int, of: int) -> None:
        if done == of or done % 50 == 0:
            print(f"{what}: {done} of {of}", flush=True)

    return told


if __name__ == "__main__":
    main(sys.argv[1:])
