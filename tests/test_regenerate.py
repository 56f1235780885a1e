"""Pilots, regeneration of what gates or people reject, frozen splits, and the check of a release."""

import asyncio
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from by_hand import TAXONOMY, ByHand, annotator, good
from fastapi.testclient import TestClient
from rows_of_base import base_of_rows
from test_end_to_end import copy_of, hashes

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.annotators.served.pool import Reply, Request
from marathon_pipeline.audit.report import write_audit
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.config import parse_job
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.reviews import Judged, Judgement
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.gates import Gates
from marathon_pipeline.job import plan_job
from marathon_pipeline.pipeline.pilot import Base
from marathon_pipeline.pipeline.plan import REJECTED, Planner, Selection, Work, whole_plan
from marathon_pipeline.pipeline.rejected import Rejected, find_rejected
from marathon_pipeline.pipeline.stage_list import ANNOTATED, StageSettings, build_stages
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import QAPair, Verdict
from marathon_pipeline.review.deal import deal
from marathon_pipeline.review.desk import Desk
from marathon_pipeline.review.server import app_of
from marathon_pipeline.stages.stage import Stage

TASKS = ("temporal_order", "object_attribute")
MAX_TRIES = 2


class World:
    """A pilot of a few videos, worked on in this process; `sender` counts what is asked."""

    def __init__(self, folder: Path, videos: int = 3, sender: ByHand | None = None) -> None:
        base_of_rows(folder / "base", videos)
        self.base = Base(str(folder / "base"), str(folder / "pilot"), Selection())
        self.pilot = Dataset(str(folder / "pilot"), create=True)
        self.sources = self.base.choose(self.pilot, None, 0)
        self.base.copy(self.pilot, self.sources)
        self.sender = sender or ByHand()
        self.selection = Selection(since="qa")

    def again(self) -> None:
        """As another process finds it."""
        self.pilot = Dataset(self.pilot.url)

    def stages(self) -> tuple[Stage, ...]:
        writers = dict.fromkeys(ANNOTATED, Measured()) | {"qa": annotator(self.sender)}
        return build_stages(StageSettings(), writers, TAXONOMY, TASKS, self.pilot.storage)

    def works(self, selection: Selection) -> list[Work]:
        planner = Planner(self.stages(), self.pilot.ledger, selection)
        return [work for work in whole_plan(planner, list(self.sources.values()), selection) if work.stale]

    def do(self, work: Work, *, record: bool = True) -> None:
        order = Order(
            owner=work.owner,
            source_id=work.source_id,
            wanted=work.stale,
            attempts=work.attempts,
            redo=work.redo,
            all_tasks=False,
            source=None,
            rounds=work.rounds,
            replace=work.replace,
        )
        outcomes = asyncio.run(carry_out(work.stage, self.pilot, order))
        if record:
            self.pilot.ledger.append(outcomes)
            self.pilot.ledger.flush()

    def run(self, selection: Selection | None = None) -> None:
        """`qa`, then `verify`."""
        for _ in range(2):
            for work in self.works(selection or self.selection):
                self.do(work)
            selection = None

    def rejected(self, gates: Gates) -> Rejected:
        planner = Planner(self.stages(), self.pilot.ledger, self.selection)
        return find_rejected(self.pilot, planner, self.sources, TASKS, gates, MAX_TRIES)

    def replacing(self, gates: Gates) -> Selection:
        return dataclasses.replace(self.selection, replace=self.rejected(gates).replace)

    def pairs(self) -> list[QAPair]:
        return [pair for name in self.sources for pair in self.pilot.tables.read(QAPair, name)]

    def reasons(self, gates: Gates) -> dict[str, bool]:
        verdicts = (verdict for name in self.sources for verdict in self.pilot.tables.read(Verdict, name))
        return {verdict.qa_id: bool(gates.reasons(verdict)) for verdict in verdicts}


