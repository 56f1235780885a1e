"""The sources of a run: those that the dataset knows already, and what the job's inputs name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.records import Source, digest
from marathon_pipeline.sources.inputs import sources_of_inputs
from marathon_pipeline.sources.manifest import RowProblem


@dataclass(frozen=True)
class Gathered:
    sources: dict[str, Source]  # by id, in the order of the ids
    problems: list[RowProblem]  # wrong rows, which stop nobody
    purged: list[Source]  # named again although they were purged: left out


def gather(dataset: Dataset, inputs: Sequence[str]) -> Gathered:
    """Join the inputs to the dataset's list. Writes nothing."""
    known, removals = dataset.sources(), dataset.removals()
    named, problems = sources_of_inputs(inputs, {source.path: source for source in known.values() if source.path})
    everything = known | {source.source_id: source for source in named}
    kept = {source_id: source for source_id, source in sorted(everything.items()) if not removals.takes(source)}
    return Gathered(kept, problems, [source for source in named if removals.takes(source)])


def sample(sources: Iterable[Source], count: int, seed: int) -> list[Source]:
    """A seeded sample that stays the same, but for its own members, when sources come or go."""
    return sorted(sources, key=lambda source: digest([seed, source.source_id]))[:count]
