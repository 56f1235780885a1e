"""The journal: every answer of a served model, kept as it arrives.

`journal/<2 hex>/<video_id>/<stage>-<number>.jsonl`: immutable segments, joined into `<stage>.jsonl.gz` when the work
ends. A line is an answer, or the text that the prompts of several share, once.
"""

import asyncio
import gzip
import itertools
import json
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import Record, Usage

_SHARED_LINE = b'{"shared": '


class Asked(Record):
    """A request, and what it was made for. `request`: sha256 of all that was asked."""

    request: str
    part: str
    unit: str  # what was asked about, such as a clip's id
    model: str
    shared: str = ""  # sha256 of the text that the prompt begins with, which stands in a line of its own
    prompt: str  # the rest of it
    frames: str = ""  # sha256 over the pictures shown


class Answer(Asked):
    """What came back for one request."""

    id: str  # the server's name for it
    finish: str
    text: str
    refusal: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0


class Journal:
    """The answers to one stage's questions about one video. For one event loop."""

    def __init__(self, storage: Storage, stage: str, owner: str) -> None:
        self._storage, self.stage, self.owner = storage, stage, owner
        self._folder = journal_folder(owner)
        self._answers: dict[str, list[Answer]] = {}
        self._shared: dict[str, str] = {}
        self._pending: list[str] = []
        self._writing = asyncio.Lock()
        self._whole = f"{self._folder}/{stage}.jsonl.gz"
        self._whole_is_sound = False
        self._segments: list[str] = []
        self._unjoined: list[str] = []  # the lines of the segments
        self._read = False
        self._reading = asyncio.Lock()

    def load(self) -> None:
        """Read what there is; else the first `find` does."""
        if self._read:
            return
        keys, begin = self._storage.keys(self._folder), f"{self._folder}/{self.stage}-"
        self._segments = [key for key in keys if key.startswith(begin)]
        if self._whole in keys:
            lines = _unpacked(self._storage.read(self._whole))
            self._whole_is_sound = lines is not None
            for line in lines or ():
                self._replay(line)
        for data in self._storage.read_all(self._segments):
            self._unjoined += [line.decode() for line in data.splitlines() if self._replay(line)]
        self._read = True

    def _replay(self, line: bytes) -> bool:
        """Whether the line says something new; a damaged one is an answer that will be asked for again."""
        try:
            if not line.startswith(_SHARED_LINE):
                return self._put(Answer.model_validate_json(line))
            fields = json.loads(line)
            new = fields["shared"] not in self._shared
            self._shared[fields["shared"]] = fields["shared_text"]
        except (ValueError, TypeError, KeyError):
            return False
        return new

    def _put(self, answer: Answer) -> bool:
        known = self._answers.setdefault(answer.request, [])
        if answer in known:  # a kill between joining the segments and removing them leaves it twice
            return False
        known.append(answer)
        return True

    async def find(self, request: str) -> Sequence[Answer]:
        """The answers to a request, oldest first."""
        if not self._read:
            async with self._reading:
                await asyncio.to_thread(self.load)
        return tuple(self._answers.get(request, ()))

    async def keep(self, answer: Answer, shared_text: str = "") -> None:
        """Returns once the answer is on record. Those that arrive while one is written are written together.

        `find` was called before.
        """
        new = self._lines(answer, shared_text)
        if not new:
            return
        self._pending += new
        async with self._writing:
            if self._pending:  # else the one before has written it
                lines, self._pending = self._pending, []
                try:
                    await asyncio.to_thread(self._write, lines)
                except BaseException:
                    self._pending[:0] = lines
                    raise

    def add(self, answers: Iterable[tuple[Answer, str]]) -> int:
        """Put answers that came by another way on record, each with its shared text; returns how many are new.

        For a journal of its own, outside any event loop.
        """
        self.load()
        new = [lines for answer, shared_text in answers if (lines := self._lines(answer, shared_text))]
        if new:
            self._write(itertools.chain(*new))
        return len(new)

    def prompts(self) -> dict[str, str]:
        """What was asked, by request. For a journal of its own, outside any event loop."""
        self.load()
        asked = (answers[-1] for answers in self._answers.values())
        return {answer.request: self._shared.get(answer.shared, "") + answer.prompt for answer in asked}

    def _lines(self, answer: Answer, shared_text: str) -> list[str]:
        """What is to be written of an answer; nothing where it is known."""
        if not self._put(answer):
            return []
        lines = [answer.model_dump_json(exclude_defaults=True)]
        if shared_text and answer.shared not in self._shared:
            self._shared[answer.shared] = shared_text
            lines.insert(0, shared_line(answer.shared, shared_text))
        return lines

    def _write(self, lines: Iterable[str]) -> None:
        last = self._segments[-1].rpartition("-")[2].removesuffix(".jsonl") if self._segments else "0"
        key = f"{self._folder}/{self.stage}-{int(last) + 1:06d}.jsonl"
        written = list(lines)
        self._storage.write(key, _bytes_of(written))
        self._segments.append(key)
        self._unjoined += written

    def join(self) -> None:
        """Put the segments behind what one file holds already, as one more gzip member: to pack it all again would
        cost more than one task's answers. It is there before the segments go, so a kill loses nothing.
        """
        if not self._segments:
            return
        joined = self._storage.read(self._whole) if self._whole_is_sound else b""
        self._storage.write(self._whole, joined + gzip.compress(_bytes_of(self._unjoined), mtime=0))
        self._storage.remove_all(self._segments)
        self._whole_is_sound, self._segments, self._unjoined = True, [], []

    def usage(self, part: str) -> tuple[Usage, ...]:
        """What a part of the work has cost up to now, by model."""
        totals: dict[str, Counter[str]] = {}
        for answer in (answer for answers in self._answers.values() for answer in answers if answer.part == part):
            total = totals.setdefault(answer.model, Counter())
            total["requests"] += 1
            total.update(answer.model_dump(include=set(Usage.model_fields) - {"model"}))
        return tuple(Usage.model_validate({"model": model, **total}) for model, total in sorted(totals.items()))


@dataclass
class Answers:
    """What was answered, and is still to be asked, for one part of a stage's work on a video.

    `rounds`: a question that comes to no good answer is asked anew, as another request, in each round from the first
    to the last. One more is added where failures are retried; where work is forced, it begins behind the last one.
    """

    journal: Journal
    part: str
    rounds: tuple[int, int] = (0, 0)
    lost: Counter[str] = field(default_factory=Counter)
    probed: int = 0  # clips that were captioned again
    tallies: Counter[str] = field(default_factory=Counter)  # of the rows written
    judge: str = ""
    began: float = 0.0  # when a site was first asked for a download, in seconds since 1970

    def begin(self) -> None:
        """A site is about to be asked."""
        self.began = self.began or time.time()

    def lose(self, reason: str, count: int = 1) -> None:
        """Something that was asked for came to no good."""
        if count:
            self.lost[reason] += count


def journal_folder(owner: str) -> str:
    return media_key("journal", owner, "")


def _bytes_of(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _unpacked(data: bytes) -> list[bytes] | None:
    """None where it is damaged: its answers will be asked for again."""
    try:
        return gzip.decompress(data).splitlines()
    except (OSError, EOFError, zlib.error):
        return None


def shared_line(shared: str, text: str) -> str:
    """The line of a text that the prompts of several answers begin with."""
    return json.dumps({"shared": shared, "shared_text": text}, ensure_ascii=False)
