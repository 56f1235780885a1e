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

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from marathon_pipeline.dataset.remote import FIRST_PATIENCE, PATIENCE, opened
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.sources.settings import DownloadSettings, Progress


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """An object as a local file of the same suffix, for as long as it is read. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"copy{Path(url).suffix}"
        try:
            _copy(url, path, patience=FIRST_PATIENCE)
        except Failed as failure:
            raise UserError(f"{failure.message} (give a readable one)") from None
        yield path


def download(url: str, folder: Path, settings: DownloadSettings, progress: Progress | None) -> Path:
    """Copy the video that a URL names into `folder`. Raises Failed with a typed reason."""
    suffix = Path(url).suffix
    path = folder / f"video{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,8}', suffix) else '.mp4'}"
    _copy(url, path, settings, progress)
    return path


def _copy(
    url: str,
    path: Path,
    settings: DownloadSettings | None = None,
    progress: Progress | None = None,
    patience: timedelta = PATIENCE,
) -> None:
    bucket, _, key = url.partition("://")[2].partition("/")
    began = time.monotonic()
    try:
        found = obstore.get(opened(f"{url.partition('://')[0]}://{bucket}", patience), key)
        size, got = found.meta["size"], 0
        if settings and size > settings.max_bytes:
            raise Failed("too_large", f"{url}: {size} bytes, max_bytes is {settings.max_bytes}")
        with path.open("wb") as file:
            for chunk in found.stream():
                got += file.write(chunk)
                if progress:
                    progress(got, size)
                if settings and time.monotonic() - began > settings.max_seconds:
                    raise Failed("too_slow", f"{url}: not whole after {settings.max_seconds:g} s", transient=True)
    except FileNotFoundError:
        raise Failed("http_404", f"{url} does not exist") from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise Failed("http_403", f"{url}: the store refuses it: set its credentials in the environment") from None
    except BaseError as error:
        line = str(error).strip().partition("\n")[0][:200]
        raise Failed("connection", f"{url} cannot be read: {line}", transient=True) from None
