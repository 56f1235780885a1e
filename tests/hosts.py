"""Hosts of a Ray cluster, each in a network namespace of its own where that is allowed: they can be cut off and killed.

with hosts(2, cpus=2, environment=...) as cluster: cluster.address; cluster.workers[0].cut(5)
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_BRIDGE, _NET = "mchaos", "10.77.0"
_PORT = 6399
_OBJECT_STORE = str(80 * 2**20)
# A host that is cut off is given up after 6 s; by default that takes a minute.
_SYSTEM = '{"health_check_initial_delay_ms": 4000, "health_check_period_ms": 2000, "health_check_failure_threshold": 3}'


def ip(*words: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *words], check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0


def may_have_namespaces() -> bool:
    if os.geteuid() or not shutil.which("ip") or not ip("netns", "add", "mctry", check=False):
        return False
    return ip("netns", "del", "mctry")


class Host:
    """A raylet and what it starts. `scratch`: where its workers put what is half done."""

    def __init__(self, number: int, cpus: int, scratch: Path, environment: Mapping[str, str], *, apart: bool) -> None:
        self.number, self._cpus, self.scratch = number, cpus, scratch
        self._environment, self._apart = environment, apart
        self.name = f"mc{number}"
        if apart and number:
            ip("netns", "add", self.name)
            ip("link", "add", f"v{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
            ip("link", "set", f"v{self.name}", "master", _BRIDGE, "up")
            ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
            ip("-n", self.name, "link", "set", "eth0", "up")
            ip("-n", self.name, "link", "set", "lo", "up")
        self.start()

    @property
    def address(self) -> str:
        return f"{_NET}.{self.number + 1}" if self._apart else "127.0.0.1"

    def start(self) -> None:
        inside = ["ip", "netns", "exec", self.name] if self._apart and self.number else []
        head = ["--head", f"--port={_PORT}", "--include-dashboard=false", f"--system-config={_SYSTEM}"]
        joins = [f"--address={address_here(apart=self._apart)}:{_PORT}"]
        options = ["--block", f"--node-ip-address={self.address}", f"--num-cpus={self._cpus}", "--disable-usage-stats"]
        options += [f"--object-store-memory={_OBJECT_STORE}", *(joins if self.number else head)]
        self.log = self.scratch.with_suffix(".log")
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-m", "ray.scripts.scripts", "start", *options],
                env=dict(self._environment) | {"TMPDIR": str(self.scratch)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def below(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def raylet(self) -> list[psutil.Process]:
        return [each for each in self.below() if each.name() == "raylet"]

    @property
    def lives(self) -> bool:
        return self.process.poll() is None and bool(self.raylet())

    def link(self, state: str) -> None:
        ip("link", "set", f"v{self.name}", state)

    def kill(self) -> None:
        """All of it at once, as a power cut."""
        for each in (*self.below(), psutil.Process(self.process.pid)):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()

    def close(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.kill()
        if self._apart and self.number:
            ip("netns", "del", self.name, check=False)
            ip("link", "del", f"v{self.name}", check=False)


def address_here(*, apart: bool) -> str:
    """Where the hosts find what is on this machine."""
    return f"{_NET}.1" if apart else "127.0.0.1"


class Hosts:
    """`head`: without CPUs; the driver and the servers are with it."""

    def __init__(self, count: int, cpus: int, folder: Path, environment: Mapping[str, str], *, apart: bool) -> None:
        self.apart, self.here = apart, address_here(apart=apart)
        self.address = f"{self.here}:{_PORT}"
        if apart:
            ip("link", "add", _BRIDGE, "type", "bridge")
            ip("addr", "add", f"{self.here}/24", "dev", _BRIDGE)
            ip("link", "set", _BRIDGE, "up")
        scratch = [folder / f"host{number}" for number in range(count + 1)]
        for each in scratch:
            each.mkdir(exist_ok=True)
        self.head = Host(0, 0, scratch[0], environment, apart=apart)
        self.wait()
        self.workers = [Host(number, cpus, scratch[number], environment, apart=apart) for number in range(1, count + 1)]

    def wait(self, seconds: float = 60) -> None:
        """Until the head takes connections."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection((self.here, _PORT), timeout=1):
                time.sleep(1)
                return
            time.sleep(0.2)
        raise RuntimeError("the head of the Ray cluster does not start")

    def restore(self) -> None:
        """Start what is dead; without its head, the whole cluster."""
        if not self.head.lives:
            for each in (*self.workers, self.head):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            self.head.start()
            self.wait()
        for each in self.workers:
            if not each.lives:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
                each.start()

    def close(self) -> None:
        for each in (*self.workers, self.head):
            each.close()
        if self.apart:
            ip("link", "del", _BRIDGE, check=False)


@contextmanager
def hosts(count: int, cpus: int, folder: Path, environment: Mapping[str, str], *, apart: bool) -> Iterator[Hosts]:
    made = Hosts(count, cpus, folder, environment, apart=apart)
    try:
        yield made
    finally:
        made.close()
