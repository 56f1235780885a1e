"""What a job says of a served model."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FrameSettings(_Strict):
    """The pictures of a clip that a captioner sees, evenly spread over it."""

    count: int = Field(16, ge=1, le=256)  # fewer miss short actions, more take the context: 30 hold every second
    height: int = Field(336, ge=28)  # in pixels: what is small needs more, which costs tokens by its square
    send: Literal["video", "images"] = "video"  # one `video_url` of pictures already taken, or an `image_url` for each


class Price(_Strict):
    """Of a million tokens, in any one currency."""

    prompt: float = Field(0.0, ge=0)
    cached: float | None = Field(None, ge=0)  # of prompt tokens that the server knew; none: as the others
    completion: float = Field(0.0, ge=0)


class ModelSettings(_Strict):
    """A model and where it is served. What `HOW` names decides nothing of what it writes."""

    model: str = Field(min_length=1)  # as the server names it
    revision: str = ""  # of the weights: a server does not tell, and two of them write differently
    endpoints: tuple[str, ...] | str  # URLs; or one text: a file of them, or `dns+http://NAME:PORT/v1`
    api_key_env: str = ""  # the environment variable that holds the key
    context_tokens: int = Field(32768, ge=2048)  # of a prompt and its answer together
    chars_per_token: float = Field(3.0, gt=0)  # of the prompts' English, guessed low: what does not fit is shortened
    temperature: float = Field(0.7, ge=0, le=2)
    answer_tokens: int = Field(4096, ge=64)
    echo: bool = True  # the answer repeats its request's code; without, answers that a server mixes up go unseen
    frames: FrameSettings = FrameSettings()
    probe: float = Field(0.0, ge=0, le=1)  # share of the clips captioned twice, to see whether pictures get mixed up
    max_in_flight: int = Field(256, ge=1)  # requests at an endpoint; what it bears is found below that
    in_memory: int = Field(1536, ge=1)  # questions whose prompts and pictures are held at once, in each caller
    timeout_seconds: float = Field(300.0, gt=0)
    patience_seconds: float = Field(300.0, ge=0)  # how long to wait where every endpoint is down
    retries: int = Field(6, ge=0)  # of a request that fails for a passing reason
    gpus: float = Field(1, ge=0)  # of one endpoint; half a one where two models share it
    price: Price = Price()

    @field_validator("endpoints")
    @classmethod
    def _are_urls(cls, endpoints: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if not endpoints:
            raise ValueError("name an endpoint, such as http://127.0.0.1:8000/v1")
        for url in endpoints if isinstance(endpoints, tuple) else ():
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"`{url}` is no URL, such as http://127.0.0.1:8000/v1")
        return endpoints

    @property
    def name(self) -> str:
        return f"{self.model}@{self.revision}" if self.revision else self.model


# What says how the work is done, never what comes out.
HOW = frozenset(
    {
        *("endpoints", "api_key_env", "max_in_flight", "in_memory", "timeout_seconds", "patience_seconds", "retries"),
        *("gpus", "price"),
    }
)
