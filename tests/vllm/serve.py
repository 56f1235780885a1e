"""A real vLLM on the CPU for a test: `with serve(folder_of_a_model, scratch) as server: ...`.

vLLM lives in an environment of its own (`make .venv-vllm/installed`); nothing of it is imported here.
"""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
VENV = HERE.parent.parent / ".venv-vllm"
PYTHON = VENV / "bin" / "python"
CONTEXT = 32768
READY = 300.0  # seconds; a tenth of it on two idle cores
# The server leads a process group. When its stdin closes, be it by the kill -9 of the test, the whole group dies.
_BOUND = 'exec 3<&0 </dev/null; (cat <&3 >/dev/null; kill -KILL 0) & exec 3<&-; exec "$@"'
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is asked directly


class ServerFailed(Exception):
    """A server that does not get ready, with the end of its log."""


@dataclass(frozen=True)
class Metrics:
    """Counters since the server's start; those of the prefix cache are tokens."""

    prefix_queries: int
    prefix_hits: int
    prompt_tokens: int
    generation_tokens: int
    finished: dict[str, int]  # requests by reason: stop, length, abort, ...


@dataclass(frozen=True)
class Server:
    url: str  # ends with /v1
    model: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def get(self, path: str) -> Any:
        with _OPENER.open(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer, of an error too."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with _OPENER.open(request, timeout=600) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metrics(self) -> Metrics:
        samples = self._samples()

        def total(name: str) -> int:
            return sum(int(value) for sample, _, value in samples if sample == f"vllm:{name}_total")

        finished = {
            labels["finished_reason"]: int(value)
            for sample, labels, value in samples
            if sample == "vllm:request_success_total"
        }
        return Metrics(
            prefix_queries=total("prefix_cache_queries"),
            prefix_hits=total("prefix_cache_hits"),
            prompt_tokens=total("prompt_tokens"),
            generation_tokens=total("generation_tokens"),
            finished=finished,
        )

    @property
    def block_size(self) -> int:
        """Tokens of a block: the prefix cache keeps whole blocks."""
        (size,) = {labels["block_size"] for name, labels, _ in self._samples() if name == "vllm:cache_config_info"}
        return int(size)

    def _samples(self) -> list[tuple[str, dict[str, str], float]]:
        with _OPENER.open(self.url.removesuffix("/v1") + "/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]


def environment() -> dict[str, str]:
    """What vLLM needs on a CPU, without a network, beside another one."""
    return {
        **os.environ,
        "PYTHONPATH": str(HERE),  # sitecustomize.py
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # servers beside each other would bind to the same cores
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": str(VENV / "cache"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def engine_arguments(model: Path, name: str) -> list[str]:
    """The flags of a server; `run_batch` takes them too."""
    return [
        *("--model", str(model), "--served-model-name", name),
        *("--enforce-eager", "--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "16"),
        "--enable-prefix-caching",
        # A prompt that is read in pieces, with a seed, ends the engine: a CPU generator cannot be wound back.
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(CONTEXT)),
        *("--limit-mm-per-prompt", '{"image": 64, "video": 1}'),
        # Of more than 32 frames the default would take 32, without a word.
        *("--media-io-kwargs", '{"video": {"num_frames": -1}}'),
        # Of random weights, the default backend lets control characters into strings.
        *("--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}'),
    ]


def make_models(folder: Path) -> dict[str, Path]:
    """The two tiny models, by what they are for."""
    if not PYTHON.exists():
        raise ServerFailed(f"no vLLM in {VENV}: make .venv-vllm/installed")
    made = subprocess.run(
        [PYTHON, HERE / "models.py", folder],
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if made.returncode:
        raise ServerFailed(f"the models could not be made:\n{made.stderr[-2000:]}")
    return {name: folder / name for name in ("captioner", "writer")}


@contextmanager
def serve(model: Path, scratch: Path, *flags: str) -> Iterator[Server]:
    """Served on a free port of loopback under its folder's name, with more flags of vLLM's if wanted."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = scratch / f"{model.name}-{port}.log"
    command = [
        *(PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)),
        *(*engine_arguments(model, model.name), *flags),
    ]
    with tempfile.TemporaryDirectory(prefix="vllm-", ignore_cleanup_errors=True) as temporary:  # its sockets
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _BOUND, "sh", *command],
                cwd=scratch,
                env={**environment(), "TMPDIR": temporary},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(f"http://127.0.0.1:{port}/v1", model.name, log, process)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            _end(process)


@contextmanager
def serve_all(models: Iterable[Path], scratch: Path) -> Iterator[dict[str, Server]]:
    """Beside each other, by name; started at the same time, since a start uses one core."""
    with ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            servers = list(pool.map(lambda model: stack.enter_context(serve(model, scratch)), models))
        yield {server.model: server for server in servers}


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + READY
    while time.monotonic() < until:
        if (code := server.process.poll()) is not None:
            raise ServerFailed(f"vLLM ended with exit code {code} before it was ready; {_tail(server.log)}")
        try:
            with _OPENER.open(server.url.removesuffix("/v1") + "/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise ServerFailed(f"vLLM was not ready after {READY:.0f} s; {_tail(server.log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-40:]
    return "\n".join((f"the end of {log}:", *lines))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Politely, since it removes its shared memory then; and its group for sure."""
    assert process.stdin is not None
    try:
        if process.poll() is None:
            engine = [each for each in psutil.Process(process.pid).children(True) if each.name() not in ("sh", "cat")]
            process.terminate()
            process.wait(20)
            psutil.wait_procs(engine, 10)
    except (subprocess.TimeoutExpired, psutil.NoSuchProcess):
        pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # there is a group as long as its stdin is open
        process.stdin.close()
        process.wait()
