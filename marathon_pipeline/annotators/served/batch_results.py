"""Answers in files: joined with what they were asked for, and put into the journals, as if servers had given them."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from marathon_pipeline.annotators.served.batch import INDEX, Indexed, is_requests
from marathon_pipeline.annotators.served.pool import UNREADABLE, Reply, reply_of
from marathon_pipeline.dataset.journal import Answer, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError, one_line

_AT_ONCE = 16  # journals: an object store is slow for each, and bears many


@dataclass
class Taken:
    """What came of result files, in lines."""

    new: int = 0
    known: int = 0  # the journals held them before
    failed: Counter[str] = field(default_factory=Counter)  # by kind; they are asked again
    damaged: int = 0
    stray: int = 0  # no index knows them
    absent: int = 0  # of videos that the dataset does not hold

    def __str__(self) -> str:
        parts = [f"{self.new:,} answers taken"]
        if self.known:
            parts.append(f"{self.known:,} known before")
        if self.failed:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.failed.most_common())
            parts.append(f"{self.failed.total():,} failed ({kinds}) and are asked again")
        return ", ".join(parts)

    @property
    def problem(self) -> str:
        """What was left out; empty where nothing was."""
        counts = (
            (self.damaged, "damaged"),
            (self.stray, "for no request of the indexes beside them"),
            (self.absent, "of videos that the dataset does not hold"),
        )
        return ", ".join(f"{count:,} {what}" for count, what in counts if count)


class BatchResults:
    """Result files and the indexes of the requests that they answer."""

    def __init__(self, given: Sequence[str], folder: Path | None) -> None:
        """given: files and folders of them; folder: where else indexes lie. Raises UserError."""
        self._files = [file for each in given for file in _files(Path(each))]
        folders = dict.fromkeys([*(file.parent for file in self._files), *([folder] if folder else [])])
        self._indexes = [index for each in folders for index in sorted(each.glob(f"*{INDEX}"))]
        if not self._indexes:
            raise UserError(
                f"--batch-results {given[0]}: no index of its requests (*{INDEX}) lies there; "
                "put results into the folder that --batch wrote, or name that folder by --batch"
            )

    def take(self, storage: Storage, videos: Collection[str]) -> Taken:
        """Put the answers of known videos into their journals. Doing it again changes nothing."""
        taken = Taken()
        for file in self._files:
            replies = dict(_replies(file, taken))
            for index in sorted(self._indexes, key=lambda index: not file.name.startswith(_stem(index))):
                if not replies:
                    break
                _keep(_joined(index, replies, taken), storage, videos, taken)
            taken.stray += len(replies)
        return taken


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            path.open("rb").close()
            found = [path]
        else:
            found = [file for file in sorted(path.glob("*.jsonl")) if not file.name.endswith(INDEX)]
    except OSError as error:
        raise UserError(f"--batch-results {path}: cannot be read ({error.strerror}); give result files") from None
    results = [file for file in found if not is_requests(file)]
    if not results:
        what = "holds no result files" if path.is_dir() else "holds requests, no results"
        raise UserError(f"--batch-results {path}: {what}; have the requests answered first (docs/batch.md)")
    return results


def _stem(index: Path) -> str:
    return index.name.removesuffix(INDEX)


def _replies(file: Path, taken: Taken) -> Iterator[tuple[str, Reply]]:
    """The good answers of a file, by the id of their request."""
    with file.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            try:
                fields = json.loads(line)
                if failure := _failure(fields):
                    taken.failed[failure] += 1
                else:
                    yield str(fields["custom_id"]), reply_of(fields["response"]["body"], 0.0, 0.0)
            except UNREADABLE:
                taken.damaged += 1


def _failure(fields: Any) -> str:
    """Why a line holds no answer; empty where it does."""
    response, error = fields.get("response") or {}, fields.get("error") or {}
    status = response.get("status_code")
    if status == 200 and not error:
        return ""
    return one_line(f"HTTP {status}" if status else str(error["code"]))[:40]


def _joined(index: Path, replies: dict[str, Reply], taken: Taken) -> dict[tuple[str, str], list[tuple[Answer, str]]]:
    """The answers to requests of an index, taken out of the replies, with their shared texts; by journal."""
    answers: dict[tuple[str, str], list[tuple[Answer, str]]] = defaultdict(list)
    shared, text = "", ""
    with index.open("rb") as lines:
        for line in lines:
            try:
                fields = json.loads(line)
                if "shared_text" in fields:
                    shared, text = fields["shared"], fields["shared_text"]
                    continue
                indexed = Indexed.model_validate(fields)
            except UNREADABLE:
                continue  # its answer is counted as nobody's
            if (reply := replies.pop(indexed.request, None)) is None:
                continue
            try:
                answer = Answer(**indexed.model_dump(exclude={"stage", "owner"}), **reply._asdict())
            except ValidationError:
                taken.damaged += 1
            else:
                own = text if shared == indexed.shared else ""
                answers[indexed.stage, indexed.owner].append((answer, own))
    return answers


def _keep(
    answers: dict[tuple[str, str], list[tuple[Answer, str]]], storage: Storage, videos: Collection[str], taken: Taken
) -> None:
    here = {place: each for place, each in answers.items() if place[1] in videos}
    taken.absent += sum(len(each) for place, each in answers.items() if place not in here)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        new = sum(pool.map(lambda place: Journal(storage, *place).add(here[place]), here))
    taken.new += new
    taken.known += sum(map(len, here.values())) - new
