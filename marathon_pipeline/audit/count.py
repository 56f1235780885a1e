"""What is counted of finished videos, one after another, and added up. Its memory holds hashes, never texts."""

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from marathon_pipeline.audit.checks import Cell
from marathon_pipeline.audit.guessers import Usual, longest, most_central_of
from marathon_pipeline.audit.judge import counts_of
from marathon_pipeline.audit.measures import length
from marathon_pipeline.audit.near import Signatures
from marathon_pipeline.audit.reviewed import ReviewCount
from marathon_pipeline.audit.rows import Pairs, Verdicts
from marathon_pipeline.audit.said import Said
from marathon_pipeline.audit.sample import Sampler
from marathon_pipeline.audit.statistics import Histogram
from marathon_pipeline.audit.survival import FIELDS, kept, named
from marathon_pipeline.audit.texts import Texts, forget_words, together
from marathon_pipeline.dataset.dataset import Finished
from marathon_pipeline.dataset.reviews import Reviews
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import CAPTION_FIELDS, LETTERS, ClipCaption, Event, Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_OF_PAIR = (
    *("question", "options", "answer", "letter", "evidence", "tries", "instead_of"),
    *("binding.annotator", "binding.template_version"),
)
_OF_JUDGE = ("blind_right", "grounded_right", "judged", "unjudged")
_SPAN_EDGES = (0, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
TENTHS = 10
_SHARES = tuple(share / 20 for share in range(20))
_GAP = 0.1  # of a video
_WHOLE = 0.9  # of a video: a pair whose evidence is more is about all of it
_FEW_EVENTS = 3  # VideoMarathon leaves out videos with fewer


class Bins:
    def __init__(self, edges: Iterable[float]) -> None:
        self.edges = tuple(float(edge) for edge in edges)
        self.counts = [0] * len(self.edges)

    def add(self, values: "Sequence[float] | NDArray[np.int64]") -> None:
        for value in values if isinstance(values, Sequence) else values.tolist():
            self.counts[max(0, bisect_right(self.edges, value) - 1)] += 1

    def extend(self, other: "Bins") -> None:
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]

    def histogram(self) -> Histogram:
        return Histogram(edges=self.edges, counts=tuple(self.counts))


