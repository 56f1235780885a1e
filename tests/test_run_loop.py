"""What the run's loop decides, without Ray under it: outcomes are handed to it as workers would hand them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.hour_llava.features import FeatureSettings
from marathon_pipeline.pipeline.plan import Planner, Selection, Work
from marathon_pipeline.pipeline.run import _died, _Loop
from marathon_pipeline.pipeline.settings import RunSettings
from marathon_pipeline.pipeline.spending import Budget
from marathon_pipeline.pipeline.stage_list import ANNOTATED, StageSettings, build_stages
from marathon_pipeline.pipeline.standing import Account
from marathon_pipeline.records import Outcome, Source
from marathon_pipeline.sources.settings import LimitSettings
from marathon_pipeline.stages.extract_features import ExtractFeatures
from marathon_pipeline.stages.stage import Stage
from marathon_pipeline.taxonomy import TASK_IDS, load_taxonomy

SOURCE = Source(source_id="s", url="https://site.example/s.mp4")
ORIGINAL = media_key("originals", "s", ".mp4")
CUT = Selection(until="segment")


class World:
    """A dataset of one source, which holds the videos `a` and `b`, and one run on it after another."""

    def __init__(self, folder: Path) -> None:
        self.dataset = Dataset(str(folder), create=True)
        self.account = Account()
        self.sources = {"s": SOURCE}

    def stages(self) -> tuple[Stage, ...]:
        writers = dict.fromkeys(ANNOTATED, Measured())
        return build_stages(StageSettings(), writers, load_taxonomy(), TASK_IDS, self.dataset.storage)

    @contextmanager
    def run(self, selection: Selection = CUT) -> Iterator[_Loop]:
        """It has found what is ready."""
        self.account = Account()
        settings, limits = RunSettings(workers=4), LimitSettings()
        with self.dataset.lease() as lease:
            loop = _Loop(self.dataset, self.stages(), self.sources, settings, selection, lease, self.account, limits)
            loop.keep_to(Budget(), {})
            loop.fill()
            yield loop
            assert not loop.waiting, "the test left work"
            assert self.account.standing.finished == self.account.standing.expected

    @property
    def finished(self) -> list[str]:
        return [video.video_id for video in self.dataset.finished()]

    def is_kept(self) -> bool:
        return self.dataset.storage.exists(ORIGINAL)

    def fetch(self, loop: _Loop) -> None:
        work = next_of(loop, "download")
        self.dataset.storage.write(ORIGINAL, b"bytes")
        loop.commit(work, [ended(work, videos=("a", "b"))])

    def cut(self, loop: _Loop, **fields: object) -> None:
        """The next video; with the fields of a failure, where they are given."""
        work = next_of(loop, "segment")
        loop.commit(work, [ended(work, **fields)])
        verified = Outcome(video_id=work.owner, stage="verify", part="t", status="ok", fingerprint="f")
        self.dataset.ledger.append([verified])


def next_of(loop: _Loop, stage: str) -> Work:
    work = loop.pick()
    assert work is not None and work.stage.name == stage
    return work


def ended(work: Work, **fields: object) -> Outcome:
    (fingerprint,) = work.stale.values()
    status = "failed" if "reason" in fields else "ok"
    outcome = Outcome(video_id=work.owner, stage=work.stage.name, status=status, fingerprint=fingerprint)
    return outcome.model_copy(update=fields)


class Listed(Storage):
    """It counts what is asked of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lists: Counter[str] = Counter()

    def keys(self, prefix: str) -> list[str]:
        self.lists[prefix.partition("/")[0]] += 1
        return super().keys(prefix)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_original_is_kept_for_a_video_whose_cut_failed_for_now(world: World) -> None:
    with world.run() as loop:
        world.fetch(loop)
        world.cut(loop)
        world.cut(loop, reason="storage", transient=True)
    assert world.is_kept()
    with world.run() as loop:  # which looks for leftovers
        assert world.is_kept()
        world.cut(loop)
    assert not world.is_kept()


def test_an_original_is_deleted_where_what_is_not_cut_failed_for_good(world: World) -> None:
    with world.run() as loop:
        world.fetch(loop)
        world.cut(loop)
        world.cut(loop, reason="no_video")
    assert not world.is_kept()


