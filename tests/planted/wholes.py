"""Faults that only a dataset as a whole has: how each is planted in one of its own, and what measure has to find it.

A new measure of a dataset is one entry more in `FAULTS`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple, get_args

from test_audit_report import finished, outcome

from marathon_pipeline.audit.statistics import Check
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.gates import DatasetMeasure
from marathon_pipeline.records import (
    CAPTION_FIELDS,
    ClipCaption,
    Event,
    JudgedMeasure,
    Planted,
    QAPair,
    Source,
    Summary,
    Verdict,
)
from marathon_pipeline.wording import words
from planted.clean import TAXONOMY, Rows, verified
from planted.pairs import with_options, wrong_of
from planted.score import GATES

# What a judge that never errs makes of planted answers.
FLAWLESS = {
    f"{measure} {planted}{accepted}": 0 if accepted and planted != "right" else 100
    for measure in get_args(JudgedMeasure)
    for planted in get_args(Planted)
    for accepted in ("", " accepted")
}
USUAL = 1  # how often a text may be the right option of a task


@dataclass
class Whole:
    """A dataset in memory. `pairs`, `captions`, `events`: by video; `verdicts`: of all pairs before a fault."""

    videos: dict[str, Rows]
    pairs: dict[str, list[QAPair]]
    captions: dict[str, list[ClipCaption]]
    events: dict[str, list[Event]]
    verdicts: dict[str, Verdict]
    waiting: set[tuple[str, str]] = field(default_factory=set)  # video and task that `verify` has not ended
    unverified: set[str] = field(default_factory=set)
    benchmarks: dict[str, str] = field(default_factory=dict)
    judge: Callable[[QAPair], dict[str, object]] | None = None  # what it says of a pair, as fields of its verdict
    chance: Random = field(default_factory=lambda: Random(1))

    @classmethod
    def of(cls, videos: tuple[Rows, ...]) -> "Whole":
        by_name = {rows[QAPair][0].video_id: rows for rows in videos}
        return cls(
            by_name,
            _varied({name: rows[QAPair] for name, rows in by_name.items()}),
            {name: list(rows[ClipCaption]) for name, rows in by_name.items()},
            {name: list(rows[Event]) for name, rows in by_name.items()},
            {verdict.qa_id: verdict for rows in videos for verdict in rows[Verdict]},
        )

    def change(self, share: float, plant: Callable[[QAPair], dict[str, object] | None]) -> None:
        """Spoils a share of all pairs that the fault fits."""
        for name, pairs in self.pairs.items():
            self.pairs[name] = [_changed(pair, plant) if self.chance.random() < share else pair for pair in pairs]

    def checks(self, folder: Path) -> tuple[Check, ...]:
        """What the gates say of it, once it lies in a folder."""
        dataset = Dataset(str(folder), create=True)
        dataset.write_sources(Source(source_id=name, path=f"/{name}") for name in self.videos)
        for name, rows in self.videos.items():
            pairs = self.pairs[name]
            dataset.tables.write(QAPair, name, pairs, {})
            dataset.tables.write(ClipCaption, name, self.captions[name], {})
            dataset.tables.write(Event, name, self.events[name], {})
            dataset.tables.write(Summary, name, rows[Summary], {})
            dataset.tables.write(Verdict, name, self._verdicts(rows, pairs), {})
            tasks = sorted({pair.task for pair in rows[QAPair]})
            ends = finished(name, rows[ClipCaption][-1].end, len(self.events[name]), dict.fromkeys(tasks, ""))
            dataset.ledger.append(end for end in ends if end.stage != "verify" or (name, end.part) not in self.waiting)
        if self.judge:
            dataset.ledger.append([outcome(name, "calibrate", "object_recognition", tallies=FLAWLESS)])
        dataset.ledger.flush()
        return survey(dataset, Standards(TAXONOMY, GATES, self.benchmarks, Counter(self.benchmarks.values()))).checks

    def _verdicts(self, rows: Rows, pairs: list[QAPair]) -> Iterator[Verdict]:
        before = {id(pair) for pair in rows[QAPair]}
        changed = [pair for pair in pairs if id(pair) not in before]
        known = {**self.verdicts, **{verdict.qa_id: verdict for verdict in verified(rows, changed)}}
        for pair in pairs:
            if pair.qa_id not in self.unverified:
                yield known[pair.qa_id].model_copy(update=self.judge(pair) if self.judge else {})


def _changed(pair: QAPair, plant: Callable[[QAPair], dict[str, object] | None]) -> QAPair:
    spoilt = pair.model_copy(update=plant(pair) or {})
    content = (spoilt.video_id, spoilt.task, spoilt.format, spoilt.question, spoilt.options, spoilt.answer)
    return spoilt.model_copy(update={"qa_id": QAPair.id_of(*content)})


def _varied(pairs: Mapping[str, Sequence[QAPair]]) -> dict[str, list[QAPair]]:
    """Without what the videos, which have one script, have in common: the same pair, and an answer that is usual."""
    seen, right = set[tuple[str, ...]](), Counter[tuple[str, str]]()
    kept: dict[str, list[QAPair]] = {name: [] for name in pairs}
    for name, own in pairs.items():
        for pair in own:
            whole, answer = (pair.question, pair.answer, *sorted(pair.options)), (pair.task, pair.answer)
            if whole not in seen and (not pair.options or right[answer] < USUAL):
                kept[name].append(pair)
                seen.add(whole)
                right[answer] += bool(pair.options)
    return kept


class Fault(NamedTuple):
    found_as: DatasetMeasure
    says: str
    plant: Callable[[Whole], None]


def wait(whole: Whole) -> None:
    name, pairs = next(iter(whole.pairs.items()))
    whole.waiting.add((name, pairs[0].task))


def unverify(whole: Whole) -> None:
    whole.unverified.add(next(iter(whole.pairs.values()))[0].qa_id)


def elsewhere(pair: QAPair) -> dict[str, object]:
    return {"topic": "scene" if pair.topic != "scene" else "object"}


def to_first(pair: QAPair) -> dict[str, object] | None:
    return {"options": (pair.answer, *wrong_of(pair)), "letter": "A"} if pair.options else None


def lengthened(pair: QAPair) -> dict[str, object] | None:
    if not pair.options:
        return None
    return with_options(pair, f"{pair.answer.rstrip('.')}, in plain view.", wrong_of(pair))


def copied(pair: QAPair) -> dict[str, object] | None:
    """Wrong options that are the right one but for a word each."""
    said = pair.answer.rstrip(".").split(" ")
    if not pair.options or len(said) < 3:
        return None
    wrong = [[*said[:place], new, *said[place + 1 :]] for place, new in ((0, "This"), (1, "huge"), (2, "tiny"))]
    return with_options(pair, pair.answer, [f"{' '.join(each)}." for each in wrong])


def usual(whole: Whole) -> None:
    """One text is right wherever it fits."""
    first = {pair.task: pair.answer for pairs in whole.pairs.values() for pair in pairs if pair.options}

    def plant(pair: QAPair) -> dict[str, object] | None:
        if not pair.options:
            return None
        right = first[pair.task]
        wrong = [option for option in wrong_of(pair) if words(option) != words(right)]
        return with_options(pair, right, [*wrong, pair.answer][:3])

    whole.change(0.8, plant)


def repeated(whole: Whole) -> None:
    """Open questions that the one before them has too."""
    for name, pairs in whole.pairs.items():
        before: dict[str, str] = {}
        spoilt = []
        for pair in pairs:
            asked = before.get(pair.task) if pair.format == "open" and whole.chance.random() < 0.2 else None
            spoilt.append(_changed(pair, lambda _, asked=asked: {"question": asked} if asked else None))
            before.setdefault(pair.task, pair.question) if pair.format == "open" else None
        whole.pairs[name] = spoilt


def across(whole: Whole) -> None:
    """Every fourth video has the QA of the one before it."""
    names = list(whole.pairs)
    for one, other in zip(names[::4], names[1::4], strict=False):
        whole.pairs[other] = [_changed(pair, lambda _: {"video_id": other}) for pair in whole.pairs[one]]  # noqa: B023


def reworded(pair: QAPair) -> dict[str, object]:
    return {"question": pair.question.replace("the ", "that very ", 1)}


def twice(whole: Whole) -> None:
    """Every eighth pair stands in its video in other words too."""
    for name, pairs in whole.pairs.items():
        whole.pairs[name] = [*pairs, *(_changed(pair, reworded) for pair in pairs[::8] if " the " in pair.question)]


def nearly_across(whole: Whole) -> None:
    """Every other video has the QA of the one before it, in other words."""
    names = list(whole.pairs)
    for one, other in zip(names[::2], names[1::2], strict=False):
        whole.pairs[other] = [
            _changed(pair, lambda pair: {**reworded(pair), "video_id": other})  # noqa: B023
            for pair in whole.pairs[one]
        ]


def only(*topics: str) -> Callable[[Whole], None]:
    def plant(whole: Whole) -> None:
        for name, pairs in whole.pairs.items():
            whole.pairs[name] = [pair for pair in pairs if pair.topic in topics]

    return plant


def lump(share: int) -> Callable[[Whole], None]:
    """Two events, in one of so many videos."""

    def plant(whole: Whole) -> None:
        for name, events in list(whole.events.items())[::share]:
            first, *rest = events
            clips = tuple(clip_id for event in rest for clip_id in event.clip_ids)
            whole.events[name] = [first, rest[0].model_copy(update={"end": rest[-1].end, "clip_ids": clips})]

    return plant


def silent(whole: Whole) -> None:
    """The events of every fifth video say nothing."""
    for name, events in list(whole.events.items())[::5]:
        empty = {"title": "Something happens", "caption": "Something happens, and then something else."}
        whole.events[name] = [event.model_copy(update=empty) for event in events]


def gaps(whole: Whole) -> None:
    """Every tenth video lacks the captions of its middle."""
    for name in list(whole.captions)[::10]:
        whole.captions[name] = [row for row in whole.captions[name] if not 60 <= row.start < 120]


def stuck(whole: Whole) -> None:
    """A tenth of the clips bears one caption."""
    texts = next(iter(whole.captions.values()))[0].model_dump(include={*CAPTION_FIELDS})
    for name, rows in whole.captions.items():
        whole.captions[name] = [row.model_copy(update=texts) if whole.chance.random() < 0.1 else row for row in rows]


def judged(
    blind: float = 0.25, grounded: float = 0.97, right: float = 0.95, else_: str = "wrong"
) -> Callable[[Whole], None]:
    """A judge looks at it, and finds so many right; of the open-ended answers it calls the others `else_`."""

    def plant(whole: Whole) -> None:
        def said(pair: QAPair) -> dict[str, object]:
            chance = whole.chance.random()
            if pair.format == "open":
                return {"judged": "right" if chance < right else else_}
            return {"blind_right": float(chance < blind), "grounded_right": float(whole.chance.random() < grounded)}

        whole.judge = said

    return plant


FAULTS: tuple[Fault, ...] = (
    Fault("waiting", "a task of one video is not verified", wait),
    Fault("unverified", "a pair without a verdict", unverify),
    Fault(
        "empty_tasks",
        "a task without a sound pair",
        lambda whole: whole.change(1, lambda pair: elsewhere(pair) if pair.task == "scene_transition" else None),
    ),
    Fault("accepted", "a fifth of the pairs are faulty", lambda whole: whole.change(0.2, elsewhere)),
    Fault("letter_share", "a quarter of the right options stand first", lambda whole: whole.change(0.25, to_first)),
    Fault("longest_option", "right options are drawn out", lambda whole: whole.change(0.5, lengthened)),
    Fault("central_option", "wrong options are made from the right one", lambda whole: whole.change(0.5, copied)),
    Fault("usual_answer", "one text is right nearly everywhere in a task", usual),
    Fault("repeated_questions", "a fifth of the open questions is asked twice", repeated),
    Fault("across_videos", "every fourth video has the QA of another one", across),
    Fault("near_duplicates", "every eighth pair is asked twice, in other words", twice),
    Fault("near_across_videos", "every other video has the QA of another one, in other words", nearly_across),
    Fault("delivered", "of what the templates ask for, one topic is there", only("action")),
    Fault("off_topic", "two of the topics are there", only("temporality", "event")),
    Fault("mean_events", "every video has two events", lump(1)),
    Fault("few_events", "every fourth video has two events", lump(4)),
    Fault("lost_facts", "the events of every fifth video say nothing", silent),
    Fault("blind", "two thirds of the choices are answered without the video", judged(blind=0.67)),
    Fault("grounded", "of two fifths of the choices the captions say otherwise", judged(grounded=0.6)),
    Fault("judged_right", "two fifths of the open-ended answers are wrong", judged(right=0.6)),
    Fault("judged_wrong", "two fifths of the open-ended answers are wrong", judged(right=0.6)),
    Fault("judged_vague", "a fifth of the open-ended answers is vague", judged(right=0.8, else_="vague")),
    Fault("caption_gaps", "every tenth video lacks the captions of its middle", gaps),
    Fault("commonest_caption", "a tenth of the clips bears one caption", stuck),
    Fault("benchmark_videos", "a benchmark names a video", lambda whole: whole.benchmarks.update(v003="a benchmark")),
)
