"""What a loader is told."""

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.hour_llava.data.mix import MixSettings
from marathon_pipeline.records import Split


class LoaderSettings(BaseModel):
    """Everything but `workers` decides what is in which batch, and so do the ranks and workers by their number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    releases: tuple[str, ...] = Field(min_length=1)  # folders or URLs, `<dataset>/releases/<name>`
    split: Split = "train"
    features: bool = False  # read `<dataset>/features/` in place of the proxies: decoding them is most of the work
    fingerprint: str = ""  # of the features; none: all have to be of the one that is found first
    mix: MixSettings = MixSettings()
    turns: int = Field(5, ge=1)  # QA pairs of a video in one conversation (VideoMarathon); one alone wastes its video
    batch_size: int = Field(8, ge=1)  # samples
    max_tokens: int = Field(65_536, ge=1)  # of a batch, estimated and padded: eight hours of video exceed a GPU
    window: int = Field(16, ge=1)  # samples that are mixed, and matched by length; a worker holds twice as many proxies
    open_units: int = Field(2, ge=1)  # shards that a worker reads side by side: one alone shows its videos in a row
    side: int | None = Field(None, ge=1)  # of decoded frames, see `proxies.py`
    seed: int = 0
    workers: int = Field(2, ge=0)  # processes a rank that read and decode; 0: the trainer's own
    prefetch: int = Field(2, ge=1)  # batches that each of them has ready
