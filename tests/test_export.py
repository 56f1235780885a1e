"""Exports, opened by the rules of the trainers that they are for; by the trainer's own loader where it is installed."""

import io
import json
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import av  # noqa: E402
from conftest import Command  # noqa: E402
from small_releases import Film, films, proxy, released  # noqa: E402

from marathon_pipeline.dataset.storage import Storage  # noqa: E402
from marathon_pipeline.errors import UserError  # noqa: E402
from marathon_pipeline.hour_llava.export.write import Exported, export_release  # noqa: E402
from marathon_pipeline.hour_llava.features import Cached, write_features  # noqa: E402
from marathon_pipeline.release.settings import ReleaseSettings  # noqa: E402

FILMS = [
    *films(4, pairs=6),
    Film("yt_seen", pairs=2, says=" See <image>."),
    Film("yt_odd", pairs=3, data_source="odd | collection"),
]
SAID = 2  # pairs that say `<image>`
PAIRS = sum(2 * film.pairs for film in FILMS) - SAID


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dataset")
    url = released(folder, FILMS, ReleaseSettings(shards=2, media_shards=3))
    for film in FILMS[:-1]:
        features = torch.full((5, 64, 8), 0.5, dtype=torch.bfloat16)
        write_features(Storage(str(folder)), film.source_id, Cached(features, "f", "p"))
    return str(url)


def conversations(entry: dict, token: str) -> int:
    """Checks the turns of an entry as a trainer's templates want them, and returns how many questions there are."""
    said = entry["conversations"]
    assert [turn["from"] for turn in said] == ["human", "gpt"] * (len(said) // 2)
    assert said[0]["value"].startswith(f"{token}\n") and said[0]["value"].count("<") == 1
    assert not any("<" in turn["value"] for turn in said[1:])
    return len(said) // 2


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_llava_next_gets_its_image_token_and_finds_every_video(url: str, tmp_path: Path) -> None:
    found = export_release(url, "llava-next", "train", tmp_path / "out")
    entries = json.loads((tmp_path / "out" / "train.json").read_text())
    assert sum(conversations(entry, "<image>") for entry in entries) == found.qa == PAIRS
    assert len({entry["id"] for entry in entries}) == len(entries) == found.conversations
    assert found.videos == len(FILMS) and found.left_out == {"saying <image> or <video>": SAID}
    for entry in entries:
        with av.open(os.path.join(tmp_path / "out", entry["video"])) as video:  # noqa: PTH118 - as the trainer does
            assert video.streams.video[0].frames == 3
    choices = [turn for entry in entries for turn in entry["conversations"] if "\nA. red" in turn["value"]]
    assert choices and all(turn["value"].endswith("\nA. red\nB. green\nC. blue\nD. grey") for turn in choices)


def test_hourllava_gets_its_features_where_its_loader_looks_for_them(url: str, tmp_path: Path) -> None:
    found = export_release(url, "hourllava", "train", tmp_path / "data")
    root = tmp_path / "data" / "VideoMarathon" / "videos"  # what its sharding is told, though it holds features alone
    entries = json.loads((tmp_path / "data" / "VideoMarathon" / "jsons" / "videomarathon.json").read_text())
    assert sum(conversations(entry, "<image>") for entry in entries) == found.qa == PAIRS - 6
    assert found.left_out == {"saying <image> or <video>": SAID, "without features": 6}
    for entry in entries:
        video = os.path.join(root, entry["data_source"], entry["video"])  # noqa: PTH118 - as the trainer does
        place = video.replace(".mp4", ".pt").replace("VideoMarathon/videos", "VideoMarathon/features")
        loaded = torch.load(place, weights_only=True)
        assert loaded["duration"] == 200.0
        assert loaded["vid_feat"].dtype == torch.float32 and loaded["vid_feat"].shape == (5, 64, 8)


def check_llamafactory(folder: Path, found: Exported) -> None:
    """Its documented rules (data/README.md): dataset_info.json, sharegpt, as many `<video>` as `videos`."""
    ((name, info),) = json.loads((folder / "dataset_info.json").read_text()).items()
    assert name == "small_1_train" and info["formatting"] == "sharegpt"
    entries = json.loads((folder / info["file_name"]).read_text())
    assert sum(conversations(entry, "<video>") for entry in entries) == found.qa == PAIRS
    for entry in entries:
        (video,) = entry[info["columns"]["videos"]]
        assert io.BytesIO((folder / video).read_bytes()).getvalue() == proxy(3)


def test_llamafactory_gets_a_video_token_for_each_video(url: str, tmp_path: Path) -> None:
    check_llamafactory(tmp_path / "out", export_release(url, "llamafactory", "train", tmp_path / "out"))


def test_an_export_is_the_same_bytes_every_time(url: str, tmp_path: Path) -> None:
    for format in ("llava-next", "hourllava", "llamafactory"):
        for name in ("one", "two"):
            export_release(url, format, "train", tmp_path / format / name)
        assert bytes_of(tmp_path / format / "one") == bytes_of(tmp_path / format / "two")


def test_an_export_appears_whole_or_not_at_all(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        export_release(url, "llava-next", "train", tmp_path / "out", die)
    assert not list(tmp_path.iterdir())
    leftover = tmp_path / ".out.part" / "videos"  # of one that could not even clean up
    leftover.mkdir(parents=True)
    (leftover / "half.mp4").write_bytes(b"half")
    export_release(url, "llava-next", "train", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "videos" / "half.mp4").exists()


def test_what_cannot_be_exported_is_said_in_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(UserError, match="is there already and not empty"):
        export_release(url, "llava-next", "train", tmp_path / "there")
    with pytest.raises(UserError, match="of the split val"):
        export_release(url, "llava-next", "val", tmp_path / "out")
    bare = released(tmp_path / "bare", films(1), ReleaseSettings())
    with pytest.raises(UserError, match=r"nothing to export \(4 without features\)"):
        export_release(str(bare), "hourllava", "train", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports_and_says_what_it_left_out(url: str, marathon: Command) -> None:
    said = marathon("export", url, "--format", "llamafactory", "-o", "out")
    assert said.splitlines()[1] == f"left out  {SAID} QA saying <image> or <video>"
    assert f"{len(FILMS)} videos" in said and f"{PAIRS} QA" in said
    assert (marathon.folder / "out" / "dataset_info.json").is_file()
    assert "give one of llava-next" in marathon("export", url, "--format", "llava", "-o", "other", code=2)
