"""`release.json`: what a release holds, and from what. It is written last: a folder without it is unfinished."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.licences import Allowed, Licences, ModelRule
from marathon_pipeline.records import Format, Split

FORMAT_VERSION = 2  # of the files of a release; it is part of every fingerprint, so a new one makes all of them stale
FILE_NAME = "release.json"
ROOT = "releases"
Level = Literal["clip", "event", "global"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileInfo(_Part):
    sha256: str
    bytes: int
    rows: int  # samples of a tar, rows of a table, 0 for text


class TaskSummary(_Part):
    topic: str
    name: str
    qa: int = 0
    formats: dict[Format, int] = {}
    splits: dict[Split, int] = {}
    shards: dict[Split, int] = {}  # a split's tars are numbered from 0 without a gap
    left_out: dict[str, int] = {}  # QA pairs that are not released, by reason; one may have several
    annotators: tuple[str, ...] = ()
    template_versions: tuple[int, ...] = ()  # those that the released QA was written from
    split_versions: dict[Split, tuple[int, ...]] = {}  # the same by split: they differ where a split is frozen
    replaced: int = 0  # pairs that stand in the place of rejected ones


class SourceGroup(_Part):
    """The videos of one collection under one licence. `evidence`: what they all refer to, empty where they differ."""

    data_source: str
    licence: str
    evidence: str
    videos: int
    seconds: float


class VideoSummary(_Part):
    videos: int = 0
    sources: int = 0
    seconds: float = 0.0
    splits: dict[Split, int] = {}
    groups: tuple[SourceGroup, ...] = ()


class CaptionSummary(_Part):
    levels: dict[Level, int] = {}
    annotators: tuple[str, ...] = ()
    left_out: dict[str, int] = {}  # captions that are not released, by reason


class LicenceSummary(_Part):
    """By which rules it was decided what is released, each with its evidence."""

    sources: tuple[Allowed, ...] = ()
    models: tuple[ModelRule, ...] = ()  # of those that wrote captions or QA
    left_out: int = 0  # videos of which texts may be released, and no media

    @property
    def withheld(self) -> int:
        """Videos of which nothing may be released."""
        return sum(each.videos for each in self.sources if not each.rule.something)


class Approval(_Part):
    """`broken`: the gates of the dataset that did not hold when it was released, `despite`: why it was all the same."""

    broken: tuple[str, ...] = ()
    despite: str = ""


class Reissue(_Part):
    """What a revision took the place of, when sources were taken down, and how much of it went."""

    of: str
    certificate: str  # of the purge, within the dataset
    videos: int
    qa: int


class Release(_Part):
    """parts: the fingerprint of each separately written part, such as `qa/temporal_order`, `videos` or `media`."""

    format: int = FORMAT_VERSION
    name: str
    title: str
    licence: str
    annotators: tuple[str, ...]
    media: str  # the version of the media shards, empty where the release has none
    parts: dict[str, str]
    tasks: dict[str, TaskSummary]
    videos: VideoSummary
    captions: CaptionSummary
    approval: Approval = Approval()
    licences: LicenceSummary = LicenceSummary()
    opted_out: int = 0  # sources that are not in it because somebody said that they are not to be used
    reissue: Reissue | None = None
    templates: dict[str, JsonValue]  # `tasks` by id, `rules`, `captions` by name
    settings: dict[str, JsonValue]
    files: dict[str, FileInfo]  # by path within the release, all but this file

    @property
    def qa(self) -> int:
        return sum(task.qa for task in self.tasks.values())

    def dump(self) -> bytes:
        return pretty(self.model_dump(mode="json"))


def summary_of(licences: Licences, sources: Iterable[Allowed], annotators: Iterable[str]) -> LicenceSummary:
    """sources: what the rules came to. annotators: who wrote what is released."""
    found = tuple(sources)
    rules = {licences.of_model(annotator): None for annotator in annotators}
    left_out = sum(each.videos for each in found if each.rule.something and not each.rule.media)
    return LicenceSummary(sources=found, models=tuple(rules), left_out=left_out)


def folder_of(name: str) -> str:
    return f"{ROOT}/{name}"


def pretty(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_release(dataset: Dataset, name: str) -> Release | None:
    """None where there is no such release, or an unfinished one."""
    return release_in(dataset.storage, f"{folder_of(name)}/")


def release_in(storage: Storage, prefix: str = "") -> Release | None:
    """The release in a storage, `prefix` before the name of each of its files; None where there is no whole one."""
    key = f"{prefix}{FILE_NAME}"
    try:
        return Release.model_validate_json(storage.read(key))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise UserError(
            f"{storage.url}/{key} is damaged or of another format; remove its folder, or read it with what wrote it"
        ) from None


def release_names(dataset: Dataset) -> Iterator[str]:
    """The finished releases, in the order of their names."""
    for key in dataset.storage.keys(ROOT):
        if key.count("/") == 2 and key.endswith(f"/{FILE_NAME}"):
            yield key.split("/")[1]


def publishable(settings: Mapping[str, object]) -> dict[str, JsonValue]:
    """Settings as JSON keeps them: tuples become lists. Raises UserError for what JSON cannot say."""
    try:
        plain: dict[str, JsonValue] = json.loads(json.dumps(settings, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"the content settings of a release must be JSON ({error})") from None
    return plain
