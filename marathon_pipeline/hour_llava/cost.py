"""What Hour-LLaVA costs by length of video: floating-point operations and memory, from the sizes alone.

    python -m marathon_pipeline.hour_llava.cost [--size 3B] [--minutes 5 20 60] [--plot cost.png]

Operations are those of matrix products, two for a multiplication and an addition, as `FlopCounterMode` counts them; of
causal attention the whole square, of which a kernel may leave out half. Memory is an estimate: bfloat16 weights and
activations, attention that keeps no scores, AdamW with float32 moments and master weights (16 bytes a parameter).
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from marathon_pipeline.hour_llava import sizes
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.selection import chooses_by_content, select

QUESTION = 256  # tokens of text in the figures, where nothing else is said
BYTES = 2  # of a bfloat16
TRAINED_BYTES = 16  # of a parameter that is trained: weight, gradient, master weight, two moments
VARIANTS: dict[str, dict[str, object]] = {
    "MemAug": {},
    "forgetting alone": {"memaug_depth": 0},
    "full 1 FPS": {"memaug_depth": 0, "spatial_forgetting": "none", "temporal_forgetting": "none"},
}


@dataclass(frozen=True)
class Load:
    """How many tokens each part sees for one video and one text."""

    frames: int  # that pass the tower and the projector
    memory: int
    decayed: int
    text: int  # beside the video, in the language model
    question: int  # of the text, in MemAug

    @property
    def length(self) -> int:
        """Of the language model's input."""
        return self.decayed + self.text

    @classmethod
    def of(cls, config: HourLlavaConfig, frames: int, text: int = QUESTION, question: int | None = None) -> "Load":
        by_content = chooses_by_content(config)
        counted = copy.copy(config)
        if by_content:  # as many frames as evenly, but each is seen first
            counted.temporal_forgetting = "uniform"
        selection = select(counted, [frames], [0])
        return cls(
            frames if by_content else len(selection.frames),
            selection.memory.lengths[0],
            selection.decayed.lengths[0],
            text,
            text if question is None else question,
        )


def parameters(config: HourLlavaConfig) -> dict[str, int]:
    """Of each part; a tied head counts once, with the language model."""
    vision, text = config.tower_config, config.text_config
    d, v = text.hidden_size, vision.hidden_size
    patches = config.patches
    layer = 4 * (v * v + v) + 2 * v * vision.intermediate_size + vision.intermediate_size + v + 4 * v
    tower = v * (3 * config.patch_side**2 + 1) + patches * v + vision.num_hidden_layers * layer
    width, shared = _widths(config)
    attention = d * width + width + 2 * (d * shared + shared)  # queries, keys and values, with biases
    block = 2 * (attention + width * d + d) + 2 * config.memaug_mlp_ratio * d * d + (config.memaug_mlp_ratio + 1) * d
    decoder = attention + width * d + 3 * d * text.intermediate_size + 2 * d
    embedding = text.vocab_size * d * (1 if config.tie_word_embeddings else 2)
    return {
        "vision tower": tower,
        "projector": v * d + d + d * d + d,
        "newline": d,
        "MemAug": config.memaug_depth * (block + 6 * d),
        "language model": embedding + text.num_hidden_layers * decoder + d,
    }


def forward_flops(config: HourLlavaConfig, load: Load) -> dict[str, int]:
    """Operations of one forward pass by part. The head computes logits of the text (and of the media token) alone."""
    vision, text = config.tower_config, config.text_config
    d, v = text.hidden_size, vision.hidden_size
    patches = config.patches
    layer = 8 * patches * v * v + 4 * patches * patches * v + 4 * patches * v * vision.intermediate_size
    tower = load.frames * (2 * patches * v * 3 * config.patch_side**2 + vision.num_hidden_layers * layer)
    width, shared = _widths(config)
    query = load.decayed + load.question
    block = (
        8 * query * d * width  # queries and outputs, of self- and cross-attention
        + 4 * (query + load.memory) * d * shared  # keys and values
        + 4 * query * (query + load.memory) * width
        + 4 * query * config.memaug_mlp_ratio * d * d
    )
    n = load.length
    decoder = 4 * n * d * (width + shared) + 4 * n * n * width + 6 * n * d * text.intermediate_size
    return {
        "vision tower": tower,
        "projector": 2 * load.frames * config.pooled_side**2 * (v * d + d * d),
        "MemAug": config.memaug_depth * block,
        "language model": text.num_hidden_layers * decoder + 2 * (load.text + 1) * d * text.vocab_size,
    }


def training_flops(config: HourLlavaConfig, load: Load, *, tower: bool = False, recomputed: bool = False) -> int:
    """Of one step: three times the forward pass, a frozen tower once; recomputed: checkpointing does it once more."""
    forward = forward_flops(config, load)
    rest = sum(forward.values()) - forward["vision tower"]
    return forward["vision tower"] * ((3 + recomputed) if tower else 1) + rest * (3 + recomputed)


def cache_bytes(config: HourLlavaConfig, load: Load) -> int:
    """Keys and values of the language model's input."""
    return 2 * load.length * _widths(config)[1] * config.text_config.num_hidden_layers * BYTES


