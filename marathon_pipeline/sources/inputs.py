"""What `--input` takes: manifests, URLs, media files, folders of media files."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Source
from marathon_pipeline.sources.formats import MANIFEST_SUFFIXES
from marathon_pipeline.sources.identity import SourceError, is_in_store
from marathon_pipeline.sources.manifest import Gathering, RowProblem
from marathon_pipeline.sources.row import row_of

MEDIA_SUFFIXES = frozenset(
    {
        ".3gp",
        ".asf",
        ".avi",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogm",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    }
)


def sources_of_inputs(
    inputs: Iterable[str], previous: Mapping[str, Source] = {}
) -> tuple[list[Source], list[RowProblem]]:
    """The sources that inputs name, in their order; a folder's files in the order of their paths.

    An input that is wrong itself raises UserError; what is wrong inside one (a manifest's row, an unreadable file, a
    second file of the same content) is a problem and stops nothing. An empty or broken media file is a source all the
    same: it fails by name in the stage that cannot read it. previous: see `read_manifest`.
    """
    gathering = Gathering(previous)
    for text in inputs:
        try:
            if is_in_store(text) and text.lower().endswith(MANIFEST_SUFFIXES):
                gathering.read(text)
            elif re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
                gathering.add(row_of({"url": text}).source(Path(), {}))
            else:
                _add_path(gathering, Path(text))
        except SourceError as error:
            raise UserError(f"--input {error}") from None
        except OSError as error:
            raise UserError(f"--input {text} cannot be read: {error.strerror} (give a readable one)") from None
    return list(gathering.sources.values()), gathering.problems


def _add_path(gathering: Gathering, path: Path) -> None:
    if path.is_dir():
        _add_files(gathering, _media_files(path))
    elif path.suffix.lower() in MANIFEST_SUFFIXES:
        gathering.read(path)
    elif not path.exists():
        raise UserError(f"--input {path} does not exist (give a manifest, a URL, a video or a folder)")
    elif path.suffix.lower() in MEDIA_SUFFIXES:
        _add_files(gathering, [path])
    else:
        known = ", ".join((*MANIFEST_SUFFIXES, *sorted(MEDIA_SUFFIXES)))
        raise UserError(f"--input {path} is of no known kind (known: {known}; a manifest's `path` takes any name)")


def _media_files(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in MEDIA_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)  # such as macOS's ._ twins
        and path.is_file()
    )
    if not files:
        raise UserError(f"--input {folder} holds no video (known: {', '.join(sorted(MEDIA_SUFFIXES))})")
    return files


def _add_files(gathering: Gathering, files: Iterable[Path]) -> None:
    for file in files:
        try:
            gathering.add(row_of({"path": str(file)}).source(Path(), gathering.previous))
        except SourceError as error:
            gathering.problems.append(RowProblem(str(file), 0, error.problem, error.mend))
