"""What a stage writes, without a dataset around it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from marathon_pipeline.dataset.journal import Answers, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import Record
from marathon_pipeline.stages.stage import Given, Stage, of_part


def rows_of(stage: Stage, given: Mapping[type[Record], Sequence[Record]], storage: Storage) -> list[Record]:
    """Of all its parts; a part that is filtered writes none."""
    journal = Journal(storage, stage.name, "video")
    reads = {record: given[record] for record in stage.reads}

    async def run() -> list[Record]:
        rows: list[Record] = []
        for part in stage.parts:
            with suppress(Filtered):
                rows += await stage.run(Given(of_part(reads, part), Answers(journal, part)), part)
        return rows

    return asyncio.run(run())
