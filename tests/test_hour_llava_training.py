"""Training: what a stage changes, what a step's loss is, and that no death of a process shows in the result."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import BaseModel

torch = pytest.importorskip("torch")

from conftest import CHECKOUT  # noqa: E402
from small_releases import films, released  # noqa: E402
from tiny_training import MODEL, curve, examples, job_of, on_ranks, train  # noqa: E402

from marathon_pipeline.errors import UserError  # noqa: E402
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig  # noqa: E402
from marathon_pipeline.hour_llava.data.settings import LoaderSettings  # noqa: E402
from marathon_pipeline.hour_llava.training.build import build, load  # noqa: E402
from marathon_pipeline.hour_llava.training.folder import alone_in, claim  # noqa: E402
from marathon_pipeline.hour_llava.training.launch import prepare  # noqa: E402
from marathon_pipeline.hour_llava.training.log import read_log  # noqa: E402
from marathon_pipeline.hour_llava.training.loop import Stopped  # noqa: E402
from marathon_pipeline.hour_llava.training.parts import PARTS, part_of  # noqa: E402
from marathon_pipeline.hour_llava.training.settings import (  # noqa: E402
    PAPER,
    ForgettingSettings,
    LearningRates,
    MemAugSettings,
    ModelSettings,
    TrainJob,
    TrainRun,
    TrainStage,
    load_train_job,
    parse_train_job,
)
from marathon_pipeline.release.settings import ReleaseSettings  # noqa: E402

MARATHON = [sys.executable, "-m", "marathon_pipeline"]
TRAINED = {"s1": {"memaug"}, "s2": set(PARTS), "s3": {"projector", "memaug", "llm"}}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("dataset"), films(8), ReleaseSettings(media_shards=2))


def weights(model: Any) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def error_of(text: str, *settings: str) -> str:
    with pytest.raises(UserError) as raised:
        parse_train_job(text, "job.yaml", list(settings))
    return str(raised.value)


# Settings


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_the_shipped_jobs_have_the_settings_of_the_paper(size: str) -> None:
    job = load_train_job(str(CHECKOUT / f"jobs/train-hour-llava-{size}.yaml"), [])
    assert [stage.stage for stage in job.stages] == ["s1", "s2", "s3"]
    assert [stage.batch for stage in job.stages] == ([128, 128, 128] if size == "3b" else [128, 128, 256])
    rates = [list(stage.learning_rates.model_dump().values()) for stage in job.stages]
    llm_in_s2 = 2e-5 if size == "3b" else 1e-5
    assert rates == [[0, 0, 1e-4, 0], [5e-6, 1e-4, 1e-4, llm_in_s2], [0, 1e-4, 1e-4, 2e-5]]
    assert all(
        (stage.warmup, stage.weight_decay, stage.clip, stage.epochs) == (0.03, 0, 1.0, 1) for stage in job.stages
    )
    assert (job.run.precision, job.run.activation_checkpointing, job.run.workers) == ("bf16", True, 64)
    assert job.model.llm == ("Qwen/Qwen2.5-3B-Instruct" if size == "3b" else "Qwen/Qwen2-7B-Instruct")


def test_the_model_of_a_job_that_says_nothing_is_the_configurations() -> None:
    default = HourLlavaConfig().to_dict()
    assert {name: default[name] for name in ModelSettings().config()} == ModelSettings().config()


def test_a_resolved_job_is_the_same_job() -> None:
    job = job_of("out/x", "s1", "s2", "s3")
    assert parse_train_job(job.resolved(), "resolved", []) == job


STAGE = "{stage: s3, data: {releases: [r], batch_size: 2}, batch: 4}"
WRONG = {
    "stages: [{stage: s4, data: {releases: [r]}}]": "stages.0.stage",
    "stages: [{stage: s3, data: {releases: [r]}, lr: 3}]": "stages.0.lr: no such setting (docs/training.md lists them)",
    "stages: [{stage: s3, data: {releases: []}}]": "stages.0.data.releases",
    "stages: [{stage: s3, data: {releases: [r]}, batch: 9}]": "`batch` 9 of `s3` is no multiple",
    "stages: [{stage: s2, data: {releases: [r], features: true}}]": "cached features do not follow a vision tower",
    "stages: [{stage: s1, learning_rates: {memaug: 0}, data: {releases: [r]}}]": "all are 0, so nothing is trained",
    f"stages: [{STAGE}, {STAGE}]": "two are called `s3`",
    f"stages: [{STAGE}]\nmodel: {{path: x, llm: y}}": "`path` is a whole model and brings its own `llm`",
    f"stages: [{STAGE}]\nmodel: {{llm: {{hidden_size: 8}}}}": "give both by name or folder",
    "stages: []": "stages",
}


@pytest.mark.parametrize("text", WRONG, ids=list(WRONG.values()))
def test_a_wrong_setting_is_one_line_that_names_it(text: str) -> None:
    line = error_of(f"out: out/x\n{text}")
    assert WRONG[text] in line and "\n" not in line


def test_settings_of_one_stage_are_set_by_its_number() -> None:
    text = f"out: out/x\nstages: [{STAGE}, {STAGE.replace('s3', 's2')}]"
    job = parse_train_job(text, "job.yaml", ["stages.1.steps=7", "run.workers=2"])
    assert [stage.steps for stage in job.stages] == [None, 7] and job.run.workers == 2
    assert "`2` is no item of a list of 2" in error_of(text, "stages.2.steps=7")


def test_the_page_lists_every_setting() -> None:
    page = (CHECKOUT / "docs/training.md").read_text()

    def settings_of(model: type[BaseModel], above: str = "") -> list[str]:
        inner = {"model": ModelSettings, "forgetting": ForgettingSettings, "memaug": MemAugSettings, "run": TrainRun}
        inner |= {"stages": TrainStage, "data": LoaderSettings}
        names = []
        for name in model.model_fields:
            nested = inner.get(name) if model is not LearningRates else None
            names += settings_of(nested, f"{above}{name}.") if nested else [f"{above}{name}"]
        return names

    wanted = [name for name in settings_of(TrainJob) if name != "stages.learning_rates"]
    assert len(wanted) > 40
    assert not [name for name in wanted if f"`{name}`" not in page]


# What is wrong is said before anything starts


def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path / "none", "s3", data={"releases": [str(tmp_path / "no-release")], "batch_size": 2})
    with pytest.raises(UserError, match="no-release"):
        prepare(job)
    named = {**job_of(tmp_path / "named", "s3").model_dump(), "model": {"path": str(tmp_path / "no-model")}}
    named["stages"][0]["data"]["releases"] = [str(release)]
    with pytest.raises(UserError, match=r"model\.path: no model"):
        prepare(TrainJob.model_validate(named))
    monkeypatch.setattr("marathon_pipeline.hour_llava.training.launch.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'marathon-pipeline\[train\]'"):
        prepare(job)


def test_nobody_goes_on_in_a_folder_with_other_settings(tmp_path: Path) -> None:
    first, other = job_of(tmp_path, "s3"), job_of(tmp_path, "s3", batch=8)
    claim(first, first.stages[0])
    claim(first, first.stages[0])
    with pytest.raises(UserError, match=r"other settings \(stages.0.batch: 4 then, 8 now\)"):
        claim(other, other.stages[0])
    how = job_of(tmp_path, "s3", run={"keep": 9, "shard": "fsdp"})  # decides nothing
    claim(how, how.stages[0])


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marathon_pipeline.hour_llava.training.folder._PATIENCE", 0.0)
    with alone_in(tmp_path), pytest.raises(UserError, match="another training writes there"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


# The loop


@pytest.mark.parametrize("stage", TRAINED)
def test_a_stage_changes_what_it_trains_and_nothing_else(tmp_path: Path, stage: str) -> None:
    job = job_of(tmp_path, stage, steps=3)
    before = weights(build(job.model, job.seed)[0])
    model = train(job)
    changed = {name for name, weight in weights(model).items() if not torch.equal(weight, before[name])}
    expected = {name for name in before if part_of(name) in TRAINED[stage]}
    # Attention does not see what is the same for all keys, so their bias gets a gradient of rounding errors alone.
    assert changed == expected or expected - changed <= {name for name in expected if name.endswith("k_proj.bias")}
    assert all((model.get_parameter(name).grad is None) for name in before if part_of(name) not in TRAINED[stage])


def test_learning_rates_rise_and_fall_for_each_part_by_itself(tmp_path: Path) -> None:
    job = job_of(tmp_path, "s3", steps=8, warmup=0.25)
    train(job, features=True)
    rates = [step.learning_rates for step, _ in read_log(tmp_path / "s3")]
    expected = [0, 0.5, *(0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6))]
    for part, highest in PAPER["s3"].of_parts().items():
        assert [each[part] for each in rates] == pytest.approx([share * highest for share in expected])


def test_a_steps_loss_is_the_mean_over_all_answer_tokens_however_they_are_batched(tmp_path: Path) -> None:
    model, processor = build(job_of(tmp_path, "s3").model, 0)
    batch = dict(processor(examples(12)[:4], seed=0))
    with torch.no_grad():
        expected = float(model(**batch).loss)
    curves = []
    for size in (1, 2, 4):  # answers of different lengths, so means of means would differ
        job = job_of(tmp_path / str(size), "s3", data={"releases": ["none"], "batch_size": size}, steps=4)
        train(job)
        curves.append(curve(tmp_path / str(size) / "s3"))
    assert curves[0][0][0] == pytest.approx(expected, rel=1e-5)
    for other in curves[1:]:
        for one, two in zip(curves[0], other, strict=True):
            assert one == pytest.approx(two, rel=1e-4)


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Bit for bit, also between checkpoints: it stops behind the third step, and writes one there."""
    train(job_of(tmp_path / "whole", "s3"))
    stopped = job_of(tmp_path / "stopped", "s3")
    log = tmp_path / "stopped/s3/log.jsonl"
    with pytest.raises(Stopped):
        train(stopped, stopping=lambda: len(log.read_text().splitlines()) == 2)
    assert not (tmp_path / "stopped/s3/model").exists()
    (tmp_path / "stopped/s3/checkpoints/step-00000099.partial").mkdir()  # of a kill while it was written
    with log.open("a") as file:
        file.write('{"step": 4, "lo')  # of a kill behind the checkpoint
    train(stopped)
    assert curve(tmp_path / "stopped/s3") == curve(tmp_path / "whole/s3")
    one, two = (load(tmp_path / each / "s3/model")[0] for each in ("whole", "stopped"))
    assert all(torch.equal(weight, two.get_parameter(name)) for name, weight in one.named_parameters())


