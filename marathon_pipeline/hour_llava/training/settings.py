"""A training job: one YAML file, the stages of one model. Defaults are those of the paper (section 5 and A.3)."""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.job_file import job_text, parse
from marathon_pipeline.records import digest
from marathon_pipeline.shipped import shipped

VERSION = 1  # of what training computes


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ForgettingSettings(_Strict):
    """What the language model reads of a video; the rest is in the memory alone."""

    spatial: Literal["random", "uniform", "none"] = "random"
    spatial_keep: float = Field(0.25, gt=0, le=1)  # of a frame's tokens; all of them are four times the context
    temporal: Literal["uniform", "random", "keyframe", "question", "none"] = (
        "uniform"  # random costs most (LVBench -1.8)
    )
    temporal_keep: float = Field(0.25, gt=0, le=1)  # of the frames
    min_frames: int = Field(32, ge=1)  # that stay: a short video would lose its context
    max_frames: int = Field(512, ge=1)  # that stay: a longer video would not fit the language model


class MemAugSettings(_Strict):
    depth: int = Field(4, ge=0)  # blocks; 0: none, the ablation that loses two points
    memory: float | Literal["decayed"] = 1.0  # the share of frames that can be recalled; less of them, less accuracy
    rotary_share: float = Field(0.5, ge=0, le=1)  # of each head; 0: it knows no order (temporal reasoning -10.7)
    mlp_ratio: int = Field(4, ge=1)


class ModelSettings(_Strict):
    """What training begins with: a whole Hour-LLaVA, or its parts. Names of the Hugging Face hub, or folders.

    A part given as settings (`{hidden_size: 64, …}`, of SiglipVisionConfig and Qwen2Config) begins at random.
    """

    path: str = ""  # a trained Hour-LLaVA, as `save_pretrained` leaves it; it brings all settings below
    vision: str | dict[str, Any] = "google/siglip-so400m-patch14-384"
    llm: str | dict[str, Any] = "Qwen/Qwen2.5-3B-Instruct"
    tokenizer: str = ""  # none: the language model's own; of one that begins at random, bytes
    system: str = "You are a helpful assistant."  # Qwen was tuned with it; empty saves tokens where it begins at random
    pooling: Literal["average", "bilinear"] = "average"  # the paper averages, its code interpolates
    pooled_side: int = Field(8, ge=1)  # 8 x 8 tokens a frame; fewer show less, and cost less
    frames_per_chunk: int = Field(32, ge=1)  # in the vision tower at once: more takes memory, fewer takes time
    forgetting: ForgettingSettings = ForgettingSettings()
    memaug: MemAugSettings = MemAugSettings()

    @model_validator(mode="after")
    def _is_whole_or_in_parts(self) -> Self:
        if self.path and (others := sorted(self.model_fields_set - {"path"})):
            raise ValueError(f"`path` is a whole model and brings its own `{others[0]}`; delete one of the two")
        return self

    @model_validator(mode="after")
    def _has_both_parts(self) -> Self:
        if isinstance(self.vision, str) != isinstance(self.llm, str):
            raise ValueError("vision and llm: give both by name or folder, or both as settings of a random beginning")
        return self

    def config(self) -> dict[str, Any]:
        """As HourLlavaConfig names it."""
        forgetting, memaug = self.forgetting, self.memaug
        return {
            "pooling": self.pooling,
            "pooled_side": self.pooled_side,
            "frames_per_chunk": self.frames_per_chunk,
            "spatial_forgetting": forgetting.spatial,
            "spatial_keep": forgetting.spatial_keep,
            "temporal_forgetting": forgetting.temporal,
            "temporal_keep": forgetting.temporal_keep,
            "min_frames": forgetting.min_frames,
            "max_frames": forgetting.max_frames,
            "memory": memaug.memory,
            "memaug_depth": memaug.depth,
            "memaug_rotary_share": memaug.rotary_share,
            "memaug_mlp_ratio": memaug.mlp_ratio,
        }


class LearningRates(_Strict):
    """The highest of each part; 0: the stage does not train it."""

    vision: float = Field(0.0, ge=0)
    projector: float = Field(0.0, ge=0)  # and the newline token
    memaug: float = Field(0.0, ge=0)
    llm: float = Field(0.0, ge=0)

    def of_parts(self) -> dict[str, float]:
        return {part: rate for part, rate in self.model_dump().items() if rate > 0}


# Of the 3B model; the second stage of the 7B one trains its language model at 1e-5.
PAPER = {
    "s1": LearningRates(memaug=1e-4),  # image-language: MemAug alone
    "s2": LearningRates(vision=5e-6, projector=1e-4, memaug=1e-4, llm=2e-5),  # video-language adaptation: everything
    "s3": LearningRates(projector=1e-4, memaug=1e-4, llm=2e-5),  # instruction tuning: all but the vision tower
}


