"""Work that is counted part by part, by several processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from marathon_pipeline.errors import Failed

P = TypeVar("P")
R = TypeVar("R")

_MOST = 8  # each takes 200 MB, and one adds up what all of them find
_ALONE = 8  # parts that are worked on here: processes take as long to start


def in_parts(work: Callable[[P], R], parts: Sequence[P], processes: int | None = None) -> Iterator[R]:
    """What comes of each part, in their order. work: what can be pickled, as can the parts.

    processes: as many as there are cores, unless given. Raises Failed `worker_died`, and what `work` raises.
    """
    if processes is None:
        processes = 1 if len(parts) <= _ALONE else min(_MOST, os.cpu_count() or 1)
    if processes == 1:
        yield from map(work, parts)
        return
    # Not forked: the threads of Arrow and of the storage do not survive that.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_live_as_long_as_the_parent)
    try:
        yield from pool.map(work, parts)
    except BrokenProcessPool:
        why = "one of the processes was killed, perhaps for want of memory: free some, and try again"
        raise Failed("worker_died", why, transient=True) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _live_as_long_as_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent has it too, and ends this process
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
