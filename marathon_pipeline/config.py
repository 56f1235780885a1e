"""A job: one YAML file, one run. Composed of the settings that live in their own rooms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from marathon_pipeline.annotators.served.settings import ModelSettings, Price
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.job_file import job_text, parse
from marathon_pipeline.pipeline.settings import QASettings, RunSettings
from marathon_pipeline.pipeline.spending import Budget
from marathon_pipeline.pipeline.stage_list import ANNOTATED, StageSettings
from marathon_pipeline.records import Split
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.shipped import shipped
from marathon_pipeline.taxonomy import TASK_IDS

MEASURED = "measured"
_RULES = ("gates.yaml", "licences.yaml")  # beside the jobs that ship


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SyntheticSettings(_Strict):
    """Videos to render first, and to put into the dataset."""

    folder: str
    videos: int = Field(ge=1)
    minutes: float = Field(gt=0)
    seed: int = 0


class AnnotatorSettings(_Strict):
    """Who writes in each stage, `measured` or one of the job's `models`, and who judges what was written."""

    caption_clips: str = MEASURED
    caption_events: str = MEASURED
    summarize: str = MEASURED
    qa: str = MEASURED
    judge: str | None = None  # one of the job's `models`; none: what only a model can judge is not measured


class AuditSettings(_Strict):
    benchmarks: tuple[Path, ...] = ()  # manifests of the videos that models are judged with, a file each
    sample_per_task: int = Field(2, ge=0)  # QA shown with pictures for each task; more makes the page heavy


class NamedRelease(ReleaseSettings):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")  # a revision's number follows: `demo-1`, `demo-2`
    despite: str = ""  # why it is made although a gate is broken; stands in the release

    def settings(self) -> ReleaseSettings:
        return ReleaseSettings(**self.model_dump(exclude={"name", "despite"}))


class JobConfig(StageSettings):
    """Everything a run reads. Paths are relative to the folder that the command is called in."""

    dataset: str  # a folder or an object-store URL
    inputs: tuple[str, ...] = ()  # manifests, URLs, media files and folders of them
    synthetic: SyntheticSettings | None = None
    base: str = ""  # a dataset whose captions are asked about: this one is a pilot then, and takes no other videos
    templates: Path | None = None  # a folder of task templates; none: the shipped ones
    tasks: tuple[str, ...] = TASK_IDS
    models: Mapping[str, ModelSettings] = Field(default_factory=dict)  # served ones, by a name of the job's own
    annotators: AnnotatorSettings = AnnotatorSettings()
    qa: QASettings = QASettings()
    freeze: tuple[Split, ...] = ()  # splits of the release whose QA is left as it is, once it is written
    gates: Path | None = None  # a file of them; none: the shipped one
    licences: Path | None = None  # what may be passed on; none: the shipped file
    release: NamedRelease | None = None  # none: a run writes no release
    audit: AuditSettings | None = None  # none: a run writes no report
    budget: Budget = Budget()
    run: RunSettings = RunSettings()

    @property
    def asks_models(self) -> bool:
        """Whether any stage is written by a served model."""
        return any(name in self.models for name in self.annotators.model_dump().values())

    @property
    def release_settings(self) -> ReleaseSettings:
        """Of the release, named or not. A pilot has no media of its own."""
        settings = self.release.settings() if self.release is not None else ReleaseSettings()
        return settings.model_copy(update={"media": False}) if self.base else settings

    @property
    def prices(self) -> dict[str, Price]:
        """By the name that a model has in the tables."""
        return {model.name: model.price for model in self.models.values()}

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(tasks) - set(TASK_IDS))
        if unknown:
            raise ValueError(f"`{unknown[0]}` is none of the 22 tasks (`marathon tasks` lists them)")
        return tuple(task for task in TASK_IDS if task in tasks)

    @model_validator(mode="after")
    def _has_one_kind_of_videos(self) -> Self:
        if self.base and (self.inputs or self.synthetic):
            raise ValueError("base: a pilot takes its videos from there; delete `inputs` and `synthetic`")
        return self

    @model_validator(mode="after")
    def _names_its_annotators(self) -> Self:
        above = ""
        for stage in ANNOTATED:
            name = getattr(self.annotators, stage)
            if name != MEASURED and name not in self.models:
                known = ", ".join([MEASURED, *self.models])
                raise ValueError(f"annotators.{stage}: `{name}` is none of {known}; describe it under `models`")
            if name == MEASURED and above:
                raise ValueError(f"annotators.{stage}: measured reads measured facts, and {above} is served")
            above = above or ("" if name == MEASURED or stage == "summarize" else stage)
        if (judge := self.annotators.judge) is not None and judge not in self.models:
            known = ", ".join(self.models) or "none is described"
            raise ValueError(f"annotators.judge: `{judge}` is none of `models` ({known}): only served models judge")
        if MEASURED in self.models:
            raise ValueError(f"models: `{MEASURED}` is the name of the annotator that needs no model; take another one")
        return self

    def pilot(self, base: str, into: str) -> "JobConfig":
        """The same job on the captions of another dataset."""
        return self.model_copy(update={"base": base, "dataset": into, "inputs": (), "synthetic": None})

    def stage_settings(self) -> StageSettings:
        return StageSettings(**{name: getattr(self, name) for name in StageSettings.model_fields})

    def resolved(self) -> str:
        """The job with every default filled in, as YAML."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def load_job(job: str, settings: list[str]) -> JobConfig:
    """Read a job file (a path, or the name of a shipped one) and put `key=value` settings over it."""
    return parse_job(job_text(job, _shipped_jobs()), job, settings)


def job_of(dataset: Dataset) -> JobConfig:
    """The job that a dataset was last run with."""
    try:
        return parse_job(dataset.storage.read("job.yaml").decode(), f"{dataset.url}/job.yaml", [])
    except FileNotFoundError:
        raise UserError(f"{dataset.url}: holds no job.yaml; run its job first") from None


def parse_job(text: str, job: str, settings: list[str]) -> JobConfig:
    """`job` names the file in errors."""
    return parse(JobConfig, text, job, settings, begin="dataset: FOLDER", documented="docs/jobs.md")


def _shipped_jobs() -> list[str]:
    names = sorted(path.name for path in shipped("jobs").glob("*.yaml") if path.name not in _RULES)
    return [f"jobs/{name}" for name in names if not name.startswith(("train-", "evaluate-"))]