class Count:
    """Takes videos (`video`), and what was counted of others that come later in the order of their ids (`extend`)."""

    def __init__(self, gates: Gates, sampler: Sampler, reviews: Reviews) -> None:
        self._gates, self.sampler, self.reviews = gates, sampler, ReviewCount(reviews)
        self.sources: set[str] = set()
        self.videos: Counter[str] = Counter()  # by collection
        self.seconds: defaultdict[str, float] = defaultdict(float)  # by collection
        self.cells: defaultdict[Cell, Counter[str]] = defaultdict(Counter)
        self.problems: Counter[tuple[str, str]] = Counter()  # by task and name
        self.annotators: Counter[str] = Counter()
        self.whole: Counter[str] = Counter()  # what has no groups
        self.question_words = Bins(range(0, 82, 2))
        self.answer_words = Bins([*range(0, 100, 5), *range(100, 520, 20)])
        self.minutes, self.events = Bins(range(61)), Bins(range(66))
        self.span_seconds = Bins(_SPAN_EDGES)
        self.kept_by_events, self.kept_by_summary = Bins(_SHARES), Bins(_SHARES)
        self.touched = Counter[int]()  # pairs by tenth of the video
        self.covered = array("d")  # of each video, a share
        self.numbers: dict[Cell, int] = {}
        self.hashes, self.questions = array("Q"), array("Q")
        self.places = array("I")  # of each hash: the number of its cell
        self.signatures, self.signed = Signatures(), array("I")  # of each accepted pair, and its cell
        self.usual = Usual()
        self.captions, self.clips = array("Q"), array("I")  # hashes of those of clips; how many of each video

    def video(self, tables: Tables, video: Finished, data_source: str) -> None:
        import numpy as np

        forget_words()
        verdicts, pairs = Verdicts(tables, video, self._gates), Pairs(tables, video, _OF_PAIR)
        self.sources.add(video.source_id)
        self.videos[data_source] += 1
        self.seconds[data_source] += video.seconds
        self.minutes.add([video.seconds / 60])
        self.events.add([video.events])
        self.whole.update(videos=1, events=video.events, few_events=video.events < _FEW_EVENTS)
        self._hierarchy(tables, video)
        templates, tries = pairs.column("binding.template_version"), pairs.column("tries")
        every = zip(pairs.tasks, pairs.formats, templates, tries, strict=True)
        cells = [Cell(task, format, data_source, template, again) for task, format, template, again in every]
        self.annotators.update(pairs.column("binding.annotator"))
        self._add("qa", cells)
        rows = [verdicts.rows.get(qa_id) for qa_id in pairs.ids]
        self._add("unverified", (cell for cell, row in zip(cells, rows, strict=True) if row is None))
        self._judged(verdicts, cells, rows)
        of_gates = verdicts.reasons()
        passed = [row is not None and not of_gates[row] for row in rows]
        of_people = self.reviews.add(video.video_id, pairs, passed)
        reasons = [None if row is None else (*of_gates[row], *by_people)
                   for row, by_people in zip(rows, of_people, strict=True)]  # fmt: skip
        found = zip(pairs.tasks, reasons, strict=True)
        self.problems.update((task, reason) for task, own in found for reason in own or ())
        self._accepted(pairs, cells, np.flatnonzero([own == () for own in reasons]).tolist(), video.seconds)
        where = np.array([-1 if row is None else row for row in rows], np.int64)
        self.sampler.add_video(video, data_source, pairs, reasons, lambda name: verdicts.numbers(name)[where])

    def _add(self, name: str, cells: Iterable[Cell]) -> None:
        for cell, count in Counter(cells).items():
            self.cells[cell][name] += count

    def _judged(self, verdicts: Verdicts, cells: Sequence[Cell], rows: Sequence[int | None]) -> None:
        """What a judge said."""
        if verdicts.said(*_OF_JUDGE):
            said = list(zip(*map(verdicts.measured, _OF_JUDGE), strict=True))
            for cell, row in zip(cells, rows, strict=True):
                if row is not None:
                    self.cells[cell].update(counts_of(*said[row]))

    def extend(self, other: "Count") -> None:
        import numpy as np

        numbers = [self._number(cell) for cell in other.numbers]
        self.sampler.extend(other.sampler)
        self.reviews.extend(other.reviews)
        self.sources |= other.sources
        for data_source, seconds in other.seconds.items():
            self.seconds[data_source] += seconds
        for cell, counts in other.cells.items():
            self.cells[cell].update(counts)
        for name in ("videos", "problems", "annotators", "whole", "touched"):
            getattr(self, name).update(getattr(other, name))
        for name in ("question_words", "answer_words", "minutes", "events", "span_seconds", "kept_by_events",
                     "kept_by_summary", "covered", "hashes", "questions", "signatures", "captions",
                     "clips"):  # fmt: skip
            getattr(self, name).extend(getattr(other, name))
        for name in ("places", "signed"):
            if own := getattr(other, name):
                getattr(self, name).frombytes(np.array(numbers, np.uint32)[np.array(own)].tobytes())
        self.usual.extend(other.usual, numbers)

    def _number(self, cell: Cell) -> int:
        return self.numbers.setdefault(cell, len(self.numbers))

    def _hierarchy(self, tables: Tables, video: Finished) -> None:
        """Whether the captions of a video tell all of it, what they say, and how much of it survives."""
        captions, events = (
            {name: column.to_pylist() for name, column in tables.columns(record, video.video_id, names).items()}
            for record, names in ((ClipCaption, ("clip_id", "start", "end", *CAPTION_FIELDS)),
                                  (Event, ("start", "end", "title", "caption", "clip_ids")))
        )  # fmt: skip
        fields = Texts.of([text for name in CAPTION_FIELDS if name not in FIELDS for text in captions[name]])
        told = Texts.of([text for own in zip(*(captions[name] for name in FIELDS), strict=True) for text in own])
        hashes = (
            *fields.hashes().reshape(len(CAPTION_FIELDS) - len(FIELDS), -1),
            *told.hashes().reshape(-1, len(FIELDS)).T,
        )
        self.captions.frombytes(together(*hashes).tobytes())
        self.clips.append(len(captions["clip_id"]))
        levels = (zip(rows["start"], rows["end"], strict=True) for rows in (captions, events))
        gappy = any(length(spans) < (1 - _GAP) * video.seconds for spans in levels)
        of_events = named(
            Texts.of([text for own in zip(events["title"], events["caption"], strict=True) for text in own]), 2
        )
        summary = Texts.of([" ".join(row.text for row in tables.read(Summary, video.video_id))])
        clips = dict(zip(captions["clip_id"], named(told, len(FIELDS)), strict=True))
        survives = kept(clips, list(zip(of_events, events["clip_ids"], strict=True)), named(summary, 1)[0])
        self.kept_by_events.add([survives.by_events])
        self.kept_by_summary.add([survives.by_summary])
        self.whole.update(gappy=gappy, lossy=survives.low, captions=len(clips))

    def _accepted(self, pairs: Pairs, cells: Sequence[Cell], rows: Sequence[int], seconds: float) -> None:
        """The accepted pairs of one video. rows: which they are."""

        def of(values: Sequence[T]) -> list[T]:
            return [values[row] for row in rows]

        cells, options = of(cells), of(pairs.column("options"))
        said = Said.by(
            of(pairs.tasks), of(pairs.formats), of(pairs.column("question")), options, of(pairs.column("answer"))
        )
        numbers = [self._number(cell) for cell in cells]
        self._add("accepted", cells)
        self.question_words.add(said.texts.sizes[said.first])
        self.answer_words.add(said.texts.sizes[said.last])
        self._guessed(said, cells, options, of(pairs.column("letter")))
        self._repeated(said, cells)
        self.signed.extend(numbers)
        self.signatures.add(said)
        evidence = of(pairs.evidence())
        self.span_seconds.add([end - start for own in evidence for start, end in own])
        self.touched.update(_touched(evidence, seconds))
        if seconds:
            partial = (own for own in evidence if length(own) < _WHOLE * seconds)
            self.covered.append(min(1.0, length(span for own in partial for span in own) / seconds))

    def _guessed(
        self, said: Said, cells: Sequence[Cell], options: Sequence[Sequence[str]], letters: Sequence[str]
    ) -> None:
        """What guessers make of the choices."""
        import numpy as np

        words, places = said.texts.numbers.tolist(), said.texts.places.tolist()
        hashes = together(np.repeat(said.tasks, said.last - said.first + 1), said.hashes).tolist()
        for row, (cell, own, letter) in enumerate(zip(cells, options, letters, strict=True)):
            if len(own) != len(LETTERS) or letter not in (*LETTERS,):
                continue
            counts, right = self.cells[cell], LETTERS.index(letter)
            counts[letter] += 1
            first = int(said.first[row]) + 1
            bags = [frozenset(words[places[text] + 1 : places[text + 1]]) for text in range(first, first + len(own))]
            for name, guess in (("longest", longest(own)), ("central", most_central_of(bags))):
                if guess is not None:
                    counts[name] += 1
                    counts[f"{name}_right"] += guess == right
            self.usual.add(self._number(cell), hashes[first : first + len(own)], right)

    def _repeated(self, said: Said, cells: Sequence[Cell]) -> None:
        """What is the same in several pairs of one video."""
        asked, whole = said.asked().tolist(), said.whole().tolist()
        groups = Counter(asked)
        self.whole["repeated_groups"] += sum(size > 1 for size in groups.values())
        self._add("repeated", (cell for cell, own in zip(cells, asked, strict=True) if groups[own] > 1))
        self.questions.frombytes(said.questions.tobytes())
        distinct = dict(reversed(list(zip(whole, cells, strict=True))))  # the first of each
        self._add("distinct", distinct.values())
        self.hashes.extend(distinct)
        self.places.extend(map(self._number, distinct.values()))


def _touched(evidence: Sequence[Sequence[tuple[float, float]]], seconds: float) -> Counter[int]:
    """Of the tenths of a video, how many pairs' evidence reaches into each."""
    import numpy as np

    some = [own for own in evidence if own]
    if not seconds or not some:
        return Counter()
    start, end = np.array([span for own in some for span in own]).T[:, :, None]
    tenth = np.arange(TENTHS)
    inside = (start < (tenth + 1) * seconds / TENTHS) & (end > tenth * seconds / TENTHS)
    sizes = np.array([len(own) for own in some])
    reached = np.logical_or.reduceat(inside, np.cumsum(sizes) - sizes).sum(axis=0)
    return Counter({number: count for number, count in enumerate(reached.tolist()) if count})
