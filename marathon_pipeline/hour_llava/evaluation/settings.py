"""An evaluation job: one YAML file, one model, releases and needles that it is asked about."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from marathon_pipeline.hour_llava.evaluation.cards import CardSettings
from marathon_pipeline.job_file import job_text, parse
from marathon_pipeline.records import Split
from marathon_pipeline.shipped import shipped

How = Literal["letters", "texts", "generation"]


class EvaluateJob(BaseModel):
    """Everything that an evaluation reads. Paths are relative to the folder that the command is called in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out: str = Field(min_length=1)  # a folder: report.md, report.json, answers, and the needles
    model: str = Field(min_length=1)  # a trained Hour-LLaVA, as `save_pretrained` leaves it: name or folder
    releases: tuple[str, ...] = ()  # folders or URLs of releases; their multiple-choice questions are asked
    split: Split = "test"  # of them; what was trained on says nothing
    features: bool = False  # read cached features; they have to be of the model's own tower
    fingerprint: str = ""  # of the features; none: all have to be of the one that is found first
    by: tuple[How, ...] = Field(("letters", "generation"), min_length=1)  # see `answering.py`
    blind: bool = True  # the same without the video: what the questions alone give away
    questions_per_task: int | None = Field(None, ge=1)  # the same ones every time; none: all
    minutes: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0)  # where the classes of video length end; the last has no end
    needles: CardSettings | None = None  # videos to be made and asked about, of them the picture by depth and length
    depths: int = Field(10, ge=1)  # rows of that picture
    max_new_tokens: int = Field(16, ge=1)  # of a generated answer; fewer cut an option's text, more take time
    precision: Literal["bf16", "fp32"] = "fp32"  # bf16 takes half of a GPU's memory and time
    gpu: bool | None = None  # none: where there is one

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.releases and self.needles is None:
            raise ValueError("names neither `releases` nor `needles`, so nothing would be asked; give one of them")
        if list(self.minutes) != sorted(set(self.minutes)) or any(minutes <= 0 for minutes in self.minutes):
            raise ValueError("minutes: give lengths above 0 in ascending order")
        if "://" in self.out:
            raise ValueError("out: give a folder, no URL")
        return self


def load_evaluate_job(job: str, settings: list[str]) -> EvaluateJob:
    """Read a job file (a path, or the name of a shipped one) and put `key=value` settings over it. Raises UserError."""
    known = [f"jobs/{path.name}" for path in sorted(shipped("jobs").glob("evaluate-*.yaml"))]
    text = job_text(job, known)
    return parse(EvaluateJob, text, job, settings, begin="out: FOLDER", documented="docs/evaluation.md")


def needles_of(job: EvaluateJob) -> Path:
    """The dataset of its needles."""
    return Path(job.out) / "needles"