class TrainStage(_Strict):
    """One of the paper's three stages; `learning_rates` default to its row of the paper's table."""

    stage: Literal["s1", "s2", "s3"]
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$|^$")  # of its folder; none: that of the stage
    learning_rates: LearningRates = LearningRates()
    data: LoaderSettings  # `batch_size` there is what a worker computes at once: memory, and nothing else
    batch: int = Field(128, ge=1)  # conversations a step, over all workers; 256 for the 7B model's third stage
    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1)  # in place of epochs
    warmup: float = Field(0.03, ge=0, lt=1)  # of the steps; without it Adam's first steps throw a trained model off
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = Field(1.0, gt=0)  # norm of the gradients: one odd batch must not undo a day

    @model_validator(mode="before")
    @classmethod
    def _as_in_the_paper(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or fields.get("stage") not in PAPER:
            return fields  # said below
        filled = {"name": fields["stage"], **fields}
        rates = filled.get("learning_rates", {})
        if isinstance(rates, dict):
            filled["learning_rates"] = {**PAPER[fields["stage"]].model_dump(), **rates}
        return filled

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        if not self.learning_rates.of_parts():
            raise ValueError("learning_rates: all are 0, so nothing is trained; raise one of them")
        if self.learning_rates.vision and self.data.features:
            raise ValueError(
                "data.features: cached features do not follow a vision tower that is trained; read the videos "
                "(features: false), or freeze it (learning_rates.vision: 0)"
            )
        return self


class TrainRun(_Strict):
    """How the work is done. None of it decides what is learned, but by rounding."""

    workers: int = Field(1, ge=1)  # processes, each with a GPU where there are any
    gpu: bool | None = None  # none: where Ray finds one; false: the CPU, with gloo
    cpus: int = Field(1, ge=1)  # cores a worker: of its loader's processes, and without a GPU of its arithmetic
    shard: Literal["ddp", "fsdp"] = "ddp"  # ddp: a whole copy each, 16 bytes a parameter; fsdp (FSDP2) shares them out
    precision: Literal["bf16", "fp32"] = "bf16"  # of the arithmetic; weights stay in fp32. Many a CPU is slow in bf16
    activation_checkpointing: bool = True  # a third more arithmetic; without it an hour of video fills the memory
    compile: bool = False  # faster by fewer kernels, after minutes of compiling; several lengths are several of them
    checkpoint_every: int = Field(100, ge=1)  # steps: what a kill costs at most
    keep: int = Field(2, ge=1)  # checkpoints; each holds what is trained three times over
    restarts: int = Field(3, ge=0)  # after a worker died: of hundreds of GPUs one does each day
    minutes: float = Field(30.0, gt=0)  # that workers wait for one another: too few take a slow disk for a death
    ray_address: str = "local"  # a cluster's address


class TrainJob(_Strict):
    """Everything that training reads. Paths are relative to the folder that the command is called in."""

    out: str  # a folder that all workers see: `<out>/<stage>/model`, checkpoints, log, TensorBoard
    model: ModelSettings = ModelSettings()
    stages: tuple[TrainStage, ...] = Field(min_length=1)  # one after another, each from the model of the one before
    seed: int = 0  # of what begins at random, of forgetting
    run: TrainRun = TrainRun()

    @field_validator("out")
    @classmethod
    def _is_a_folder(cls, out: str) -> str:
        if "://" in out:
            raise ValueError("checkpoints are written into a folder that all workers see, no URL")
        if not out:
            raise ValueError("is empty; give a folder")
        return out

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"stages: two are called `{twice[0]}`; give one of them a `name`")
        for stage in self.stages:
            at_once = stage.data.batch_size * self.run.workers
            if stage.batch % at_once:
                raise ValueError(
                    f"stages: `batch` {stage.batch} of `{stage.name}` is no multiple of data.batch_size x run.workers, "
                    f"{stage.data.batch_size} x {self.run.workers}; change one of the three"
                )
        return self

    def accumulation(self, stage: TrainStage) -> int:
        """Batches of a worker's in one step."""
        return stage.batch // (stage.data.batch_size * self.run.workers)

    def folder(self, stage: TrainStage) -> Path:
        return Path(self.out) / stage.name

    def before(self, stage: TrainStage) -> TrainStage | None:
        index = self.stages.index(stage)
        return self.stages[index - 1] if index else None

    def decisive(self, stage: TrainStage) -> dict[str, Any]:
        """What decides a stage's model, as plain values: also the stages before it."""
        stages = []
        for each in self.stages[: self.stages.index(stage) + 1]:
            fields = each.model_dump(mode="json", exclude={"data": {"workers", "prefetch"}})
            fields["data"]["releases"] = [url.rstrip("/").rpartition("/")[2] for url in each.data.releases]
            stages.append(fields)
        return {
            "version": VERSION,
            "model": self.model.model_dump(mode="json"),
            "stages": stages,
            "seed": self.seed,
            "precision": self.run.precision,
        }

    def fingerprint(self, stage: TrainStage) -> str:
        return digest(self.decisive(stage))

    def absolute(self) -> "TrainJob":
        """The same job, read from any folder: workers do not run in the command's."""
        stages = [
            stage.model_copy(
                update={
                    "data": stage.data.model_copy(update={"releases": tuple(map(_absolute, stage.data.releases))}),
                }
            )
            for stage in self.stages
        ]
        model = self.model.model_dump()
        paths = {
            name: _absolute(model[name]) for name in ("path", "vision", "llm", "tokenizer") if _is_local(model[name])
        }
        return self.model_copy(
            update={
                "out": str(Path(self.out).resolve()),
                "stages": tuple(stages),
                "model": self.model.model_copy(update=paths),
            }
        )

    def resolved(self) -> str:
        """With every default filled in, as YAML."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def load_train_job(job: str, settings: list[str]) -> TrainJob:
    """Read a job file (a path, or the name of a shipped one) and put `key=value` settings over it. Raises UserError."""
    known = [f"jobs/{path.name}" for path in sorted(shipped("jobs").glob("train-*.yaml"))]
    return parse_train_job(job_text(job, known), job, settings)


def parse_train_job(text: str, job: str, settings: list[str]) -> TrainJob:
    """`job` names the file in errors."""
    return parse(TrainJob, text, job, settings, begin="out: FOLDER", documented="docs/training.md")


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _is_local(place: Any) -> bool:
    return isinstance(place, str) and bool(place) and Path(place).exists()
