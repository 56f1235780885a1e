"""Ray under a run: starting or reaching it, and which signals get to whom."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any

import psutil

from marathon_pipeline.errors import UserError
from marathon_pipeline.pipeline.settings import RunSettings

_OBJECT_STORE_BYTES = 128 * 2**20  # only ids and outcomes cross it; by default Ray takes a third of the memory
_STOPPING = (signal.SIGTERM,)  # Ray keeps SIGINT from its processes by itself
_RAY_CORE = ("raylet", "gcs_server")
_REACH_SECONDS = 10.0


@contextmanager
def ray_started(settings: RunSettings) -> Iterator[None]:
    """Ray, started here or reached at the address of the job; UserError where there is none."""
    import ray

    local = settings.ray_address == "local"
    own = {number: signal.getsignal(number) for number in _STOPPING}
    others = {child.pid for child in psutil.Process().children()}
    if not local:
        _reach(settings.ray_address)
    elif settings.metrics_port is not None:
        _refuse_taken(settings.metrics_port)
    try:
        with _blocked(_STOPPING if local else ()), _lean(settings) if local else nullcontext():
            try:
                ray.init(
                    address=settings.ray_address,
                    num_cpus=settings.workers if local else None,
                    include_dashboard=False if local else None,
                    object_store_memory=_OBJECT_STORE_BYTES if local else None,
                    # With them it waits for its first workers; of one that dies meanwhile it never hears, and waits on.
                    _system_config={"prestart_worker_first_driver": False} if local else None,
                    _metrics_export_port=settings.metrics_port if local else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except SystemExit:  # a SIGTERM meanwhile, which another thread took: Ray has a handler of its own by now
                raise KeyboardInterrupt from None
            except Exception as error:  # Ray raises a bare one where its start takes too long
                raise UserError(_not_started(settings.ray_address, error)) from None
            finally:
                if threading.current_thread() is threading.main_thread():
                    for number, handler in own.items():
                        signal.signal(number, handler)  # Ray puts one there that ends the process at once
        try:
            yield
        except ray.exceptions.RayError as error:  # not of any work: the head was replaced, or is gone
            raise UserError(_broke_off(settings.ray_address, error)) from None
    finally:
        for child in psutil.Process().children() if local else ():
            with suppress(psutil.NoSuchProcess):
                if child.pid not in others and child.name() not in _RAY_CORE:
                    child.kill()  # Ray asks each of its helpers to end, and they do not hear it: a second for each
        ray.shutdown()


def nodes(cpus: float = 0.0) -> dict[str, str]:
    """The address of each node that is there now and has so many CPUs, by its id."""
    import ray

    known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    there = (node for node in known if node["Alive"] and node["Resources"].get("CPU", 0.0) >= cpus)
    return {node["NodeID"]: node["NodeManagerAddress"] for node in there}


def nodes_by_address() -> dict[str, str]:
    """One node that takes work for each address."""
    return dict(sorted((address, node) for node, address in nodes(cpus=1).items()))


def gpus() -> int:
    """How many the cluster has now."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("GPU", 0))


@contextmanager
def _lean(settings: RunSettings) -> Iterator[None]:
    """Ray without what a run on one machine never asks: dashboard, autoscaler, log monitor, and metrics by default.

    They take 4 of the 10 s of CPU of its start. `ray.init` has no option against the last two, and starts a process for
    the first one also where it is told to leave it out. A Ray that has them elsewhere starts with all of them.
    """
    from ray._private import node, utils

    left_out: tuple[tuple[Any, str, Any], ...] = (
        (node.Node, "start_api_server", None),
        (node.Node, "start_monitor", None),
        (node.Node, "start_log_monitor", None),
        # As where Ray is installed without it: then the agent of the node does not export metrics either.
        (utils, "get_dashboard_dependency_error", ImportError("left out") if settings.metrics_port is None else None),
    )
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in left_out if hasattr(owner, name)]
    for owner, name, answer in left_out if len(before) == len(left_out) else ():
        setattr(owner, name, lambda *_, answer=answer, **__: answer)
    try:
        yield
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


@contextmanager
def _blocked(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Signals that what is started meanwhile, and what that starts, never gets.

    A service manager, Slurm or `kill -TERM -GROUP` sends them to every process. Ray's would end at once, and with them
    the work that the driver wants to see to its end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reach(address: str) -> None:
    """Raises UserError where nothing listens: Ray itself would try for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise UserError(_not_started(address, error)) from None


def _refuse_taken(port: int) -> None:
    """Raises UserError where it is: Ray itself would wait for half a minute, and blame the machine."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        mend = "give another one, or none for no metrics"
        raise UserError(f"run.metrics_port {port}: cannot be listened on ({error.strerror}); {mend}") from None


def _not_started(address: str, error: Exception) -> str:
    why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if address == "local":
        return f"Ray did not start ({why}); is the machine out of memory, or overloaded? Run the same command again"
    return f"run.ray_address {address}: no Ray cluster answers ({why}); start it, or correct the address"


def _broke_off(address: str, error: Exception) -> str:
    why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"run.ray_address {address}: Ray broke off ({why}); once it is up, run the same command again, which goes on"


@contextmanager
def drained_on_signals(stop: threading.Event) -> Iterator[None]:
    """A first SIGINT or SIGTERM sets `stop`; a second one does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, *_STOPPING):
        before[number] = signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
