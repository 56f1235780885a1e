"""What a job says about its releases."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ReleaseSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(default="Long-video question answering", min_length=1)  # heads the card: readers search for it
    licence: str = Field(default="other", min_length=1)  # of the texts, as the Hub spells it; unstated is unusable
    shards: int = Field(default=1, ge=1, lt=10_000)  # per task and split; one huge tar leaves all readers but one idle
    media_shards: int = Field(default=1, ge=1, lt=10_000)  # per split; far over 1 GB each, and readers wait
    val: float = Field(default=0.0, ge=0, le=1)  # shares of the sources; else training is judged on its own data
    test: float = Field(default=0.0, ge=0, le=1)
    media: bool = True  # off: URLs only; on, of those videos whose licences allow a copy

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.val + self.test > 1:
            raise ValueError("val and test together are more than 1: they are shares of the sources")
        return self
