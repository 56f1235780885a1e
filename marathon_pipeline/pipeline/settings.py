"""Settings of the run itself: they say how the work is done, never what comes out."""

import os

from pydantic import BaseModel, ConfigDict, Field


class QASettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tries: int = Field(3, ge=0)  # at a better pair: what a video does not carry is rejected each time, and paid for


class RunSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)  # more than cores only adds memory
    callers: int = Field(default_factory=lambda: min(4, os.cpu_count() or 1), ge=1)  # that ask servers, at most
    served_at_once: int = Field(64, ge=1)  # videos that they work on together: fewer leave servers idle
    ray_address: str = "local"  # a cluster's address; a bare init may attach to a cluster that is dead
    metrics_port: int | None = Field(None, gt=0, le=65535)  # of a Ray of the run's own; none: it exports no metrics
    max_local_bytes: int | None = Field(None, gt=0)  # of downloads: they outrun decoding and fill the disk
    keep_originals: bool = False  # kept, downloads fill the disk: a full build fetches tens of terabytes
