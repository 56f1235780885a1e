"""Write a release: an immutable, named set of WebDataset shards and Parquet tables with its card."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.licences import applied
from marathon_pipeline.records import QAPair, Verdict, Video
from marathon_pipeline.release.card import render_card
from marathon_pipeline.release.croissant import describe
from marathon_pipeline.release.files import Folder, intact
from marathon_pipeline.release.media import write_media
from marathon_pipeline.release.parts import CaptionWriter, QAWriter, VideoWriter
from marathon_pipeline.release.plan import Placed, Planned, opted_out, planned_release, releasable, with_media
from marathon_pipeline.release.release_file import (
    FILE_NAME,
    ROOT,
    Approval,
    CaptionSummary,
    Release,
    TaskSummary,
    VideoSummary,
    folder_of,
    publishable,
    read_release,
    release_names,
    summary_of,
)
from marathon_pipeline.release.rows import VideoRow, video_row
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.withdrawn import withdrawn
from marathon_pipeline.taxonomy import Taxonomy

Progress = Callable[[str, int, int], None]  # "media" or "qa", videos done, videos in all
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ReleaseInfo:
    """`url`: of its folder. `bytes`: of its files, without the shared media. `unchanged`: it was there already."""

    name: str
    url: str
    qa: int
    tasks: int
    bytes: int
    unchanged: bool
    approval: Approval


def write_release(
    dataset: Dataset,
    name: str,
    rules: ReleaseRules,
    *,
    planned: Planned | None = None,
    approve: Callable[[], Approval] = Approval,
    still_held: Callable[[], None] = lambda: None,
    content: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> ReleaseInfo:
    """Write release `name` of all that is finished, passes the gates for items, and may be passed on.

    planned: what is to be in it, where the caller knows that.

    approve: asked once, before anything is written; raises UserError where the dataset may not be released. still_held:
    called before the file that makes it a release is written, after hours perhaps; raises UserError where another run
    holds the dataset by then.

    content: the job's resolved settings that decide what is in the rows, for readers of `release.json`; they are no
    part of what makes two releases differ, since the rows are. The caller holds the dataset's lease. Raises UserError
    where a release of that name holds something else, or there is nothing to release.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"release name {name!r}: use up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    planned = planned or planned_release(dataset, rules)
    finished, parts = planned.finished, dict(planned.parts)
    placed = releasable(finished)
    if existing := read_release(dataset, name):
        if existing.parts != parts:
            raise UserError(f"release {name} holds other content and releases never change; choose another name")
        return _info(dataset, existing, unchanged=True)
    if gone := withdrawn(dataset.storage, ROOT).get(name):
        instead = f"; {gone.replaced_by} took its place" if gone.replaced_by else ""
        raise UserError(f"release {name} was withdrawn ({gone.why}){instead}; choose another name")
    if finished and not placed:
        raise UserError(f"{dataset.url}: no licence lets anything be released; see docs/licences.md")
    if not placed:
        raise UserError(f"{dataset.url}: no video is finished, so there is nothing to release; run its job first")
    approval = approve()
    try:
        with tempfile.TemporaryDirectory(prefix="release-", dir=dataset.storage.scratch()) as scratch:
            writer = _Writer(dataset, name, rules, finished, parts, Path(scratch), progress or _silent)
            told = {**(content or {}), **({"freeze": rules.frozen} if rules.frozen else {})}
            release = writer.write(publishable(told), approval)
            still_held()
            dataset.storage.write(f"{folder_of(name)}/{FILE_NAME}", release.dump())
            return _info(dataset, release, unchanged=False)
    except pa.ArrowException as error:
        raise UserError(f"{dataset.url}: a table is damaged ({error}); run its job again, then release") from None
    except OSError as error:
        raise UserError(
            f"{dataset.url}: release {name} could not be written ({error}); see to it, then try again"
        ) from None