def test_checkpoints_hold_what_is_trained_and_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    job = job_of(tmp_path, "s1", steps=6, run={"checkpoint_every": 1, "keep": 2})
    log = tmp_path / "s1/log.jsonl"
    with pytest.raises(Stopped):
        train(job, stopping=lambda: len(log.read_text().splitlines()) == 4)
    folder = tmp_path / "s1/checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000005"]
    from torch.distributed.checkpoint import FileSystemReader

    names = FileSystemReader(str(folder / "step-00000005")).read_metadata().state_dict_metadata
    saved = {name.removeprefix("model.") for name in names if name.startswith("model.")}
    assert saved and all(part_of(name) == "memaug" for name in saved)


def test_a_loss_that_is_no_number_ends_the_training_and_leaves_its_checkpoint(tmp_path: Path) -> None:
    job = job_of(tmp_path, "s3", learning_rates={"llm": 1e30}, clip=1e30, steps=30)
    with pytest.raises(UserError, match="lower the learning rates"):
        train(job)
    assert list((tmp_path / "s3/checkpoints").glob("step-*")) and not (tmp_path / "s3/model").exists()


# Processes that die; slow: each of them loads PyTorch, and Ray


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("tiny_training.py"))]
    subprocess.run([*program, str(tmp_path / "whole")], check=True)
    for step in (1, 3, 4):
        assert subprocess.run([*program, str(tmp_path / "killed"), str(step)]).returncode == -signal.SIGKILL
    subprocess.run([*program, str(tmp_path / "killed")], check=True)
    assert curve(tmp_path / "killed/s3") == curve(tmp_path / "whole/s3")


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_ranks_have_the_loss_of_one(tmp_path: Path, shard: str) -> None:
    """Within 1e-4 of it: sums of floats in another order. Every part is trained, and videos differ in length."""
    train(job_of(tmp_path / "one", "s2"))
    on_ranks(job_of(tmp_path / "two", "s2", run={"workers": 2, "shard": shard, "precision": "fp32"}), 2, free_port())
    for one, two in zip(curve(tmp_path / "one/s2"), curve(tmp_path / "two/s2"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    single, shared = (load(tmp_path / each / "s2/model")[0] for each in ("one", "two"))
    for name, weight in single.named_parameters():
        if not name.endswith("k_proj.bias"):  # its gradient is rounding errors, and Adam makes whole steps of them
            assert torch.allclose(weight, shared.get_parameter(name), atol=2e-4), name


@pytest.fixture
def job_file(tmp_path: Path, release: Path) -> Callable[..., Path]:
    def write(name: str, stages: tuple[str, ...] = ("s3",), steps: int = 6, **run: Any) -> Path:
        data = {"releases": [str(release)], "batch_size": 2, "workers": 0, "window": 4}
        job = {
            "out": str(tmp_path / name),
            "model": MODEL,
            "stages": [{"stage": stage, "data": data, "batch": 4, "steps": steps} for stage in stages],
            "run": {"checkpoint_every": 2, **run},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(job))
        return path

    return write


def marathon_train(job: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MARATHON, "train", str(job)], capture_output=True, text=True, timeout=600)


def started(job: Path, until_step: int, stage: str = "s3") -> "subprocess.Popen[str]":
    """The command, when its log has so many steps."""
    command = subprocess.Popen([*MARATHON, "train", str(job)], stderr=subprocess.PIPE, text=True)
    folder = job.with_suffix("") / stage
    end = time.monotonic() + 300
    while len(list(read_log(folder))) < until_step:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return command


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_trains_all_three_stages_and_the_model_answers(
    job_file: Callable[..., Path], tmp_path: Path
) -> None:
    job = job_file("all", ("s1", "s2", "s3"), workers=2, shard="fsdp")
    ended = marathon_train(job)
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["s1", "s2", "s3"]
    models = [load(tmp_path / "all" / stage / "model")[0] for stage in ("s1", "s2", "s3")]
    for stage, before, after in zip(("s2", "s3"), models, models[1:], strict=False):
        changed = {
            part_of(n) for n, weight in before.named_parameters() if not torch.equal(weight, after.get_parameter(n))
        }
        assert changed == TRAINED[stage]
    model, processor = load(tmp_path / "all/s3/model")
    prompts = processor(examples(3), prompt=True)
    answers = [model.eval().generate(**prompts, max_new_tokens=4, do_sample=False) for _ in range(2)]
    assert torch.equal(*answers) and len(answers[0]) == 3
    assert list((tmp_path / "all/s3/tensorboard").iterdir())
    again = marathon_train(job)
    assert again.returncode == 0 and again.stdout.startswith("nothing to do")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_command_that_is_stopped_or_killed_goes_on_bit_for_bit(job_file: Callable[..., Path], tmp_path: Path) -> None:
    assert marathon_train(job_file("whole", steps=40)).returncode == 0
    job = job_file("disturbed", steps=40)
    command = started(job, 3)
    command.send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=120)
    assert command.returncode == 3 and "run the same command again" in said
    assert len(list(read_log(tmp_path / "disturbed/s3"))) < 40
    command = started(job, 12)
    command.kill()
    command.communicate()
    ended = marathon_train(job)
    assert ended.returncode == 0, ended.stderr
    assert curve(tmp_path / "disturbed/s3") == curve(tmp_path / "whole/s3")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_dies_is_started_again_and_it_does_not_show(
    job_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert marathon_train(job_file("whole", steps=40)).returncode == 0
    command = started(job_file("disturbed", steps=40), 5)
    (worker,) = (
        child for child in psutil.Process(command.pid).children(recursive=True) if "RayTrainWorker" in child.name()
    )
    os.kill(worker.pid, signal.SIGKILL)
    _, said = command.communicate(timeout=300)
    assert command.returncode == 0, said
    assert curve(tmp_path / "disturbed/s3") == curve(tmp_path / "whole/s3")


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_line(job_file: Callable[..., Path], tmp_path: Path) -> None:
    job = job_file("wrong")
    fields = json.loads(job.read_text())
    fields["stages"][0] |= {"learning_rates": {"llm": 1e30}, "clip": 1e30, "steps": 40}
    job.write_text(json.dumps(fields))
    ended = marathon_train(job)
    assert ended.returncode == 2 and "lower the learning rates" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 2 and "Traceback" not in ended.stderr
    assert not ended.stdout
