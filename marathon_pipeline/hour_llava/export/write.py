"""Write a release in the form that an existing trainer reads: its JSON, and the videos or their features."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.data.conversation import turn_of
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.data.shards import ReleaseShards
from marathon_pipeline.hour_llava.data.units import Pack, estimated_tokens, packs_of, texts_of
from marathon_pipeline.hour_llava.export.dialects import (
    PLACEHOLDER,
    Conversation,
    Format,
    beside,
    list_of,
    place_of,
    written,
)
from marathon_pipeline.hour_llava.features import read_features
from marathon_pipeline.records import Split

Progress = Callable[[int, int], None]  # shards done, of how many


@dataclass(frozen=True)
class Exported:
    """`left_out`: QA pairs, by why."""

    path: Path  # of the list
    videos: int
    conversations: int
    qa: int
    left_out: dict[str, int]


def export_release(url: str, format: Format, split: Split, folder: Path, progress: Progress | None = None) -> Exported:
    """Export a split of a release into a folder that is not there yet, which appears whole or not at all.

    The same release gives the same files. Raises UserError where there is nothing to export, or the folder is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already and not empty; give another folder, or delete it")
    release = ReleaseShards(url, split, media=format != "hourllava")
    partial = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        found = _Writer(release, format, partial).write(progress or (lambda done, total: None))
        if not found.conversations:
            why = ", ".join(f"{count} {reason}" for reason, count in sorted(found.left_out.items())) or "no QA"
            raise UserError(f"{url}: nothing to export ({why}); see docs/exports.md")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); see to it, then try again") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


class _Writer:
    def __init__(self, release: ReleaseShards, format: Format, folder: Path) -> None:
        self._release, self._format, self._folder = release, format, folder
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def write(self, progress: Progress) -> Exported:
        split = self._release.split
        path = list_of(self._format, split)
        with self._open(path) as file:
            file.write("[")
            for number, entry in enumerate(self._entries(progress)):
                file.write(("," if number else "") + "\n" + json.dumps(entry, ensure_ascii=False))
            file.write("\n]\n")
            file.flush()
            os.fsync(file.fileno())
        for name, text in beside(self._format, split, self._release.name).items():
            with self._open(name) as file:
                file.write(text)
        return Exported(Path(path), **self._counts_of(), left_out=dict(+self._left_out))

    def _counts_of(self) -> dict[str, int]:
        return {name: self._counts[name] for name in ("videos", "conversations", "qa")}

    def _entries(self, progress: Progress) -> Iterator[dict[str, object]]:
        tars: tuple[str, ...] = self._release.tars
        units = [(tar, self._release.class_of_tar(tar)) for tar in tars] or [
            ("", own_class) for own_class in range(self._release.classes)
        ]
        classes = {own_class for _, own_class in units}
        for own_class in set(range(self._release.classes)) - classes:  # all their videos are withheld, or they are none
            self._left_out["without media"] += len(self._release.pairs(own_class))
        for done, (tar, own_class) in enumerate(units, start=1):
            yield from self._of_class(tar, own_class)
            progress(done, len(units))

    def _of_class(self, tar: str, own_class: int) -> Iterator[dict[str, object]]:
        """Of a class, the entries of one video after another."""
        table = self._sayable(self._release.pairs(own_class))
        by_video: dict[str, list[Pack]] = {}
        settings = LoaderSettings(releases=(self._release.name,))
        for pack in packs_of(table, None, settings, estimated_tokens, ("export", self._release.name)):
            by_video.setdefault(pack.video_id, []).append(pack)
        there = self._videos(tar, by_video) if tar else self._features(table, by_video)
        for video_id, conversations in self._conversations(table, by_video, there):
            self._counts["videos"] += 1
            for conversation in conversations:
                self._counts["conversations"] += 1
                self._counts["qa"] += len(conversation.turns)
                yield written(self._format, conversation)
            del by_video[video_id]
        for packs in by_video.values():
            self._left_out["without features" if not tar else "without media"] += sum(len(p.rows) for p in packs)

    def _sayable(self, table: pa.Table) -> pa.Table:
        """Without the pairs that say what the trainer takes for a picture."""
        rows = [
            number
            for number, (question, options, answer) in enumerate(texts_of(table))
            if not PLACEHOLDER.search("\n".join([question, *options, answer]))
        ]
        if unsayable := len(table) - len(rows):
            self._left_out["saying <image> or <video>"] += unsayable
            return table.take(rows)
        return table

    def _conversations(
        self, table: pa.Table, by_video: dict[str, list[Pack]], there: Iterator[str]
    ) -> Iterator[tuple[str, list[Conversation]]]:
        for video_id in there:
            conversations = []
            for pack in by_video[video_id]:
                rows = table.take(list(pack.rows)).to_pylist()
                source = rows[0]["data_source"]
                place = place_of(self._format, video_id, source)
                turns = [turn_of(row) for row in rows]
                conversations.append(Conversation(f"{video_id}_{pack.number}", source, place, turns))
            yield video_id, conversations

    def _videos(self, tar: str, wanted: dict[str, list[Pack]]) -> Iterator[str]:
        """Those of a tar, each written to its place."""
        for sample in self._release.samples(tar, lambda name: name.removesuffix(".mp4") in wanted):
            video_id = sample["__key__"]
            if "mp4" in sample:
                path = self._path(str(place_of(self._format, video_id, "")))
                path.write_bytes(sample["mp4"])
                yield video_id

    def _features(self, table: pa.Table, wanted: dict[str, list[Pack]]) -> Iterator[str]:
        """Those whose features are cached, each written to its place as hourllava has them: fp32, with the duration."""
        import torch

        for video_id, packs in list(wanted.items()):
            try:
                cached = read_features(self._release.dataset, video_id)
            except Failed as failure:
                if failure.transient:  # the store fails: what it holds is not known
                    raise
                continue
            source = table["data_source"][packs[0].rows[0]].as_py()
            path = self._path(str(place_of(self._format, video_id, source)))
            made = {"vid_feat": cached.features.float(), "duration": round(packs[0].seconds, 2)}
            torch.save(made, path)
            yield video_id

    def _open(self, path: str) -> TextIO:
        return self._path(path).open("w", encoding="utf-8", newline="\n")

    def _path(self, path: str) -> Path:
        full = self._folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        return full