def strict(world: World) -> Gates:
    """Gates that reject about every third pair that stands."""
    verdicts = [verdict for name in world.sources for verdict in world.pilot.tables.read(Verdict, name)]
    words = sorted(verdict.question_words for verdict in verdicts)
    return Gates.model_validate({"items": {"bounds": {"question_words": {"most": words[len(words) * 2 // 3]}}}})


def test_only_rejected_pairs_are_asked_for_again_and_the_others_stay(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run()
    gates, before, sent = strict(world), world.pairs(), len(world.sender.requests)
    bad = {qa_id for qa_id, rejected in world.reasons(gates).items() if rejected}
    parts = {(pair.video_id, pair.task, pair.format) for pair in before if pair.qa_id in bad}
    selection = world.replacing(gates)
    assert {why for work in world.works(selection) for why in work.why.values()} == {REJECTED}

    world.run(selection)
    after = world.pairs()
    assert len(after) == len(before) and bad
    for old, new in zip(before, after, strict=True):
        if old.qa_id in bad:
            assert (new.task, new.format, new.tries) == (old.task, old.format, 1) and new.question != old.question
        else:
            assert new == old
    asked = world.sender.requests[sent:]
    assert len(asked) == len(parts)
    assert all("These were asked already." in request.messages[1]["content"] for request in asked)
    assert world.reasons(gates).keys() == {pair.qa_id for pair in after}, "the new ones have no verdict"


def agree(world: World, pair: QAPair, verdict: str) -> None:
    known = Judged.of(pair)._asdict() | {"video_id": pair.video_id, "verdict": verdict}
    reason = {"reason": "unclear"} if verdict == "reject" else {}
    for name in ("Ada", "Ben"):
        world.pilot.reviews().add(Judgement.model_validate(known | reason | {"reviewer": name}))


def test_to_replace_what_people_rejected_does_not_cure_the_share_that_they_found_sound(tmp_path: Path) -> None:
    world, standards = World(tmp_path), Standards(TAXONOMY, Gates())
    world.run()
    by_gates = world.reasons(Gates())
    accepted = [pair for pair in world.pairs() if not by_gates[pair.qa_id]]
    rejected = accepted[::3]
    for pair in accepted[:-1]:  # the last one is what the others are a sample of
        agree(world, pair, "reject" if pair in rejected else "accept")
    before = survey(world.pilot, standards).reviewed
    assert before.whole.share < 0.8 and len(rejected) > 2

    world.run(world.replacing(Gates()))
    after = survey(world.pilot, standards).reviewed
    assert after.whole.model_dump(exclude={"covers"}) == before.whole.model_dump(exclude={"covers"})
    assert (after.agreement, after.signers, after.reasons) == (before.agreement, before.signers, before.reasons)
    assert (after.replaced, after.gone) == (len(rejected), 0)
    assert after.whole.covers < 1, "something is claimed of pairs that nobody looked at"
    page = world.pilot.storage.read(write_audit(world.pilot, standards, sample_per_task=0).html_key).decode()
    assert f"{len(rejected)} of them were rejected and have been replaced since" in page

    new = [each.pair for each in deal(world.pilot, standards, world.pilot.reviews(), 9, 0, lambda *_: None).dealt
           if each.pair.tries]  # fmt: skip
    assert len(new) == len(rejected)
    agree(world, new[0], "reject")
    for pair in new[1:]:
        agree(world, pair, "accept")
    world.run(world.replacing(Gates()))
    last = survey(world.pilot, standards).reviewed
    assert (last.replaced, last.whole.judged) == (len(rejected) + 1, before.whole.judged + len(new))
    others = [stratum for stratum in last.strata if stratum.replaced]
    assert (sum(each.judged for each in others), sum(each.sound for each in others)) == (len(new), len(new) - 1)


def test_each_run_makes_one_try_until_the_jobs_are_used_up(tmp_path: Path) -> None:
    world = World(tmp_path, videos=2)
    world.run()
    none = Gates.model_validate({"items": {"bounds": {"question_words": {"most": 0}}}})
    for tries in (1, 2):
        world.run(world.replacing(none))
        assert {pair.tries for pair in world.pairs()} == {tries}
        world.again()
    sent, found = len(world.sender.requests), world.rejected(none)
    assert not found.replace and found.used_up == dict.fromkeys(TASKS, 2)
    world.run(world.replacing(none))
    assert len(world.sender.requests) == sent


@pytest.mark.parametrize(("recorded", "verified"), [(False, False), (True, False), (True, True)])
def test_a_try_that_was_killed_is_gone_on_with_and_made_once(recorded: bool, verified: bool, tmp_path: Path) -> None:
    undisturbed, killed = World(tmp_path / "a"), World(tmp_path / "b")
    for world in (undisturbed, killed):
        world.run()
    gates = Gates.model_validate({"items": {"bounds": {"question_words": {"most": 0}}}})
    undisturbed.run(undisturbed.replacing(gates))

    first, *_ = killed.works(killed.replacing(gates))
    killed.do(first, record=recorded)
    if recorded and verified:
        for work in killed.works(killed.selection):
            killed.do(work)
    killed.again()
    killed.run(killed.replacing(gates))
    killed.run()
    assert killed.pairs() == undisturbed.pairs()
    assert len(killed.sender.requests) == len(undisturbed.sender.requests), "something was asked twice"


def test_a_server_that_fails_costs_nothing_that_stands(tmp_path: Path) -> None:
    def down(request: Request) -> Reply:
        raise Failed("server", "it is down", transient=True)

    def refuses(request: Request) -> Reply:
        return good(request)._replace(refusal="I cannot help with that.")

    world = World(tmp_path, videos=1)
    world.run()
    gates, before = Gates.model_validate({"items": {"bounds": {"question_words": {"most": 0}}}}), world.pairs()
    world.sender.replies = [down] * 4
    world.run(world.replacing(gates))
    assert world.pairs() == before and world.rejected(gates).replace, "it is left to a later run"
    world.sender.replies = [refuses] * 4
    world.run(world.replacing(gates))
    assert world.pairs() == before
    assert {r.tries for parts in world.rejected(gates).replace.values() for r in parts.values()} == {2}


def whys(world: World, stages: Sequence[Stage], selection: Selection) -> set[tuple[str, str]]:
    planner = Planner(stages, world.pilot.ledger, selection)
    works = whole_plan(planner, list(world.sources.values()), selection)
    return {(work.owner, work.stage.name) for work in works if work.stale or work.waiting}


def test_frozen_qa_stays_whatever_changes_and_is_verified_all_the_same(tmp_path: Path) -> None:
    world = World(tmp_path)
    frozen, *others = sorted(world.sources)
    selection = dataclasses.replace(world.selection, frozen=frozenset({frozen}))
    assert (frozen, "qa") in whys(world, world.stages(), selection), "what was never written is written"
    world.run()
    assert whys(world, world.stages(), selection) == set()

    task = TAXONOMY.tasks[TASKS[0]].model_copy(update={"version": 2})
    taxonomy = TAXONOMY.model_copy(update={"tasks": TAXONOMY.tasks | {TASKS[0]: task}})
    writers = dict.fromkeys(ANNOTATED, Measured()) | {"qa": annotator(world.sender)}
    edited = build_stages(StageSettings(), writers, taxonomy, TASKS, world.pilot.storage)
    forced = dataclasses.replace(selection, force=True)
    assert whys(world, edited, selection) == {(name, stage) for name in others for stage in ("qa", "verify")}
    assert (frozen, "qa") not in whys(world, edited, forced)

    captions = world.pilot.ledger.get("caption_clips", frozen)
    clips = world.pilot.ledger.get("segment", frozen)
    assert captions and clips
    world.pilot.ledger.append([outcome.model_copy(update={"content": "other"}) for outcome in (captions, clips)])
    assert whys(world, world.stages(), selection) == {(frozen, "verify")}
    assert whys(world, world.stages(), world.selection) == {(frozen, "qa"), (frozen, "verify")}


JOB = "dataset: out\ntasks: [temporal_order]\nmodels: {m: {model: test, endpoints: ['http://127.0.0.1:1/v1']}}\n"
ALL = Selection()
SERVED = JOB + "annotators: {qa: m}\n"


def planned(folder: Path, job: str, selection: Selection = ALL, **pilot: str) -> dict[str, int]:
    config = parse_job(job.replace("out", str(folder / "out")), "job.yaml", [])
    config = config.pilot(str(folder / pilot["base"]), str(folder / pilot["into"])) if pilot else config
    return {f"{row.stage}/{row.part}": row.stale for row in plan_job(config, [], selection, 2, 1).rows}


def test_a_plan_of_a_pilot_shows_its_work_and_writes_nothing(tmp_path: Path) -> None:
    base_of_rows(tmp_path / "base", 3)
    before = hashes(tmp_path)
    assert planned(tmp_path, SERVED, base="base", into="pilot") == {"qa/temporal_order": 2, "verify/temporal_order": 0}
    assert hashes(tmp_path) == before


@pytest.mark.parametrize(
    ("into", "said"),
    [
        ("base", "is the base itself"),
        ("other", "holds a dataset of its own"),
        ("pilot of other", "is a pilot of "),
    ],
)
def test_a_pilot_takes_no_place_that_is_taken(into: str, said: str, tmp_path: Path) -> None:
    for name in ("base", "other"):
        base_of_rows(tmp_path / name, 1)
    base = Base(str(tmp_path / "other"), str(tmp_path / "pilot of other"), Selection())
    pilot = Dataset(str(tmp_path / "pilot of other"), create=True)
    base.copy(pilot, base.choose(pilot, None, 0))
    before = hashes(tmp_path)
    with pytest.raises(UserError, match=said):
        planned(tmp_path, SERVED, base="base", into=into)
    assert hashes(tmp_path) == before


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    Dataset(str(tmp_path / "empty"), create=True)
    base_of_rows(tmp_path / "base", 1)
    base = Base(str(tmp_path / "base"), str(tmp_path / "out"), Selection())
    pilot = Dataset(str(tmp_path / "out"), create=True)
    base.copy(pilot, base.choose(pilot, None, 0))
    for said, arguments in {
        "holds no such video that is summarized": {"base": "empty", "into": "pilot"},
        "no dataset there": {"base": "nowhere", "into": "pilot"},
        "is a pilot of": {},
    }.items():
        with pytest.raises(UserError, match=said):
            planned(tmp_path, SERVED, **arguments)
    with pytest.raises(UserError, match="writes the same again"):
        planned(tmp_path, JOB, Selection(rejected=True))
    with pytest.raises(UserError, match="--split val: no source"):
        planned(tmp_path, SERVED, Selection(split="val"), base="base", into="out")
    with pytest.raises(UserError, match="a pilot takes its videos from there"):
        parse_job(SERVED + "base: b\ninputs: [m.jsonl]\n", "job.yaml", [])


def test_a_pilot_is_looked_at_with_the_videos_of_its_base_for_as_long_as_they_are_there(tmp_path: Path) -> None:
    world, standards = World(tmp_path, videos=2), Standards(TAXONOMY, Gates())
    world.run()
    base = Dataset(str(tmp_path / "base"))
    video = ["-f", "lavfi", "-i", "testsrc=size=64x36:rate=1:duration=180", "-g", "1", tmp_path / "v.mp4"]
    subprocess.run([ffmpeg_binary(), "-v", "error", *map(str, video)], check=True)
    for name in world.sources:
        base.storage.write(media_key("proxies", name, ".mp4"), (tmp_path / "v.mp4").read_bytes())
    before = hashes(tmp_path / "base")
    reviews = world.pilot.reviews()
    dealt = deal(world.pilot, standards, reviews, 9, 0, lambda *_: None)
    desk = Desk(dealt, reviews, world.pilot.removals(), standards)
    client = TestClient(app_of(desk, world.pilot.storage, "pilot"), base_url="http://127.0.0.1")
    purged, kept = (f"/media/{name}.mp4" for name in sorted(world.sources))

    def pictures() -> int:
        return world.pilot.storage.read(write_audit(world.pilot, standards).html_key).count(b"data:image/jpeg")

    assert pictures() > 0
    assert client.get(purged).content == client.get(kept).content == (tmp_path / "v.mp4").read_bytes()
    assert hashes(tmp_path / "base") == before and not list((tmp_path / "pilot").rglob("*.mp4"))
    base.removals().add(sorted(world.sources)[0])
    assert (client.get(purged).status_code, client.get(kept).status_code) == (404, 200)
    shutil.rmtree(tmp_path / "base")
    assert (pictures(), client.get(kept).status_code) == (0, 404)
    assert not (tmp_path / "base").exists()


def test_a_changed_a_lost_and_a_strange_file_of_a_release_are_found(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    release = tmp_path / "out/releases/test-1"
    assert "all are what was released" in marathon("check", "out/releases/test-1")
    (tar,) = sorted((release / "qa/temporal_order").glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    (release / "videos.parquet").unlink()
    (release / "notes.txt").write_text("mine")
    media = sorted((tmp_path / "out/media/v1").glob("*.tar"))[0]
    media.write_bytes(media.read_bytes() + b"x")
    assert sorted(marathon("check", "out/releases/test-1", code=1).splitlines()) == [
        f"media/v1/{media.name}: holds something else than what was released",
        "notes.txt: is not of the release",
        f"qa/temporal_order/{tar.name}: holds something else than what was released",
        "videos.parquet: is missing",
    ]


@pytest.mark.slow
def test_a_pilot_is_a_dataset_and_its_base_keeps_every_byte(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    before = hashes(tmp_path / "out")
    options = ("--base", "out", "--into", "pilot", "--sample", "2", "--seed", "1", "--tasks", "temporal_order")
    rows = json.loads(marathon("plan", "job.yaml", "--json", *options))
    assert {(row["stage"], row["part"], row["stale"]) for row in rows if row["stale"]} == {("qa", "temporal_order", 2)}
    assert "release  pilot/releases/test-1" in marathon("run", "job.yaml", *options)
    assert hashes(tmp_path / "out") == before
    assert not list((tmp_path / "pilot").rglob("*.mp4"))
    status = {row["stage"]: row["ok"] for row in json.loads(marathon("status", "pilot", "--json"))["stages"]}
    assert status == dict.fromkeys(("download", "segment", "caption_clips", "caption_events", "summarize"), 2) | {
        "qa": 2,
        "verify": 2,
    }
    video = sorted(path.stem for path in (tmp_path / "pilot/tables/qa").rglob("*.parquet"))[0]
    assert "temporal_order" in marathon("show", "pilot", video)
    marathon("audit", "pilot")
    marathon("check", "pilot/releases/test-1")
    assert "nothing to do" in marathon("plan", "job.yaml", *options)
    shutil.rmtree(tmp_path / "out/tables/clip_captions")
    assert "unchanged" in marathon("run", "pilot/job.yaml", "--tasks", "temporal_order"), (
        "a pilot needs nothing of its base"
    )
