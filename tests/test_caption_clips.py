"""Captioning a video: what it fetches, and which clips it may go without."""

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from by_hand import TAXONOMY, ByHand, annotator, clip

from marathon_pipeline.annotators.served.pool import Reply
from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.journal import Answers, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.records import Clip, ClipCaption, Signals
from marathon_pipeline.stages.caption_clips import CaptionClips, CaptionSettings
from marathon_pipeline.stages.stage import Given

CLIPS = 4


class Store(Storage):
    """An object store that counts the copies that are made of it."""

    fetched = 0

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        self.fetched += 1
        with super().local_file(key) as path:
            yield path


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("proxy") / "video.mp4"
    seconds = 20 * CLIPS + 10
    graph = ["-f", "lavfi", "-i", f"testsrc2=duration={seconds}:size=64x36:rate=1", "-g", "1", "-pix_fmt", "yuv420p"]
    subprocess.run([ffmpeg_binary(), "-loglevel", "error", *graph, path], check=True)
    return path


@pytest.fixture
def store(proxy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = Store("memory:///d")
    store.write_file(media_key("proxies", "video", ".mp4"), proxy)
    return store


def captioned(store: Storage, sender: ByHand, max_lost: float = 0.0) -> list[ClipCaption]:
    stage = CaptionClips(annotator(sender), TAXONOMY.captions["clip"], CaptionSettings(max_lost=max_lost), store)
    answers = Answers(Journal(store, "caption_clips", "video"), "")
    given = Given({Clip: [clip(index) for index in range(CLIPS)], Signals: []}, answers)
    return asyncio.run(stage.run(given, ""))


def no(failure: Failed) -> Reply:
    raise failure


def test_a_store_s_proxy_is_fetched_once_a_video_and_not_once_a_clip(store: Store) -> None:
    sender = ByHand()
    assert len(captioned(store, sender)) == CLIPS == len(sender.requests)
    assert len({request.pictures for request in sender.requests}) == CLIPS
    assert store.fetched == 1
    assert not list(store.scratch().iterdir())


def test_the_copy_of_a_proxy_goes_when_captioning_fails(store: Store) -> None:
    with pytest.raises(Failed, match="busy"):
        captioned(store, ByHand(lambda request: no(Failed("server_busy", "busy", transient=True))))
    assert store.fetched == 1
    assert not list(store.scratch().iterdir())


@pytest.mark.parametrize("reason", ["refused", "bad_answer"])
def test_clips_that_the_model_does_not_caption_may_be_lost(store: Store, reason: str) -> None:
    first_is_none = ByHand(lambda request: no(Failed(reason, "no")))
    assert len(captioned(store, first_is_none, max_lost=0.3)) == CLIPS - 1


@pytest.mark.parametrize("reason", ["rejected", "unauthorized", "context", "frames"])
def test_no_clip_is_given_up_because_a_server_says_no(store: Store, reason: str) -> None:
    with pytest.raises(Failed) as failed:
        captioned(store, ByHand(lambda request: no(Failed(reason, "no"))), max_lost=0.9)
    assert failed.value.reason == reason
