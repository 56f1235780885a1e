"""Writers of the parts of a release. Each takes the videos one after another, in the order of their shards."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.gates import Gates
from marathon_pipeline.licences import Licences, SourceRule
from marathon_pipeline.records import Format, QAPair, Split, Verdict
from marathon_pipeline.release.files import Folder, Table, Tar
from marathon_pipeline.release.plan import Placed
from marathon_pipeline.release.release_file import CaptionSummary, Level, SourceGroup, TaskSummary, VideoSummary
from marathon_pipeline.release.rows import CaptionRow, QARow, VideoRow, caption_rows, measured_row, qa_row
from marathon_pipeline.taxonomy import Task

_HELD = 1_000  # QA pairs
SOURCE_LICENCE, MODEL_LICENCE = "source_licence", "model_licence"  # why a text is left out


class QAWriter:
    """One task's tars and tables.

    Hugging Face `datasets` takes the types of a tar from its first five samples, and a list that is empty in all of
    them can hold nothing in the sixth. So what stands at a shard's start is held back until a pair with options and
    evidence is there to be written first.
    """

    def __init__(self, folder: Folder, task: Task, shards: int, gates: Gates, licences: Licences) -> None:
        self._folder, self._task, self._shards, self._gates, self._licences = folder, task, shards, gates, licences
        self._place: tuple[int, int] | None = None
        self._tar: Tar | None = None
        self._table: Table | None = None
        self._held: list[QARow] = []
        self._typed = False
        self._summary = TaskSummary(topic=task.topic, name=task.name)
        self._formats: Counter[Format] = Counter()
        self._splits: Counter[Split] = Counter()
        self._numbers: Counter[Split] = Counter()  # of tars begun, by split
        self._left_out: Counter[str] = Counter()
        self._annotators: set[str] = set()
        self._versions: defaultdict[Split, set[int]] = defaultdict(set)
        self._replaced = 0

    def add(self, place: Placed, video: VideoRow, pairs: Sequence[QAPair], verdicts: dict[str, Verdict]) -> None:
        own = {pair.qa_id: pair for pair in pairs if pair.task == self._task.task}
        retold = self._task.retells
        for pair in own.values():
            verdict = verdicts.get(pair.qa_id)
            reasons = self._gates.rejects(pair, verdict, place.rejected)
            reasons += refused(
                place.rule.allows_qa(retold), self._licences.of_model(pair.binding.annotator).allows_qa(retold)
            )
            self._left_out.update(reasons)
            if verdict is not None and not reasons:
                self._release(place, qa_row(pair, verdict, video))

    def close(self) -> TaskSummary:
        self._close_shard()
        if self._table:
            self._table.close()
        return self._summary.model_copy(
            update={
                "qa": self._formats.total(),
                "formats": dict(sorted(self._formats.items())),
                "splits": dict(self._splits),
                "shards": dict(self._numbers),
                "left_out": dict(sorted(self._left_out.items())),
                "annotators": tuple(sorted(self._annotators)),
                "template_versions": tuple(sorted(set[int]().union(*self._versions.values()))),
                "split_versions": {split: tuple(sorted(versions)) for split, versions in self._versions.items()},
                "replaced": self._replaced,
            }
        )

    def _release(self, place: Placed, row: QARow) -> None:
        shard = place.order(self._shards)[:2]
        if shard != self._place:
            self._begin_shard(shard, place.split)
        self._held.append(row)
        if self._typed or (row.options and row.evidence) or len(self._held) == _HELD:
            self._flush()
        self._formats[row.format] += 1
        self._splits[row.split] += 1
        self._annotators.add(row.annotator)
        self._versions[row.split].add(row.template_version)
        self._replaced += row.tries > 0

    def _begin_shard(self, shard: tuple[int, int], split: Split) -> None:
        self._close_shard()
        folder = f"qa/{self._task.task}"
        if self._place is None or self._place[0] != shard[0]:
            if self._table:
                self._table.close()
            self._table = Table(self._folder, f"{folder}/{split}.parquet", measured_row())
        self._tar = Tar(self._folder, f"{folder}/{split}-{self._numbers[split]:06d}.tar")
        self._numbers[split] += 1
        self._place, self._typed = shard, False

    def _close_shard(self) -> None:
        if self._tar:
            self._flush()
            self._tar.close()

    def _flush(self) -> None:
        assert self._tar and self._table
        rows = sorted(self._held, key=lambda row: not (row.options and row.evidence))
        for row in rows:
            self._tar.write(row.qa_id, json=row.json_bytes())
        self._table.write(rows)
        self._held, self._typed = [], True


class VideoWriter:
    def __init__(self, folder: Folder) -> None:
        self._table = Table(folder, "videos.parquet", VideoRow)
        self._seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._videos: Counter[tuple[str, str]] = Counter()
        self._evidence: dict[tuple[str, str], str] = {}
        self._splits: Counter[Split] = Counter()
        self._sources: set[str] = set()

    def add(self, video: VideoRow) -> None:
        self._table.write([video])
        group = video.data_source, video.licence
        self._videos[group] += 1
        self._seconds[group] += video.end - video.start
        if self._evidence.setdefault(group, video.licence_evidence) != video.licence_evidence:
            self._evidence[group] = ""
        self._splits[video.split] += 1
        self._sources.add(video.source_id)

    def close(self) -> VideoSummary:
        self._table.close()
        groups = [
            SourceGroup(
                data_source=group[0],
                licence=group[1],
                evidence=self._evidence[group],
                videos=videos,
                seconds=self._seconds[group],
            )
            for group, videos in sorted(self._videos.items())
        ]
        return VideoSummary(
            videos=self._videos.total(),
            sources=len(self._sources),
            seconds=sum(group.seconds for group in groups),
            splits=dict(self._splits),
            groups=tuple(groups),
        )


def refused(by_source: bool, by_model: bool) -> tuple[str, ...]:
    """Which licences forbid a text, of those that could allow it."""
    return (*(() if by_source else (SOURCE_LICENCE,)), *(() if by_model else (MODEL_LICENCE,)))


class CaptionWriter:
    def __init__(self, folder: Folder, licences: Licences) -> None:
        self._table, self._licences = Table(folder, "captions.parquet", CaptionRow), licences
        self._left_out: Counter[str] = Counter()
        self._levels: Counter[Level] = Counter()
        self._annotators: set[str] = set()

    def add(self, tables: Tables, video: VideoRow, rule: SourceRule) -> None:
        rows = []
        for row in caption_rows(tables, video):
            reasons = refused(rule.captions, self._licences.of_model(row.annotator).captions)
            self._left_out.update(reasons)
            rows += [] if reasons else [row]
        self._table.write(rows)
        self._levels.update(row.level for row in rows)
        self._annotators.update(row.annotator for row in rows)

    def close(self) -> CaptionSummary:
        self._table.close()
        levels = dict(sorted(self._levels.items()))
        left_out = dict(sorted(self._left_out.items()))
        return CaptionSummary(levels=levels, annotators=tuple(sorted(self._annotators)), left_out=left_out)
