"""One run at a time per dataset.

A lease is a numbered object that only one writer can create; its number is a fencing token. It ends when it is
released, when its heartbeat stops for a minute, or at once when its holder was a process of this machine that is gone.
Machines may share a name and differ in their clocks: who takes over from elsewhere sees the heartbeat stand still.
The heartbeat carries a note of what the holder does, for whoever asks.
"""

import contextlib
import datetime
import functools
import json
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import psutil

from marathon_pipeline.dataset.remote import FIRST_PATIENCE
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError

_HEARTBEAT_SECONDS = 10.0
_EXPIRES_SECONDS = 60.0
_LOOK_SECONDS = 1.0  # between looks at a heartbeat that may stand still
_DAMAGED = (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError)  # gone, or not what a holder writes
State = Literal["alive", "dead", "released"]


class Held(UserError):
    """Somebody else holds the dataset."""


@dataclass(frozen=True)
class Holder:
    """Who holds a dataset, or held it last."""

    state: State
    host: str
    pid: int
    since: str
    heard: float  # when it wrote last, in seconds since 1970
    note: Mapping[str, Any]  # what it said of its work then


def holder_of(storage: Storage) -> Holder | None:
    """None where nobody ever held it, or where that is not known any more."""
    held = storage.keys("lease")
    try:
        content = json.loads(storage.read(held[-1]))
        who = content["host"], content["pid"], content["since"]
        return Holder(_state(content), *who, heard=content["alive"], note=content.get("note", {}))
    except (IndexError, *_DAMAGED):
        return None


class Lease:
    """A context manager that holds a dataset. Raises Held, naming the holder, where somebody else does.

    after_death: the holder before died without releasing it.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._heart = Storage(storage.url, patience=FIRST_PATIENCE)  # the lease does not live for three minutes
        self.after_death = False
        self._note: Mapping[str, Any] = {}
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")

    def __enter__(self) -> "Lease":
        held = self._storage.keys("lease")
        if held:
            self.after_death = not self._released(held[-1])
        number = int(held[-1].rpartition("/")[2].removesuffix(".json")) + 1 if held else 1
        self._key = f"lease/{number:08d}.json"
        process = psutil.Process()
        self._holder = {
            "host": socket.gethostname(),
            "processes": _processes(),
            "pid": process.pid,
            "process_started": process.create_time(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        if not self._storage.create(self._key, self._content()):
            raise self._overtaken()
        if not self._is_last():  # it took so long that others came and went: this number was free again
            self._storage.remove(self._key)
            raise self._overtaken()
        for key in held:
            self._storage.remove(key)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join()
        with contextlib.suppress(Failed):  # a full disk: the lease ends with this process all the same
            self._heart.write(self._key, self._content(released=True))

    @property
    def place(self) -> dict[str, Any]:
        """Host, process and beginning of the holder."""
        return {name: self._holder[name] for name in ("host", "pid", "since")}

    def tell(self, note: Mapping[str, Any], *, at_once: bool = False) -> None:
        """What the holder does goes with the next heartbeat, or with one that this sets off. The note is not copied."""
        self._note = note
        if at_once:
            self._wake.set()

    def check(self) -> None:
        """Raises UserError where another run took over, which a holder that was asleep for long has to notice."""
        if not self._is_last():
            raise UserError(f"{self._storage.url}: another run took over while this one stood still; it goes on there")

    def _is_last(self) -> bool:
        return self._storage.keys("lease")[-1:] == [self._key]

    def _content(self, **more: bool) -> bytes:
        return json.dumps({**self._holder, "alive": time.time(), "note": self._note, **more}).encode()

    def _beat(self) -> None:
        while True:
            self._wake.wait(_HEARTBEAT_SECONDS)
            self._wake.clear()
            if self._stop.is_set():
                return
            # Whatever goes wrong: else a run goes on without its heart. The lease outlives several missed beats.
            with contextlib.suppress(Exception):
                self._heart.write(self._key, self._content())

    def _released(self, key: str) -> bool:
        """False where its holder died. Raises UserError where it lives."""
        try:
            holder = json.loads(self._storage.read(key))
            told = holder.get("released") or _is_here(holder) or _is_fresh(holder)
            state = _state(holder) if told else self._watched(key, holder)
            if state != "alive":
                return state == "released"
            where = f"host {holder['host']}, process {holder['pid']}, since {holder['since']}"
        except _DAMAGED:
            return False
        raise Held(f"{self._storage.url}: a run is using this dataset ({where}); wait until it ends or stop it")

    def _overtaken(self) -> Held:
        return Held(f"{self._storage.url}: another run has just begun on this dataset; wait until it ends")

    def _watched(self, key: str, holder: Mapping[str, Any]) -> State:
        """Of a heartbeat that is old, or to come, by a clock which may not be ours."""
        who = f"host {holder['host']}, process {holder['pid']}"
        print(f"marathon: {self._storage.url}: a minute shows whether {who}, still works on it", file=sys.stderr)
        end = time.monotonic() + _EXPIRES_SECONDS
        while time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
            try:
                now = json.loads(self._storage.read(key))
            except FileNotFoundError:
                raise self._overtaken() from None
            if now.get("released"):
                return "released"
            if now["alive"] != holder["alive"]:
                return "alive"
        return "dead"


def _state(holder: Mapping[str, Any]) -> State:
    """By the holder's clock, where its process cannot be looked up here."""
    if holder.get("released"):
        return "released"
    if _is_here(holder):
        alive = _runs(holder["pid"], holder["process_started"])
    else:
        alive = time.time() - holder["alive"] < _EXPIRES_SECONDS
    return "alive" if alive else "dead"


def _is_fresh(holder: Mapping[str, Any]) -> bool:
    return bool(abs(time.time() - holder["alive"]) < _EXPIRES_SECONDS)


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Whether its process can be looked up here: a container has processes of its own, whatever its name."""
    told = holder.get("processes", "")
    return bool(told == _processes() if told else holder["host"] == socket.gethostname())


@functools.cache
def _processes() -> str:
    """What numbers the processes that are seen from here: the boot and the namespace; empty where no system says so."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _runs(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 2.0
    except psutil.NoSuchProcess:
        return False
