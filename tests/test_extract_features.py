"""The stage that caches features, run as a user runs it, with a SigLIP made on the spot."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from conftest import Command  # noqa: E402
from transformers import SiglipVisionConfig, SiglipVisionModel  # noqa: E402

from marathon_pipeline.dataset.dataset import Dataset, media_key  # noqa: E402
from marathon_pipeline.errors import Failed, UserError  # noqa: E402
from marathon_pipeline.hour_llava.data.loader import Loader  # noqa: E402
from marathon_pipeline.hour_llava.data.proxies import decoded  # noqa: E402
from marathon_pipeline.hour_llava.data.settings import LoaderSettings  # noqa: E402
from marathon_pipeline.hour_llava.extraction import extracted, load_tower  # noqa: E402
from marathon_pipeline.hour_llava.features import FeatureSettings, feature_key, read_features  # noqa: E402
from marathon_pipeline.pipeline.work import Order, carry_out  # noqa: E402
from marathon_pipeline.records import Features  # noqa: E402
from marathon_pipeline.stages.extract_features import ExtractFeatures  # noqa: E402


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 patches of 4 x 4 pixels, 16 channels."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(1)
    config = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=4,
    )
    SiglipVisionModel(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_features_are_cached_once_follow_their_settings_and_go_with_their_source(
    built: Path, tower: Path, marathon: Command
) -> None:
    shutil.copytree(built, marathon.folder, dirs_exist_ok=True)
    job = ("job.yaml", "--set", f"features.tower={tower}")
    before = Dataset(str(marathon.folder / "out"))
    planned = json.loads(marathon("plan", *job, "--json"))
    assert {row["stage"] for row in planned} == {"extract_features"}
    assert "extract_features" in marathon("run", *job)
    dataset = Dataset(str(marathon.folder / "out"))
    videos = [finished.video_id for finished in dataset.finished()]
    settings = FeatureSettings(tower=str(tower))
    assert len(videos) == 3
    for video_id in videos:
        (row,) = dataset.tables.read(Features, video_id)
        cached = read_features(dataset.storage, video_id)
        proxy = dataset.storage.read(media_key("proxies", video_id, ".mp4"))
        assert torch.equal(cached.features, extracted(proxy, video_id, settings))
        assert cached.features.shape == (row.frames, 64, 16) and cached.features.dtype == torch.bfloat16
        assert cached.fingerprint == row.fingerprint == settings.fingerprint
        assert row.bytes == dataset.storage.size(feature_key(video_id))
    assert before.storage.read("releases/test-1/release.json")  # what was released stays
    assert not json.loads(marathon("plan", *job, "--json"))
    again = json.loads(marathon("plan", *job, "--set", "features.pooling=bilinear", "--json"))
    assert {row["stage"] for row in again} == {"extract_features"}

    loader = Loader(LoaderSettings(releases=(f"{dataset.url}/releases/test-1",), features=True, workers=0))
    example = next(iter(loader))[0]
    assert torch.equal(example.features, read_features(dataset.storage, example.video_id).features)

    marathon("purge", "out", videos[0])
    assert not (marathon.folder / "out" / feature_key(videos[0])).exists()
    assert (marathon.folder / "out" / feature_key(videos[1])).exists()
    assert not list((marathon.folder / "out" / "tables" / "features").rglob(f"{videos[0]}*"))


def test_the_stage_writes_a_videos_features_and_a_row_that_tells_of_them(
    built: Path, tower: Path, tmp_path: Path
) -> None:
    shutil.copytree(built / "out", tmp_path / "out")
    dataset, settings = Dataset(str(tmp_path / "out")), FeatureSettings(tower=str(tower))
    video = next(dataset.finished())
    order = Order(video.video_id, video.source_id, {"": "f"}, {}, False, True, None)
    (outcome,) = asyncio.run(carry_out(ExtractFeatures(settings, dataset.storage), dataset, order))
    assert outcome.status == "ok", outcome
    (row,) = dataset.tables.read(Features, video.video_id)
    cached = read_features(dataset.storage, video.video_id)
    assert cached.features.shape == (row.frames, 64, 16) and cached.features.dtype == torch.bfloat16
    assert cached.fingerprint == row.fingerprint == settings.fingerprint
    assert row.bytes == dataset.storage.size(feature_key(video.video_id))


@pytest.fixture(scope="module")
def proxy(built: Path) -> bytes:
    return next((built / "out" / "proxies").rglob("*.mp4")).read_bytes()


def test_features_are_those_of_the_tower_without_its_last_layer_whatever_the_chunk(tower: Path, proxy: bytes) -> None:
    whole = SiglipVisionModel.from_pretrained(tower, dtype=torch.float32).eval()
    frames = decoded(proxy, "film", side=64)
    with torch.no_grad():
        pixels = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        states = whole(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    maps = states.unflatten(1, (16, 16)).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.avg_pool2d(maps, 2).flatten(2).transpose(1, 2)
    for chunk in (7, 500):
        features = extracted(proxy, "film", FeatureSettings(tower=str(tower), chunk=chunk))
        assert len(features) == len(frames)
        torch.testing.assert_close(features.float(), wanted, atol=0.02, rtol=0.01)


def test_settings_that_change_the_features_change_their_fingerprint_and_the_chunk_does_not() -> None:
    plain = FeatureSettings(tower="a")
    assert plain.fingerprint == FeatureSettings(tower="a", chunk=7).fingerprint
    others = [
        FeatureSettings(tower="b"),
        FeatureSettings(tower="a", revision="b"),
        FeatureSettings(tower="a", pooling="bilinear"),
    ]
    assert len({each.fingerprint for each in (plain, *others)}) == 4


def test_a_tower_that_is_none_is_said_in_one_line(tmp_path: Path, proxy: bytes) -> None:
    with pytest.raises(Failed, match=r"features\.tower .*: cannot be loaded") as raised:
        extracted(proxy, "film", FeatureSettings(tower=str(tmp_path / "nothing")))
    assert "\n" not in raised.value.message
    with pytest.raises((OSError, ValueError)):
        load_tower(FeatureSettings(tower=str(tmp_path)))


def test_without_any_features_the_loader_says_how_to_make_them(built: Path) -> None:
    with pytest.raises(UserError, match="holds no features; run its job with `features` set"):
        Loader(LoaderSettings(releases=(str(built / "out" / "releases" / "test-1"),), features=True))
