"""What a dataset takes: a run is told it at once, however long a store takes to say it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.pipeline.weight import Weight


class Slow(Storage):
    """It tells what lies in it once it may."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.looks, self.fails, self.go_on = 0, False, threading.Event()
        self.go_on.set()

    def total_bytes(self) -> int:
        self.looks += 1
        self.go_on.wait()
        if self.fails:
            raise Failed("storage", "503", transient=True)
        return super().total_bytes()


def until(holds: Callable[[], object]) -> None:
    while not holds():
        time.sleep(0.002)


def test_what_is_weighed_anew_is_not_waited_for_and_one_look_goes_at_a_time(tmp_path: Path) -> None:
    storage = Slow(str(tmp_path))
    storage.write("a", bytes(10))
    weight = Weight(storage, seconds=0)
    assert weight.bytes() == 10
    storage.write("b", bytes(5))
    storage.go_on.clear()
    until(lambda: weight.bytes() == 10 and storage.looks == 2)
    assert [weight.bytes() for _ in range(50)] == [10] * 50
    assert storage.looks == 2
    storage.go_on.set()
    until(lambda: weight.bytes() == 15)


def test_a_look_that_fails_leaves_what_was_found_before(tmp_path: Path) -> None:
    storage = Slow(str(tmp_path))
    storage.write("a", bytes(10))
    weight = Weight(storage, seconds=0)
    assert weight.bytes() == 10
    storage.fails = True
    until(lambda: weight.bytes() and storage.looks > 3)
    storage.fails = False
    storage.write("b", bytes(5))
    until(lambda: weight.bytes() == 15)


def test_what_takes_long_is_looked_up_less_often(tmp_path: Path) -> None:
    storage = Slow(str(tmp_path))
    storage.go_on.clear()
    threading.Timer(0.3, storage.go_on.set).start()
    weight = Weight(storage, seconds=0)
    weight.bytes()
    assert [weight.bytes() for _ in range(50)] and storage.looks == 1