def activation_bytes(config: HourLlavaConfig, load: Load, *, checkpointing: bool, width: int = BYTES) -> int:
    """What a step keeps for its backward pass, with a frozen tower: an estimate, held against autograd in a test.

    Checkpointing keeps the input of each block and, while one is computed again, what that one keeps. width: bytes of
    a number.
    """
    text = config.text_config
    d = text.hidden_size
    heads, shared = _widths(config)
    query, memory, n = load.decayed + load.question, load.memory, load.length
    projected = load.frames * config.pooled_side**2
    between = projected * (config.vision_config.hidden_size + 2 * d) + load.frames * config.tokens_per_frame * d
    of_memory = memory * 2 * shared if config.recalls else 0
    of_query = query * (9 * d + 2 * config.memaug_mlp_ratio * d + 2 * (2 * heads) + 2 * shared)
    block = of_memory + of_query
    decoder = n * (8 * d + 2 * heads + 2 * shared + 4 * text.intermediate_size)
    head = (load.text + 1) * (2 * d + 2 * text.vocab_size)
    if checkpointing:
        kept = config.memaug_depth * query * d + text.num_hidden_layers * n * d + max(block, decoder)
    else:
        kept = config.memaug_depth * block + text.num_hidden_layers * decoder
    return (between + kept + head) * width


def inference_bytes(config: HourLlavaConfig, load: Load) -> int:
    """Peak of answering one question: weights, then the largest of the phases: tower, projector, MemAug, prefill."""
    vision, text = config.tower_config, config.text_config
    d, v = text.hidden_size, vision.hidden_size
    heads, shared = _widths(config)
    patches = config.patches
    features = load.frames * config.pooled_side**2 * v
    tokens = load.frames * config.tokens_per_frame * d
    query = load.decayed + load.question
    recall = query * (4 * d + 2 * heads + config.memaug_mlp_ratio * d) + load.memory * 4 * shared
    phases = (
        features + min(load.frames, config.frames_per_chunk) * patches * (4 * v + 2 * vision.intermediate_size),
        features + 2 * tokens,
        tokens + (recall if config.recalls else load.decayed * d),
        load.length * (4 * d + 2 * heads + 3 * text.intermediate_size),
    )
    return BYTES * (sum(parameters(config).values()) + max(phases)) + cache_bytes(config, load)


def training_bytes(config: HourLlavaConfig, load: Load, *, checkpointing: bool, tower: bool = False) -> int:
    """Peak of a step on one device, nothing sharded; the tower frozen unless `tower`."""
    counts = parameters(config)
    weights = sum(counts.values()) * TRAINED_BYTES - (0 if tower else counts["vision tower"] * (TRAINED_BYTES - BYTES))
    return weights + activation_bytes(config, load, checkpointing=checkpointing)


def _widths(config: HourLlavaConfig) -> tuple[int, int]:
    """Of all heads' queries, and of all heads' keys."""
    text = config.text_config
    head = text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head, text.num_key_value_heads * head


def table(name: str, minutes: list[float]) -> Table:
    shown = Table(title=f"Hour-LLaVA-{name}, one video and {QUESTION} tokens of text", title_justify="left")
    for column in ("minutes", "variant", "memory", "into the LLM"):
        shown.add_column(column, justify="left" if column == "variant" else "right")
    for column in ("tower", "projector", "MemAug", "LLM", "forward", "step"):
        shown.add_column(f"{column}\nTFLOP", justify="right")
    for column in ("KV cache", "answering", "step", "step, no ckpt."):
        shown.add_column(f"{column}\nGB", justify="right")
    for length in minutes:
        for variant, settings in VARIANTS.items():
            config = sizes.size(name, **settings)
            load = Load.of(config, round(length * 60))
            flops = forward_flops(config, load)
            bytes_ = (
                cache_bytes(config, load),
                inference_bytes(config, load),
                training_bytes(config, load, checkpointing=True),
                training_bytes(config, load, checkpointing=False),
            )
            shown.add_row(
                f"{length:g}",
                variant,
                f"{load.memory:,}" if config.recalls else "-",
                f"{load.decayed:,}",
                *(f"{count / 1e12:,.1f}" for count in (*flops.values(), sum(flops.values()))),
                f"{training_flops(config, load) / 1e12:,.1f}",
                *(f"{count / 1e9:,.1f}" for count in bytes_),
            )
        shown.add_section()
    return shown


def plot(names: list[str], path: Path) -> None:
    """Operations of a forward pass without the tower (features are cached), and memory of a step, by minutes."""
    from matplotlib.figure import Figure

    minutes = [1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120]
    figure = Figure(figsize=(6 * len(names), 8), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False)

    def draw(axis: object, name: str, of: Callable[[HourLlavaConfig, Load], float]) -> None:
        for variant, settings in VARIANTS.items():
            config = sizes.size(name, **settings)
            values = [of(config, Load.of(config, m * 60)) for m in minutes]
            axis.plot(minutes, values, marker="o", markersize=3, label=variant)  # type: ignore[attr-defined]

    for column, name in enumerate(names):
        top, bottom = axes[0][column], axes[1][column]
        draw(top, name, lambda c, load: (sum((f := forward_flops(c, load)).values()) - f["vision tower"]) / 1e15)
        draw(bottom, name, lambda c, load: training_bytes(c, load, checkpointing=True) / 1e9)
        top.set(title=f"{name}: forward pass on cached features", ylabel="PFLOP", yscale="log")
        bottom.set(
            title=f"{name}: training step, checkpointing", ylabel="GB", ylim=(0, None), xlabel="minutes of video"
        )
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
            axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description="What Hour-LLaVA costs by length of video.")
    options.add_argument("--size", nargs="+", default=list(sizes.TEXT), choices=list(sizes.TEXT))
    options.add_argument("--minutes", nargs="+", type=float, default=[1, 5, 10, 20, 40, 60, 120])
    options.add_argument("--plot", type=Path, help="write a picture, .png or .svg")
    chosen = options.parse_args(arguments)
    console = Console(width=None if Console().is_terminal else 180)
    for name in chosen.size:
        console.print(table(name, chosen.minutes))
    if chosen.plot:
        plot(chosen.size, chosen.plot)
        console.print(f"picture  {chosen.plot}")


if __name__ == "__main__":
    main()
