"""Where the proxies of a dataset's videos lie: with it, or for a pilot, which copies no media, with its base.

`base.json` in a pilot names the base. That is looked at, never written to.
"""

import json
from threading import Lock

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.removals import Removals
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError

_HEAD = "base.json"


def name_base(pilot: Storage, base: str) -> None:
    pilot.write(_HEAD, json.dumps({"base": base}).encode())


def base_of(dataset: Storage) -> str:
    """The URL of a pilot's base; empty where it is no pilot. Raises UserError where that is damaged."""
    try:
        return str(json.loads(dataset.read(_HEAD))["base"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{dataset.url}/{_HEAD} is damaged; remove the pilot, and make it again") from None


class Proxies:
    def __init__(self, own: Storage) -> None:
        base = base_of(own)
        self._own, self._base = own, Storage(base) if base else None
        self._removals: Removals | None = None  # of the base
        self._looking = Lock()

    def of(self, video_id: str) -> tuple[Storage, str]:
        """Where a video's proxy lies, if it is kept at all, and its key there."""
        key = media_key("proxies", video_id, ".mp4")
        if self._base is None or self._own.exists(key):
            return self._own, key
        try:
            shown = self._base.exists(key) and not self._removed(self._base, video_id)
        except (Failed, UserError):  # the base cannot be reached: a pilot does without
            shown = False
        return (self._base if shown else self._own), key

    def _removed(self, base: Storage, video_id: str) -> bool:
        """Whether it was purged from the base by now. A browser asks for a video many times, and several at once."""
        with self._looking:
            if self._removals is None:
                self._removals = Removals(base)
            else:
                self._removals.refresh()
            return self._removals.holds("id", video_id)
