"""A small OpenAI-compatible server with known answers and known faults, for tests and benchmarks.

with served.running(latency=0.05, slots=64, faults={"rate_limit": 0.1, "cut": 0.02}) as server:
    ...  # ask server.url; then server.stats(), server.requests(); server.kill(), server.restart()
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

TESTS = Path(__file__).parent.parent


class Server:
    """One server process. `url` stays the same through `kill` and `restart`; `stats` count from the last start."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._arguments, self._log = arguments, log
        self._start(port=0)

    def stats(self) -> dict[str, Any]:
        with urlopen(self.url.removesuffix("/v1") + "/stats", timeout=30) as answer:
            return dict(json.load(answer))

    def requests(self) -> list[dict[str, Any]]:
        """Every request that has ended, of all starts, in the order of their ends."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Sudden death: what is in flight is cut off, and the next connection is refused."""
        self._process.kill()
        self._reap()

    def restart(self) -> None:
        """Come back at the same address, with nothing remembered of what was asked before."""
        self.stop()
        self._start(self.port)

    def stop(self) -> None:
        self._process.terminate()
        self._reap()

    def _start(self, port: int) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "served.server", "--port", str(port), "--stop-with-stdin", *self._arguments],
            stdin=subprocess.PIPE,  # its end tells the server that the test is gone
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening "):
            self.stop()
            raise RuntimeError(f"the test server did not start: exit {self._process.returncode} (its stderr says why)")
        self.url = line.split()[1]
        self.port = int(self.url.removesuffix("/v1").rpartition(":")[2])

    def _reap(self) -> None:
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def running(
    *, faults: Mapping[str, float] | None = None, log: Path | None = None, **options: object
) -> Iterator[Server]:
    """A server of its own process. `options` are those of `served.server`: `max_model_len=4096`, `no_schemas=True`."""
    with tempfile.TemporaryDirectory(prefix="served-") as folder:
        log = log or Path(folder, "log.jsonl")
        arguments = ["--log", str(log)]
        if faults:
            Path(folder, "faults.json").write_text(json.dumps(dict(faults)))
            arguments += ["--faults", str(Path(folder, "faults.json"))]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            arguments += [flag] if value is True else [flag, str(value)]
        server = Server(arguments, log)
        try:
            yield server
        finally:
            server.stop()
