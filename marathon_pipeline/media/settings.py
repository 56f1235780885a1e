"""What a job may say about decoding."""

from pydantic import BaseModel, ConfigDict, Field

LIMITS = {"timeout_seconds", "timeout_per_second", "max_pixels", "max_memory"}  # they decide whether, not what


class DecodeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # Of the proxy. More costs storage and tokens, less hides what is small.
    short_side: int = Field(default=384, ge=32, le=2160)
    # Of the proxy. 6 lower doubles the storage, higher blurs what captioners see.
    crf: int = Field(default=26, ge=0, le=51)
    # Without it H.264 and HEVC cost 1.5 times the CPU, for frames that nothing reads.
    skip_unreferenced: bool = True
    # More finish one video sooner and a thousand videos later.
    threads: int = Field(default=1, ge=1)
    # Share of a video that may be missing. 0 refuses much of the web, more lets half a video pass for a whole one.
    damage: float = Field(default=0.1, ge=0, le=1)
    # Wall time of a decode, whatever its length. Without it a decoder that hangs holds its CPU for ever.
    timeout_seconds: float = Field(default=120.0, gt=0)
    # And this much more for each second of video: a slow machine that decodes 4K needs it.
    timeout_per_second: float = Field(default=4.0, ge=0)
    # Of one picture. Without it a header of a hundred bytes can ask for gigabytes. 35,389,440 is 8192 x 4320.
    max_pixels: int = Field(default=35_389_440, ge=1)
    # Bytes of memory for one decoder (on Linux, of its address space). Without it one file can stop all on a machine.
    max_memory: int = Field(default=4 * 2**30, ge=2**28)