class _Writer:
    def __init__(
        self,
        dataset: Dataset,
        name: str,
        rules: ReleaseRules,
        finished: Sequence[Placed],
        parts: dict[str, str],
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._dataset, self._name, self._rules, self._finished = dataset, name, rules, finished
        self._placed, self._parts, self._scratch, self._progress = releasable(finished), parts, scratch, progress
        self._folder = Folder(dataset.storage, folder_of(name), scratch)

    def write(self, content: dict[str, JsonValue], approval: Approval) -> Release:
        self._folder.clear()
        before = [release for name in release_names(self._dataset) if (release := read_release(self._dataset, name))]
        kept = {part: release for part in self._parts if (release := self._copied(part, before))}
        tasks, videos, captions = self._written(kept)
        if not any(task.qa for task in tasks.values()):
            why = "every QA pair is rejected, or its licences forbid it"
            raise UserError(f"{self._dataset.url}: {why}, so there is nothing to release; audit it")
        annotators = sorted({*captions.annotators, *(a for task in tasks.values() for a in task.annotators)})
        described = [(p.source.data_source, p.source.licence, p.source.url) for p in self._finished]
        media = None
        if shown := with_media(self._placed, self._rules.settings):
            media = write_media(
                self._dataset,
                shown,
                self._rules.settings,
                self._scratch,
                self._row_of,
                lambda done: self._progress("media", done, len(shown)),
            )
        release = Release(
            name=self._name,
            title=self._rules.settings.title,
            licence=self._rules.settings.licence,
            annotators=tuple(annotators),
            media=media.version if media else "",
            parts=self._parts,
            tasks=tasks,
            videos=videos,
            captions=captions,
            approval=approval,
            licences=summary_of(self._rules.licences, applied(self._rules.licences, described), annotators),
            opted_out=opted_out(self._dataset),
            templates=_templates(self._rules.taxonomy, tasks),
            settings={
                "content": content,
                "release": self._rules.settings.model_dump(mode="json"),
                "gates": self._rules.gates.model_dump(mode="json", exclude_none=True),
                "licences": self._rules.licences.model_dump(mode="json", exclude_none=True),
            },
            files=self._folder.files,
        )
        self._folder.put("README.md", render_card(release, media.counts() if media else {}))
        self._folder.put("croissant.json", describe(release))
        return release.model_copy(update={"files": dict(self._folder.files)})

    def _copied(self, part: str, before: list[Release]) -> Release | None:
        """Copy the files of a part from a release that holds the same one, and say which; None where none does."""
        for release in before:
            files = {path: info for path, info in release.files.items() if _part_of(path) == part}
            keys = {path: f"{folder_of(release.name)}/{path}" for path in files}
            if release.parts.get(part) == self._parts[part] and all(
                intact(self._dataset.storage, keys[path], info) for path, info in files.items()
            ):
                for path, info in files.items():
                    self._folder.copy(path, keys[path], info)
                return release
        return None

    def _written(self, kept: dict[str, Release]) -> tuple[dict[str, TaskSummary], VideoSummary, CaptionSummary]:
        """Write what no earlier release holds, in one pass over the videos."""
        shards, tables = self._rules.settings.shards, self._dataset.tables
        qa = {
            task: QAWriter(
                self._folder, self._rules.taxonomy.task(task), shards, self._rules.gates, self._rules.licences
            )
            for part in self._parts
            if (task := part.removeprefix("qa/")) != part and part not in kept
        }
        videos = None if "videos" in kept else VideoWriter(self._folder)
        captions = None if "captions" in kept else CaptionWriter(self._folder, self._rules.licences)
        if qa or videos or captions:
            for done, place in enumerate(sorted(self._placed, key=lambda video: video.order(shards)), start=1):
                row = self._row_of(place)
                if videos:
                    videos.add(row)
                if captions:
                    captions.add(tables, row, place.rule)
                if wanted := [qa[task] for task in place.tasks if task in qa]:
                    pairs = tables.read_written(QAPair, place.video_id)
                    verdicts = {verdict.qa_id: verdict for verdict in tables.read_written(Verdict, place.video_id)}
                    for writer in wanted:
                        writer.add(place, row, pairs, verdicts)
                self._progress("qa", done, len(self._placed))
        finished = {task: writer.close() for task, writer in qa.items()}
        tasks = {
            task: finished[task] if task in finished else kept[f"qa/{task}"].tasks[task]
            for task in self._rules.taxonomy.tasks
            if f"qa/{task}" in self._parts
        }
        return (
            tasks,
            videos.close() if videos else kept["videos"].videos,
            captions.close() if captions else kept["captions"].captions,
        )

    def _row_of(self, place: Placed) -> VideoRow:
        for video in self._dataset.tables.read_written(Video, place.source.source_id):
            if video.video_id == place.video_id:
                return video_row(video, place.source, place.split)
        raise UserError(
            f"{self._dataset.url}: the row of video {place.video_id} is missing; run its job again, then release"
        )


def _part_of(path: str) -> str:
    folder, _, _ = path.rpartition("/")
    return folder or path.removesuffix(".parquet")


def _templates(taxonomy: Taxonomy, tasks: Mapping[str, TaskSummary]) -> dict[str, JsonValue]:
    return publishable(
        {
            "rules": taxonomy.rules.rendered_rules(),
            "tasks": {task: taxonomy.task(task).rendered_rules() for task in tasks},
            "captions": {name: template.rendered_rules() for name, template in taxonomy.captions.items()},
        }
    )


def _info(dataset: Dataset, release: Release, *, unchanged: bool) -> ReleaseInfo:
    return ReleaseInfo(
        name=release.name,
        url=f"{dataset.storage.url}/{folder_of(release.name)}",
        qa=release.qa,
        tasks=sum(task.qa > 0 for task in release.tasks.values()),
        bytes=sum(info.bytes for info in release.files.values()),
        unchanged=unchanged,
        approval=release.approval,
    )


def _silent(part: str, done: int, total: int) -> None:
    pass
