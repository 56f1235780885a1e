"""What a dataset takes on its disk or in its store, looked up beside the loop of a run."""

import threading
import time
from contextlib import suppress

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed

_SHARE = 20  # of the time at most a twentieth is spent on it: a store lists a million keys in minutes


class Weight:
    """seconds: between looks, where they are quick."""

    def __init__(self, storage: Storage, seconds: float = 60.0) -> None:
        self._storage, self._seconds = storage, seconds
        self._bytes: int | None = None
        self._due = 0.0
        self._look: threading.Thread | None = None

    def bytes(self) -> int:
        """As they were found last. Only the first look is waited for."""
        if self._bytes is None:
            self._bytes = self._weigh()
        elif time.monotonic() > self._due and (self._look is None or not self._look.is_alive()):
            self._look = threading.Thread(target=self._again, daemon=True)
            self._look.start()
        return self._bytes

    def _again(self) -> None:
        with suppress(Failed):  # what was found before holds
            self._bytes = self._weigh()

    def _weigh(self) -> int:
        began = time.monotonic()
        try:
            return self._storage.total_bytes()
        finally:
            took = time.monotonic() - began
            self._due = time.monotonic() + max(self._seconds, took * _SHARE)
