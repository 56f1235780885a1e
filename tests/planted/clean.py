"""Clean datasets without rendering: the golden signals with their colours exchanged, one video each time."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, get_args

from stage_rows import rows_of

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.config import parse_job
from marathon_pipeline.dataset import parquet
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.pipeline.stage_list import ANNOTATED, build_stages
from marathon_pipeline.records import Clip, Colour, QAPair, Record, Signals, Verdict
from marathon_pipeline.taxonomy import TASK_IDS, load_taxonomy

R = TypeVar("R", bound=Record)
Rows = dict[type[Record], Sequence[Any]]  # of one video, by table
GOLDEN = Path(__file__).parents[1] / "golden"
TAXONOMY = load_taxonomy()
JOB = parse_job("dataset: none\nevents: {min_events: 0}", "planted", [])
# Of how long, not of when: 600 s and more, in videos of 180.
LASTING = (
    "Somebody spends 10 minutes in the kitchen first.",
    "A cake is baked 25 minutes in the oven.",
    "Two people walk 2 hours in the forest.",
)
THINGS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")  # the others are of views alone


@cache
def videos(count: int) -> tuple[Rows, ...]:
    """All that the stages write about `count` videos, their verdicts too; 119 or so QA pairs each."""
    with TemporaryDirectory() as folder:
        return tuple(_written(_exchange(number), Storage(folder), LASTING) for number in range(count))


def golden() -> Rows:
    """The video of the golden signals itself, whose script is `write_script(seed=11, minutes=3)`."""
    with TemporaryDirectory() as folder:
        return _written({}, Storage(folder))


def verified(rows: Rows, pairs: Sequence[QAPair]) -> list[Verdict]:
    """The verdicts of pairs about a video, by the stage."""
    with TemporaryDirectory() as folder:
        found = rows_of(_stages()["verify"], {**rows, QAPair: pairs}, Storage(folder))
    return [row for row in found if isinstance(row, Verdict)]


def _written(names: dict[str, str], storage: Storage, lasting: Sequence[str] = ()) -> Rows:
    """lasting: sentences, one of which stands before every tenth question that is not of times itself."""
    rows: Rows = {record: [_renamed(row, names) for row in _golden(record)] for record in (Clip, Signals)}
    for name in ("caption_clips", "caption_events", "summarize", "qa", "verify"):
        stage = _stages()[name]
        rows[stage.writes[-1]] = rows_of(stage, rows, storage)
        if name == "qa" and lasting:
            pairs = enumerate(rows[QAPair])
            rows[QAPair] = [
                _lasting(pair, lasting[n // 10 % len(lasting)]) if n % 10 == 3 else pair for n, pair in pairs
            ]
    return rows


def _lasting(pair: QAPair, sentence: str) -> QAPair:
    if re.search(r"\b(?:seconds?|minutes?)\b", " ".join((pair.question, *pair.options, pair.answer))):
        return pair
    question = f"{sentence} {pair.question}"
    qa_id = QAPair.id_of(pair.video_id, pair.task, pair.format, question, pair.options, pair.answer)
    return pair.model_copy(update={"qa_id": qa_id, "question": question})


def _exchange(number: int) -> dict[str, str]:
    chance = Random(number)
    names = {"v": f"v{number:03}"}
    for group in (THINGS, tuple(colour for colour in get_args(Colour) if colour not in THINGS)):
        names |= zip(group, chance.sample(group, len(group)), strict=True)
    return names


def _renamed(row: R, names: dict[str, str]) -> R:
    def new(value: Any) -> Any:
        if isinstance(value, dict):
            return {names.get(key, key): new(each) for key, each in value.items()}
        if isinstance(value, list):
            return [new(each) for each in value]
        return names.get(value, value) if isinstance(value, str) else value

    return type(row).model_validate(new(row.model_dump(mode="json")))


@cache
def _golden(record: type[R]) -> list[R]:
    return parquet.decode(record, (GOLDEN / f"{record.table}.parquet").read_bytes())


@cache
def _stages() -> dict[str, Any]:
    built = build_stages(
        JOB.stage_settings(), dict.fromkeys(ANNOTATED, Measured()), TAXONOMY, TASK_IDS, Storage("none")
    )
    return {stage.name: stage for stage in built}
