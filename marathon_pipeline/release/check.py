"""Whether the files of a release, and of its media, are still those that it lists: every byte of them is read."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.release.media import MEDIA_FILE, MEDIA_ROOT, MediaVersion
from marathon_pipeline.release.release_file import FILE_NAME, FileInfo, Release
from marathon_pipeline.release.withdrawn import refuse_withdrawn

Progress = Callable[[int, int], None]  # files read, of how many


@dataclass(frozen=True)
class Checked:
    """`bytes`: of all files listed. `faults`: one for each file that is not what the lists say."""

    files: int
    bytes: int
    faults: tuple[str, ...]


def check_release(url: str, progress: Progress | None = None) -> Checked:
    """Read a release (`<dataset>/releases/<name>`) and its media (`<dataset>/media/<version>`) again.

    Raises UserError where there is no release, it was withdrawn, or its lists cannot be read.
    """
    folder = Storage(url)
    parent = folder.root.parent.parent if folder.root else None
    above = Storage(str(parent) if parent else folder.url.rstrip("/").rsplit("/", 2)[0])
    if folder.root is not None and not folder.root.is_dir():
        raise UserError(f"{url}: no release there; give its folder, such as out/demo/releases/demo-1")
    refuse_withdrawn(folder)
    faults: list[str] = []
    listed: list[tuple[Storage, str, FileInfo]] = []
    try:
        release = Release.model_validate_json(folder.read(FILE_NAME))
        listed += [(folder, path, info) for path, info in release.files.items()]
        faults += _unlisted(folder, "", {*release.files, FILE_NAME})
        if release.media:
            where = f"{MEDIA_ROOT}/{release.media}"
            shards = MediaVersion.model_validate_json(above.read(f"{where}/{MEDIA_FILE}")).shards
            listed += [(above, f"{where}/{name}", shard) for name, shard in shards.items()]
            faults += _unlisted(above, f"{where}/", {*shards, MEDIA_FILE})
    except FileNotFoundError as error:
        raise UserError(f"{url}: no whole release with its media ({error}); give the folder of one") from None
    except ValidationError as error:
        raise UserError(f"{url}: its list of files ({error.title}) is damaged, or of another format") from None
    for done, (storage, path, info) in enumerate(listed, start=1):
        if fault := _fault(storage, path, info):
            faults.append(f"{path}: {fault}")
        if progress is not None:
            progress(done, len(listed))
    return Checked(len(listed), sum(info.bytes for *_, info in listed), tuple(faults))


def _fault(storage: Storage, path: str, info: FileInfo) -> str:
    try:
        with storage.local_file(path) as local, local.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is missing"
    return "" if sha256 == info.sha256 else "holds something else than what was released"


def _unlisted(storage: Storage, prefix: str, names: set[str]) -> list[str]:
    found = (key.removeprefix(prefix) for key in storage.keys(prefix.rstrip("/")))
    return [f"{prefix}{name}: is not of the release" for name in found if name not in names]
