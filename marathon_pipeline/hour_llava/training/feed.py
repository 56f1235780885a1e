"""Batches for the loop, epoch after epoch, from the loader or from anything else that keeps its place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava import forgetting
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.data.loader import Loader
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.processing import HourLlavaProcessor

Batch = dict[str, Tensor]


class Feed(Protocol):
    """This rank's batches without end. Its state is the place behind the last batch that was given out."""

    @property
    def unreadable(self) -> int:
        """Samples until now."""
        ...

    def __iter__(self) -> Iterator[Batch]: ...
    def batches(self) -> int:
        """Of an epoch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class Collate:
    """In the loader's processes. The epoch is told before each: forgetting leaves other tokens in each of them."""

    processor: HourLlavaProcessor
    seed: int
    epoch: int = 0

    def __call__(self, examples: Sequence[Example]) -> Batch:
        return dict(self.processor(examples, seed=self.seed + 1_000_003 * self.epoch))


class ReleaseFeed:
    """From releases, by the loader of this rank."""

    def __init__(
        self, settings: LoaderSettings, processor: HourLlavaProcessor, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        self._collate = Collate(processor, seed)
        self._loader: Loader[Batch] = Loader(settings, rank, ranks, self._collate)
        self._name = f"worker {rank + 1} of {ranks}"

    @property
    def unreadable(self) -> int:
        return self._loader.unreadable.total()

    def __iter__(self) -> Iterator[Batch]:
        empty = 0
        while empty < 2:  # one is what is left of an epoch whose last batch was the checkpoint's
            empty += 1
            self._collate.epoch = self._loader.epoch
            for batch in self._loader:
                empty = 0
                yield batch
        raise UserError(
            f"{self._name} has nothing to read: the releases hold fewer readable videos than there are workers, or the "
            "mix takes none of its own; take fewer (run.workers)"
        )

    def batches(self) -> int:
        return self._loader.batches()

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loader.load_state_dict(state)


def language_model_tokens(config: HourLlavaConfig, batch: Mapping[str, Tensor]) -> list[int]:
    """How many tokens the language model reads of each row: its text and what forgetting leaves of its video."""
    if config.spatial_forgetting == "none":
        kept = config.tokens_per_frame
    else:
        kept = forgetting.tokens_to_keep(config.pooled_side**2, config.spatial_keep) + 1
    texts: list[int] = (batch["attention_mask"].sum(1) - 1).tolist()  # the media token gives way
    counts: list[int] = batch["frame_counts"].tolist()
    if config.temporal_forgetting != "none":
        bounds = config.temporal_keep, config.min_frames, config.max_frames
        counts = [forgetting.frames_to_keep(count, *bounds) for count in counts]
    return [text + count * kept for text, count in zip(texts, counts, strict=True)]
