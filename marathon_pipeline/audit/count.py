"""What is counted of finished videos, one after another, and added up. Its memory holds hashes, never texts."""

from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from marathon_pipeline.audit.checks import Cell
from marathon_pipeline.audit.guessers import Usual, longest, most_central
from marathon_pipeline.audit.judge import counts_of
from marathon_pipeline.audit.measures import covered_seconds
from marathon_pipeline.audit.near import Signatures
from marathon_pipeline.audit.reviewed import ReviewCount
from marathon_pipeline.audit.said import Said, folded, hash_of
from marathon_pipeline.audit.sample import Sampler, Shown
from marathon_pipeline.audit.statistics import Histogram
from marathon_pipeline.audit.survival import kept
from marathon_pipeline.dataset.dataset import Finished
from marathon_pipeline.dataset.reviews import Reviews
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import (
    CAPTION_FIELDS,
    LETTERS,
    ClipCaption,
    Event,
    QAPair,
    Span,
    Summary,
    Verdict,
    merged,
)

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

    def add(self, value: float) -> None:
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
        self.captions = array("Q")  # hashes of those of clips

    def video(self, tables: Tables, video: Finished, data_source: str) -> None:
        verdicts = {
            verdict.qa_id: verdict
            for verdict in tables.read_written(Verdict, video.video_id)
            if verdict.task in video.tasks
        }
        pairs = [pair for pair in tables.read_written(QAPair, video.video_id) if pair.task in video.tasks]
        self.sources.add(video.source_id)
        self.videos[data_source] += 1
        self.seconds[data_source] += video.seconds
        self.minutes.add(video.seconds / 60)
        self.events.add(video.events)
        self.whole.update(videos=1, events=video.events, few_events=video.events < _FEW_EVENTS)
        self._hierarchy(tables, video)
        accepted = []
        for pair in pairs:
            cell = Cell(pair.task, pair.format, data_source, pair.binding.template_version, pair.tries)
            counts = self.cells[cell]
            counts["qa"] += 1
            self.annotators[pair.binding.annotator] += 1
            verdict = verdicts.get(pair.qa_id)
            if verdict is None:
                counts["unverified"] += 1
                continue
            counts.update(counts_of(verdict))
            of_gates = self._gates.reasons(verdict)
            reasons = (*of_gates, *self.reviews.add(pair, passed=not of_gates))
            self.problems.update((pair.task, reason) for reason in reasons)
            if not reasons:
                said = Said.by(pair)
                accepted.append((said, cell))
                self._accepted(said, cell, video.seconds)
            self.sampler.add(Shown(pair, verdict, reasons, video.seconds, data_source))
        self._together(accepted, video.seconds)

    def extend(self, other: "Count") -> None:
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
                     "kept_by_summary", "covered", "hashes", "questions", "signatures", "captions"):  # fmt: skip
            getattr(self, name).extend(getattr(other, name))
        self.places.extend(numbers[place] for place in other.places)
        self.signed.extend(numbers[place] for place in other.signed)
        self.usual.extend(other.usual, numbers)

    def _number(self, cell: Cell) -> int:
        return self.numbers.setdefault(cell, len(self.numbers))

    def _hierarchy(self, tables: Tables, video: Finished) -> None:
        """Whether the captions of a video tell all of it, what they say, and how much of it survives."""
        captions = tables.read_written(ClipCaption, video.video_id)
        events = tables.read_written(Event, video.video_id)
        self.captions.extend(
            hash_of(*(folded(getattr(caption, name)) for name in CAPTION_FIELDS)) for caption in captions
        )
        levels = ([Span(start=row.start, end=row.end) for row in rows] for rows in (captions, events))
        gappy = any(covered_seconds(spans) < (1 - _GAP) * video.seconds for spans in levels)
        summary = " ".join(row.text for row in tables.read(Summary, video.video_id))
        survives = kept({caption.clip_id: caption for caption in captions}, events, summary)
        self.kept_by_events.add(survives.by_events)
        self.kept_by_summary.add(survives.by_summary)
        self.whole.update(gappy=gappy, lossy=survives.low, captions=len(captions))

    def _accepted(self, said: Said, cell: Cell, seconds: float) -> None:
        pair, counts = said.pair, self.cells[cell]
        counts["accepted"] += 1
        self.question_words.add(len(said.question))
        self.answer_words.add(len(said.answer))
        if len(pair.options) == len(LETTERS) and pair.letter in LETTERS:
            counts[pair.letter] += 1
            right = LETTERS.index(pair.letter)
            for name, guess in (("longest", longest(pair.options)), ("central", most_central(pair.options))):
                if guess is not None:
                    counts[name] += 1
                    counts[f"{name}_right"] += guess == right
            self.usual.add(self._number(cell), [hash_of(pair.task, " ".join(own)) for own in said.options], right)
        for span in pair.evidence:
            self.span_seconds.add(span.end - span.start)
        self.touched.update(_touched(pair.evidence, seconds))

    def _together(self, accepted: Sequence[tuple[Said, Cell]], seconds: float) -> None:
        """What the accepted pairs of one video are as a whole."""
        options = [sorted(map(" ".join, said.options)) for said, _ in accepted]
        texts = [" ".join(said.question) for said, _ in accepted]
        asked = [
            hash_of(said.pair.format, text, *own) for (said, _), text, own in zip(accepted, texts, options, strict=True)
        ]
        groups, seen = Counter(asked), set[int]()
        self.whole["repeated_groups"] += sum(size > 1 for size in groups.values())
        for (said, cell), text, own, question in zip(accepted, texts, options, asked, strict=True):
            counts = self.cells[cell]
            counts["repeated"] += groups[question] > 1
            whole = hash_of(said.pair.format, text, " ".join(said.answer), *own)
            self.questions.append(hash_of(text))
            self.signed.append(self._number(cell))
            if whole not in seen:
                seen.add(whole)
                counts["distinct"] += 1
                self.hashes.append(whole)
                self.places.append(self._number(cell))
        self.signatures.add([said for said, _ in accepted])
        if seconds:
            parts = (said.pair.evidence for said, _ in accepted)
            partial = (part for part in parts if covered_seconds(part) < _WHOLE * seconds)
            spans = merged(span for evidence in partial for span in evidence)
            self.covered.append(min(1.0, covered_seconds(spans) / seconds))


def _touched(evidence: Iterable[Span], seconds: float) -> set[int]:
    """The tenths of a video that evidence reaches into."""
    if not seconds:
        return set()
    return {
        tenth
        for tenth in range(TENTHS)
        for span in evidence
        if span.start < (tenth + 1) * seconds / TENTHS and span.end > tenth * seconds / TENTHS
    }
