"""The media shards: the heavy data, shared by releases. `media.json` is written last and lists them."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.errors import UserError
from marathon_pipeline.media.proxy import is_whole
from marathon_pipeline.records import Split
from marathon_pipeline.release.files import Folder, Tar, intact
from marathon_pipeline.release.plan import SPLITS, Placed, media_shards
from marathon_pipeline.release.release_file import FileInfo, pretty
from marathon_pipeline.release.rows import VideoRow
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.withdrawn import withdrawn

MEDIA_ROOT, MEDIA_FILE = "media", "media.json"


class Shard(FileInfo):
    fingerprint: str


class MediaVersion(BaseModel):
    """`shards`: by name. A fingerprint says the split and the videos, so that they also say which shards there are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    shards: dict[str, Shard]
    replaces: str = ""  # the version that it was made from, without what was taken down

    def counts(self) -> dict[Split, int]:
        return {split: sum(name.startswith(f"{split}-") for name in self.shards) for split in SPLITS}


def write_media(
    dataset: Dataset,
    placed: list[Placed],
    settings: ReleaseSettings,
    scratch: Path,
    row_of: Callable[[Placed], VideoRow],
    progress: Callable[[int], None],
) -> MediaVersion:
    """The version of the media shards that holds just these videos: one that is there, or a new one.

    progress: called with the number of videos done. Raises UserError where a video has no whole proxy.
    """
    wanted = media_shards(dataset, placed, settings)
    versions = media_versions(dataset)
    for version in reversed(versions):
        same = {shard.fingerprint for shard in version.shards.values()} == {fingerprint for fingerprint, _ in wanted}
        where = f"{MEDIA_ROOT}/{version.version}"
        if same and all(intact(dataset.storage, f"{where}/{name}", shard) for name, shard in version.shards.items()):
            progress(len(placed))
            return version
    new = next_version(dataset)
    known = {
        shard.fingerprint: (f"{MEDIA_ROOT}/{version.version}/{name}", shard)
        for version in versions
        for name, shard in version.shards.items()
    }
    folder = Folder(dataset.storage, f"{MEDIA_ROOT}/{new}", scratch)
    folder.clear()
    shards: dict[str, Shard] = {}
    numbers: Counter[str] = Counter()
    done = 0
    for fingerprint, videos in wanted:
        split = videos[0].split
        name = f"{split}-{numbers[split]:06d}.tar"
        numbers[split] += 1
        if fingerprint in known and intact(dataset.storage, *known[fingerprint]):
            folder.copy(name, *known[fingerprint])
        else:
            _write_shard(folder, name, videos, row_of)
        info = folder.files[name]
        shards[name] = Shard(sha256=info.sha256, bytes=info.bytes, rows=info.rows, fingerprint=fingerprint)
        done += len(videos)
        progress(done)
    written = MediaVersion(version=new, shards=shards)
    folder.put(MEDIA_FILE, pretty(written.model_dump(mode="json")))
    return written


def _write_shard(folder: Folder, name: str, videos: list[Placed], row_of: Callable[[Placed], VideoRow]) -> None:
    tar = Tar(folder, name)
    for video in videos:
        key = media_key("proxies", video.video_id, ".mp4")
        try:
            proxy, fault = folder.storage.read(key), "damaged"
        except FileNotFoundError:
            proxy, fault = b"", "missing"
        if not is_whole(proxy):
            raise UserError(
                f"{folder.storage.url}/{key} is {fault}; run the job again with --force --video {video.video_id}, "
                "or release with `media: false`"
            )
        tar.write(video.video_id, mp4=proxy, json=row_of(video).model_dump_json().encode())
    tar.close()


def media_versions(dataset: Dataset) -> list[MediaVersion]:
    """The finished versions, oldest first."""
    versions = []
    for key in dataset.storage.keys(MEDIA_ROOT):
        if re.fullmatch(rf"{MEDIA_ROOT}/v[1-9][0-9]*/{MEDIA_FILE}", key):
            try:
                versions.append(MediaVersion.model_validate_json(dataset.storage.read(key)))
            except ValidationError:
                raise UserError(f"{dataset.url}/{key} is damaged; remove its folder, and release again") from None
    return sorted(versions, key=lambda version: int(version.version[1:]))


def next_version(dataset: Dataset) -> str:
    """The name of the version to write next; that of a withdrawn one is never given again."""
    names = [version.version for version in media_versions(dataset)] + list(withdrawn(dataset.storage, MEDIA_ROOT))
    return f"v{max((int(name[1:]) for name in names), default=0) + 1}"
