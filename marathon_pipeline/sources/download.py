"""Fetching one source: a local file is checked, an object copied, any other URL downloaded by yt-dlp."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from marathon_pipeline.errors import Failed
from marathon_pipeline.records import Source, digest
from marathon_pipeline.sources.identity import SourceError, content_of, is_in_store
from marathon_pipeline.sources.settings import DownloadSettings, Progress


def fetch(
    source: Source,
    folder: Path,
    settings: DownloadSettings,
    progress: Progress | None = None,
    asked: Callable[[], None] = lambda: None,
    told: Callable[[Iterable[str]], None] = lambda channels: None,
) -> Path:
    """A local file with the source's video: its own path, or `folder/<source_id>.<ext>`, which appears only when whole.

    asked: called before each request to a server; told: with what the site calls the video's channel. What a broken-off
    download has got stays in `folder` and is resumed. Raises Failed with a typed reason.
    """
    return _downloaded(source, folder, settings, progress, asked, told) if source.url else _checked(source)


def _checked(source: Source) -> Path:
    path = Path(source.path)
    if not path.is_file():
        raise Failed("file_missing", f"{path} does not exist any more")
    try:
        sha256 = content_of(path, known=source).sha256
    except SourceError as error:
        raise Failed("file_unreadable", error.problem) from None
    if sha256 != source.sha256:
        raise Failed("file_changed", f"{path} is not the file that the manifest was read with")
    return path


@contextmanager
def _alone(parts: Path, seconds: float) -> Iterator[None]:
    """Two writers would spoil a part: a worker may outlive its killed run for a moment, while the next one resumes."""
    with (parts / "lock").open("w") as lock:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failed("busy", f"another process still writes {parts}", transient=True) from None
            time.sleep(0.1)
        yield


def _downloaded(
    source: Source,
    folder: Path,
    settings: DownloadSettings,
    progress: Progress | None,
    asked: Callable[[], None],
    told: Callable[[Iterable[str]], None],
) -> Path:
    download: Callable[[str, Path, DownloadSettings, Progress | None], Path]
    if is_in_store(source.url):
        from marathon_pipeline.sources.stores import download

        asked()
    else:
        from marathon_pipeline.sources import ytdlp  # a second to import

        download = partial(ytdlp.download, asked=asked, told=told)
    wanted = digest([source.url, settings.max_height, settings.audio])[:8]  # parts of anything else are not resumed
    parts = folder / f"{source.source_id}.{wanted}.parts"
    try:
        parts.mkdir(parents=True, exist_ok=True)
        with _alone(parts, settings.timeout_seconds):
            got = download(source.url, parts, settings, progress)
            whole = folder / f"{source.source_id}{got.suffix}"
            got.replace(whole)
    except Failed as failure:
        if not failure.transient:
            shutil.rmtree(parts, ignore_errors=True)
        raise
    except OSError as error:
        raise Failed("disk", f"{folder}: {error.strerror or error}", transient=True) from None
    shutil.rmtree(parts, ignore_errors=True)
    return whole
