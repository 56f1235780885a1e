"""What is asked of an object store one after another: of each request a store takes some time over."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from marathon_pipeline.dataset import remote, storage
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.journal import Answer, Journal
from marathon_pipeline.dataset.proxies import Proxies, name_base
from marathon_pipeline.dataset.reviews import Judgement
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.pipeline.purge import begin, purge, settle
from marathon_pipeline.records import Signals, Source, Video


class Store:
    """Stores in memory. `asked`: requests by method, of the thread that the test runs in: one after another.

    `read`: the keys that were asked for, by whatever thread.
    """

    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {}
        self.asked: Counter[str] = Counter()
        self.read: list[str] = []
        self._thread = threading.get_ident()

    def at(self, url: str) -> MemoryStore:
        return self.stores.setdefault(url, MemoryStore())

    def counted(self, method: str) -> Callable[..., Any]:
        def ask(*arguments: Any, **more: Any) -> Any:
            if threading.get_ident() == self._thread:
                self.asked[method] += 1
            if method == "get":
                self.read.append(arguments[1])
            return getattr(obstore, method)(*arguments, **more)

        return ask

    def during(self, act: Callable[[], object]) -> Counter[str]:
        self.asked.clear()
        self.read.clear()
        act()
        return Counter(self.asked)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    store = Store()
    methods = {name: store.counted(name) for name in ("get", "get_range", "put", "copy", "delete", "list", "head")}
    for module in (storage, remote):
        monkeypatch.setattr(module, "opened", lambda url, patience: store.at(url))
        monkeypatch.setattr(module, "obstore", SimpleNamespace(**methods))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield store


def filled(sources: int) -> Dataset:
    """A dataset in a store, with so many sources, each with pictures and a judgement of its own."""
    dataset = Dataset(f"memory:///{sources}", create=True)
    dataset.write_sources(Source(source_id=f"yt_{n}", url=f"https://example.org/{n}") for n in range(sources))
    of_file: dict[str, Any] = {"start": 0.0, "end": 9.0, "file": "a.mp4", "bytes": 1, "width": 9, "height": 9}
    of_second: dict[str, Any] = {"shot": 0, "brightness": 0.5, "colours": {}, "upper": "red", "lower": "red"}
    of_second |= {"upper_share": 1.0, "lower_share": 1.0, "motion": 0.0, "motion_grid": (0.0,) * 9, "things": ()}
    for n in range(sources):
        own = {"video_id": f"v_{n:06d}", "source_id": f"yt_{n}", "sha256": f"{n:064d}", "fps": 1.0, "codec": "h264"}
        dataset.tables.write(Video, f"yt_{n}", [Video(**own, **of_file)], {})
        second = Signals(video_id=f"v_{n:06d}", second=0, frame_hash=f"{n:016d}", camera="still", **of_second)
        dataset.tables.write(Signals, f"v_{n:06d}", [second], {})
        pair = {"video_id": f"v_{n:06d}", "task": "temporal_order", "qa_id": f"{n:024d}", "shown": "s"}
        dataset.reviews().add(Judgement(**pair, reviewer="Ann", verdict="accept"))
    return dataset


def test_removals_are_read_together_and_the_second_time_only_what_is_new(store: Store) -> None:
    asked = []
    for entries in (2, 40):
        written = Dataset(f"memory:///{entries}", create=True)
        for n in range(entries):
            written.removals().add(f"yt_{n}")
        opened = Dataset(written.url)
        asked.append(store.during(opened.removals))
        assert len(opened.removals().entries) == entries
        assert store.during(opened.removals) == {"list": 1}
        before = opened.removals().entries
        written.removals().add("yt_new")
        assert opened.removals().holds("id", "yt_new") and opened.removals().entries > before
    assert asked[0] == asked[1]


def test_a_purge_asks_for_the_rows_of_all_sources_together(store: Store) -> None:
    asked = []
    for sources in (3, 40):
        url = filled(sources).url
        with Dataset(url).lease():
            asked.append(store.during(lambda url=url: purge(url, ["yt_1"])))
        assert Dataset(url).removals().holds("content", f"{1:064d}")
    assert asked[0] == asked[1]


def test_what_people_judged_of_other_videos_is_looked_through_together_and_once(store: Store) -> None:
    asked = []
    for sources in (3, 40):
        dataset = filled(sources)
        dataset.removals().add("yt_1")
        (judged,) = dataset.storage.keys("reviews/" + media_key("", "v_000002", "")[1:])
        asked.append(store.during(lambda dataset=dataset: begin(dataset)))
        assert not [key for key in dataset.storage.keys("") if "v_000001" in key] and store.read.count(judged) == 1
        with dataset.lease():
            (done,) = settle(dataset)
        assert not done.left
    assert asked[0] == asked[1]


def test_a_purge_looks_through_all_files_together_and_through_each_one_twice(store: Store) -> None:
    """To remove what it says, and to see that nothing does any more."""
    asked = []
    for sources in (3, 40):
        url = filled(sources).url
        (judged,) = Storage(url).keys("reviews/" + media_key("", "v_000002", "")[1:])
        asked.append(store.during(lambda url=url: purge(url, ["yt_1"])))
        assert store.read.count(judged) == 2
    assert asked[0] == asked[1]


def test_certificates_of_purges_before_are_read_together(store: Store) -> None:
    asked = []
    for before in (1, 30):
        dataset = filled(2)
        purge(dataset.url, ["yt_1"])
        certificate = dataset.storage.read("certificates/000001.json")
        for number in range(2, before + 1):
            dataset.storage.write(f"certificates/{number:06d}.json", certificate)
        asked.append(store.during(lambda dataset=dataset: begin(dataset)))
        store.stores.clear()
    assert asked[0] == asked[1]


def test_files_of_a_source_are_counted_and_removed_together(store: Store) -> None:
    asked = []
    for parts in (2, 30):
        dataset = filled(2)
        for n in range(parts):
            dataset.storage.write(media_key("proxies", f"yt_1_{n:08d}-{n + 1:08d}", ".mp4"), b"pictures")
        dataset.removals().add("yt_1")
        asked.append(store.during(lambda dataset=dataset: begin(dataset)))
        assert not dataset.storage.keys("proxies")
        store.stores.clear()
    assert asked[0] == asked[1]


def test_segments_of_a_journal_are_read_and_joined_together(store: Store) -> None:
    own = {"part": "", "unit": "c0", "model": "m", "prompt": "What?", "id": "1", "finish": "stop", "text": "That."}
    asked = []
    for segments in (2, 20):
        folder = Storage(f"memory:///{segments}")
        written = Journal(folder, "qa", "v")
        for n in range(segments):
            written.add([(Answer(request=str(n), **own), "")])
        journal = Journal(folder, "qa", "v")
        asked.append((store.during(journal.load), store.during(journal.join)))
        assert len(Journal(folder, "qa", "v").prompts()) == segments and len(folder.keys("journal")) == 1
    assert asked[0] == asked[1] == ({"list": 1}, {"put": 1, "delete": 1})


def test_a_browser_that_asks_for_a_video_s_stretches_has_the_removals_read_once(store: Store) -> None:
    base, pilot = filled(30), Storage("memory:///pilot")
    name_base(pilot, base.url)
    key = media_key("proxies", "v_000001", ".mp4")
    base.storage.write(key, b"pictures")
    for n in range(20, 30):
        base.removals().add(f"yt_{n}")
    proxies = Proxies(pilot)
    assert proxies.of("v_000001")[0].url == base.url
    assert store.during(lambda: proxies.of("v_000001")) == {"head": 2, "list": 1} and not store.read
    base.removals().add("yt_1", ids=["v_000001"])
    assert proxies.of("v_000001")[0].url == pilot.url