@pytest.mark.parametrize("transient", [False, True])
def test_a_source_that_is_not_had_once_more_takes_no_finished_video_with_it(world: World, transient: bool) -> None:
    with world.run() as loop:
        world.fetch(loop)
        world.cut(loop)
        world.cut(loop, reason="storage", transient=True)
    world.dataset.storage.remove(ORIGINAL)
    with world.run() as loop:
        work = next_of(loop, "download")
        loop.commit(work, [ended(work, reason="http_404", message="not found", transient=transient)])
        (failed,) = loop.result.failed
    assert world.finished == ["a"]
    assert (failed.video_id, failed.stage, failed.reason, failed.attempts) == ("b", "segment", "http_404", 2)
    retry = Selection(until="segment", retry_failed=None if transient else "http_404")
    if not transient:
        with world.run() as loop:
            assert not loop.waiting, "it is asked for again unasked"
    with world.run(retry) as loop:
        world.fetch(loop)
        world.cut(loop)
    assert world.finished == ["a", "b"]


@pytest.mark.parametrize("until", ["segment", "download"])
def test_a_forced_download_that_fails_takes_no_other_video_with_it(world: World, until: str) -> None:
    with world.run() as loop:
        world.fetch(loop)
        world.cut(loop)
        world.cut(loop)
    with world.run(Selection(videos=frozenset({"b"}), force=True, until=until)) as loop:
        work = next_of(loop, "download")
        loop.commit(work, [ended(work, reason="removed")])
        assert [failed.reason for failed in loop.result.failed] == ["removed"]
    assert "a" in world.finished


@pytest.mark.parametrize(("alone", "attempts", "transient"), [(False, 5, True), (True, 0, True), (True, 1, False)])
def test_only_a_death_with_nothing_else_under_way_condemns(
    world: World, alone: bool, attempts: int, transient: bool
) -> None:
    work = Work(world.stages()[1], "a", "s", stale={"": "f"}, attempts={"": attempts})
    (outcome,) = _died(work, RuntimeError("its node died\nand more"), alone=alone)
    assert (outcome.transient, outcome.attempts) == (transient, attempts + 1)
    assert outcome.message.endswith("(its node died)") and alone == ("nothing else" in outcome.message)


def test_originals_are_listed_once_however_many_wait_to_be_cut(world: World) -> None:
    ids = [f"s{number}" for number in range(20)]
    world.sources = {each: SOURCE.model_copy(update={"source_id": each}) for each in ids}
    planner = Planner(world.stages(), world.dataset.ledger, CUT)
    for each in ids:
        work = planner.of_source(world.sources[each])
        world.dataset.storage.write(media_key("originals", each, ".mp4"), b"bytes")
        world.dataset.ledger.append([ended(work, videos=(each,))])
    world.dataset.storage = storage = Listed(world.dataset.url)
    with world.run() as loop:
        for _ in ids:
            world.cut(loop)
    assert storage.lists["originals"] == 1
    assert storage.keys("originals") == []


def test_what_was_purged_is_dropped_also_where_the_dataset_has_read_of_it_before_the_run(world: World) -> None:
    world.dataset.removals()
    with world.run() as loop:
        Dataset(world.dataset.url).removals().add("s")
        assert not world.finished and world.dataset.removals().entries
        loop.flush(always=True)
        assert not loop.waiting


def test_gpu_work_is_begun_for_the_gpus_that_there_are_and_takes_workers_places_where_there_is_none(
    world: World,
) -> None:
    if find_spec("torch") is None or find_spec("transformers") is None:
        pytest.skip("needs torch and transformers")
    with world.run() as loop:
        world.fetch(loop)
        world.cut(loop)
        world.cut(loop)
        segment, features = world.stages()[1], ExtractFeatures(FeatureSettings(tower="none"), world.dataset.storage)
        loop.rank["extract_features"] = 9
        for stage, count in ((segment, 9), (features, 9)):
            for number in range(count):
                loop.push(Work(stage, f"v{number}", "s"))

        def begun() -> Counter[str]:
            before = len(loop.in_flight)
            while work := loop.pick():
                loop.in_flight[len(loop.in_flight)] = work, 2
            return Counter(work.stage.name for work, _ in list(loop.in_flight.values())[before:])

        loop.gpus = 2
        assert begun() == {"extract_features": 2, "segment": 5}  # one more than workers
        loop.in_flight.clear()
        loop.gpus = 0  # both were on the node that is lost
        assert begun() == {"extract_features": 5}
        loop.in_flight.clear()
        loop.gpus = 1
        assert begun() == {"extract_features": 1, "segment": 4}
        for queue in loop.queues():
            queue.clear()
