"""Manifests and videos that lie in an object store: `s3://bucket/key`, `gs://bucket/key`.

The store's own client signs what is asked; where its keys come from is the environment's affair (AWS_*, GOOGLE_*).
"""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from marathon_pipeline.dataset.remote import FIRST_PATIENCE, PATIENCE, opened, pieces, version_of
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.records import digest
from marathon_pipeline.sources.settings import DownloadSettings, Progress


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """An object as a local file of the same suffix, for as long as it is read. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"copy{Path(url).suffix}"
        try:
            with _errors(url), path.open("wb") as file:
                store, key = _place(url, FIRST_PATIENCE)
                file.writelines(pieces(store, key, obstore.head(store, key)))
        except Failed as failure:
            raise UserError(f"{failure.message} (give a readable one)") from None
        yield path


def download(url: str, folder: Path, settings: DownloadSettings, progress: Progress | None) -> Path:
    """Copy the video that a URL names into `folder`, resuming what is there of this very version of it.

    Raises Failed with a typed reason.
    """
    began = time.monotonic()
    with _errors(url):
        store, key = _place(url, PATIENCE)
        known = obstore.head(store, key)
        size = known["size"]
        if size > settings.max_bytes:
            raise Failed("too_large", f"{url}: {size} bytes, max_bytes is {settings.max_bytes}")
        suffix = Path(url).suffix if re.fullmatch(r"[.][A-Za-z0-9]{1,8}", Path(url).suffix) else ".mp4"
        path = folder / f"{digest([*map(str, version_of(known))])[:16]}{suffix}"
        for old in folder.glob(f"*{suffix}"):
            if old != path:
                old.unlink()
        with path.open("ab") as file:
            for piece in pieces(store, key, known, file.tell()):
                file.write(piece)
                if progress:
                    progress(file.tell(), size)
                if time.monotonic() - began > settings.max_seconds:
                    raise Failed("too_slow", f"{url}: not whole after {settings.max_seconds:g} s", transient=True)
    return path


def _place(url: str, patience: timedelta) -> tuple[Any, str]:
    """The bucket, opened, and the key in it."""
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    return opened(f"{scheme}://{bucket}", patience), key


@contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise Failed("http_404", f"{url} does not exist") from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise Failed("http_403", f"{url}: the store refuses it: set its credentials in the environment") from None
    except BaseError as error:
        line = str(error).strip().partition("\n")[0][:200]
        raise Failed("connection", f"{url} cannot be read: {line}", transient=True) from None
    except ValueError as error:  # the library takes no key with an empty part, `.` or `..`, though stores may hold one
        line = str(error).strip().partition("\n")[0][:200]
        raise Failed("unsupported_url", f"{url} cannot be asked for: {line}") from None
