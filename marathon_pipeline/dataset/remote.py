"""Object stores through obstore: for how long one that fails is asked again, and how an object of any size is read."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from math import ceil
from typing import Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from marathon_pipeline.errors import Failed

PATIENCE = timedelta(minutes=3)  # with a store that answers 503, or not at all: less, and an outage ends a run
FIRST_PATIENCE = timedelta(seconds=10)  # with one that has not answered yet: its endpoint may be mistyped
_TRIES = 10_000  # time alone is to end them: the library's ten are over in three seconds
_BYTES = 2**20  # in memory, of an object that is read
_PART_BYTES, _PARTS = 5 * 2**20, 9_000  # of an upload: S3 takes ten thousand, none but the last smaller than 5 MiB


def opened(url: str, patience: timedelta = PATIENCE) -> Any:
    """The store, or a folder of it. A request is repeated for so long: within three minutes after 0.2 to 15 s."""
    return from_url(
        url,
        retry_config={
            "max_retries": _TRIES,
            "retry_timeout": patience,
            "backoff": {"init_backoff": patience / 900, "max_backoff": patience / 12, "base": 3},
        },
    )


def first_contact(url: str) -> None:
    """Raises what is wrong with a store that does not answer. FileNotFoundError is an answer, and a refusal too."""
    with contextlib.suppress(PermissionDeniedError, UnauthenticatedError):
        obstore.get(opened(url, FIRST_PATIENCE), "dataset.json")


def pieces(store: Any, key: str, known: Any = None, at: int = 0) -> Iterator[bytes]:
    """An object from a place on, for as long as anything comes: the library gives all of a request three minutes.

    known: what the store said of it, where it was asked. Raises Failed where the object is another one by then.
    """
    while known is None or at < known["size"]:
        began = at
        try:
            found = obstore.get(store, key, options={"range": {"offset": at}} if at else {})
            known = known or found.meta
            if version_of(found.meta) != version_of(known):
                raise Failed("storage", f"{key}: was written anew while it was read", transient=True)
            for piece in found.stream(_BYTES):
                at += len(piece)
                yield piece
        except BaseError:
            if at == began:
                raise


def version_of(known: Any) -> tuple[object, ...]:
    """What changes with an object's content."""
    return known["size"], known["e_tag"], known["last_modified"]


def part_bytes(size: int) -> int:
    """Of how many bytes the parts of an upload are."""
    return max(_PART_BYTES, ceil(size / _PARTS))
