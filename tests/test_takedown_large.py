"""Takedown of one source among a thousand, which are made from the rows of three."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_end_to_end import copy_of
from test_release import hashes
from test_takedown import naming, verifies

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.parquet import bytes_of
from marathon_pipeline.gates import Gates
from marathon_pipeline.pipeline.ingest import gather
from marathon_pipeline.records import Outcome, QAPair, Video
from marathon_pipeline.release.plan import bucket
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import write_release
from marathon_pipeline.taxonomy import load_taxonomy

_VIDEOS, _SHARDS = 1_000, 8
_GONE = "yt_take-me-dwn"
_URL = "https://www.youtube.com/watch?v=take-me-dwn"


def grown(dataset: Dataset) -> Dataset:
    """The dataset's finished videos under a thousand ids, each with frames, questions and a file of its own."""
    models = list(dataset.sources().values())
    outcomes: dict[str, list[Outcome]] = {}
    for outcome in dataset.ledger:
        outcomes.setdefault(outcome.video_id, []).append(outcome)
    keys = dataset.storage.keys("")
    files = {
        source.source_id: {key: dataset.storage.read(key) for key in keys if source.source_id in key}
        for source in models
    }
    sources = []
    for number in range(_VIDEOS):
        model = models[number % len(models)]
        old, new = model.source_id, _GONE if number == 500 else f"yt_{number:011d}"
        url = f"https://www.youtube.com/watch?v={new.removeprefix('yt_')}"
        sources.append(model.model_copy(update={"source_id": new, "url": url, "path": "", "sha256": ""}))
        for key, data in files[old].items():
            if key.startswith("proxies/"):
                dataset.storage.write(media_key("proxies", new, ".mp4"), data)
            elif key.startswith("tables/"):
                folder = "/".join(key.split("/")[:2])
                to = f"{folder}/{hashlib.sha256(new.encode()).hexdigest()[:2]}/{new}.parquet"
                dataset.storage.write(to, renamed(data, old, new))
        dataset.ledger.append(
            Outcome.model_validate(
                json.loads(each.model_dump_json().replace(old, new)) | {"content": f"{new} {each.content}"}
            )
            for each in outcomes[old]
        )
    for model in models:
        for key in files[model.source_id]:
            if key.startswith(("tables/", "proxies/")):
                dataset.storage.remove(key)
    dataset.ledger.forget(*outcomes)
    dataset.write_sources(sources)
    return dataset


def renamed(data: bytes, old: str, new: str) -> bytes:
    """A table's file of another video: its ids, questions, frames and contents are its own."""
    table = pq.read_table(pa.BufferReader(data))

    def own(name: str, value: object) -> object:
        if isinstance(value, list):
            return [own(name, each) for each in value]
        if name in ("frame_hash", "frame_hashes"):
            return hashlib.sha256(f"{new} {value}".encode()).hexdigest()[:16]
        if name == "qa_id":
            return hashlib.sha256(f"{new} {value}".encode()).hexdigest()[:24]
        if name == "sha256":
            return hashlib.sha256(new.encode()).hexdigest()
        return value.replace(old, new) if isinstance(value, str) else value

    columns = {
        field.name: pa.array([own(field.name, v) for v in table[field.name].to_pylist()], field.type)
        for field in table.schema
    }
    metadata = {k.decode(): v.decode().replace(old, new) for k, v in (table.schema.metadata or {}).items()}
    return bytes_of(pa.table(columns, table.schema), metadata)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_a_source_among_a_thousand_no_trace_is_left_but_keyed_hashes(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    root = tmp_path / "out"
    for folder in ("releases", "media", "audit"):
        shutil.rmtree(root / folder)
    dataset = grown(Dataset(str(root)))
    settings = ReleaseSettings(title="A thousand", shards=_SHARDS, media_shards=_SHARDS, val=0.1)
    write_release(dataset, "demo-1", ReleaseRules(settings, load_taxonomy(), Gates()))
    own = {row["qa_id"] for row in pq.read_table(root / dataset.tables.key(QAPair, _GONE)).to_pylist()}
    frames = pq.read_table(root / dataset.tables.key(Video, _GONE).replace("/videos/", "/signals/"))[
        "frame_hash"
    ].to_pylist()
    words = [_GONE, _GONE.removeprefix("yt_"), hashlib.sha256(_GONE.encode()).hexdigest(), *own, *frames]
    assert naming(root / "releases", *words) and naming(root / "ledger", *words) and naming(root / "media", *words)
    before = hashes(root / "releases/demo-1"), hashes(root / "media/v1")

    marathon("purge", "out", "https://youtu.be/take-me-dwn?t=3")

    assert naming(root, *words) == set()
    verifies(root / "releases/demo-1.1")
    media = json.loads((root / "media/v2/media.json").read_text())["shards"]
    after = hashes(root / "releases/demo-1.1"), hashes(root / "media/v2")
    assert all(after[1][name] == shard["sha256"] for name, shard in media.items())
    shard = f"-{bucket(_GONE) % _SHARDS:06d}.tar"
    for old, new in zip(before, after, strict=True):
        changed = {path for path in old if path.endswith(".tar") and old[path] != new.get(path)}
        assert changed and all(path.endswith(shard) for path in changed)
    (tmp_path / "again.jsonl").write_text(f'{{"url": "{_URL}&feature=share", "id": "other"}}\n')
    said = marathon("manifest", "check", "again.jsonl", "--removals", "out", code=2)
    assert "was purged" in said
    gathered = gather(Dataset(str(root)), [str(tmp_path / "again.jsonl")])
    assert [source.url for source in gathered.purged] == [_URL] and len(gathered.sources) == _VIDEOS - 1
