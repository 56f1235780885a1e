"""What a run tells of itself while it goes and afterwards: status, log, metrics, and the dashboard that shows them."""

import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import CHECKOUT, Command
from ray.cluster_utils import Cluster
from rich.console import Console

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.traces import Names, scrubbed
from marathon_pipeline.errors import UserError
from marathon_pipeline.pipeline import event_log
from marathon_pipeline.pipeline.cluster import nodes, ray_started
from marathon_pipeline.pipeline.event_log import EventLog
from marathon_pipeline.pipeline.metrics import COUNTERS, GAUGES, HISTOGRAMS
from marathon_pipeline.pipeline.purge import purge
from marathon_pipeline.pipeline.recording import Recording
from marathon_pipeline.pipeline.settings import RunSettings
from marathon_pipeline.pipeline.standing import held, run_status
from marathon_pipeline.pipeline.watcher import Load
from marathon_pipeline.publish import release_dataset
from marathon_pipeline.records import Outcome, Usage
from marathon_pipeline.sources.governor import Paused

PAGE = (CHECKOUT / "docs/observability.md").read_text()
EXPORTED = {*COUNTERS, *GAUGES, *HISTOGRAMS}
PAUSED = Paused(site="youtube", egress="shared", reason="http_429", since=0, until=time.time() + 900, given_up=False)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(str(tmp_path / "out"), create=True)


def outcome(video_id: str, stage: str = "segment", part: str = "", **more: Any) -> Outcome:
    return Outcome(**{"video_id": video_id, "stage": stage, "part": part, "status": "ok", "fingerprint": "f"} | more)


def events(dataset: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in sorted(dataset.glob("logs/*/*.jsonl")) for line in path.read_text().splitlines()
    ]


# Status


def test_a_run_tells_how_far_it_is_to_whoever_asks(dataset: Dataset, marathon: Command) -> None:
    with dataset.lease() as lease, Recording(dataset, lease, RunSettings(workers=2)) as record:
        record.does("stages")
        record.expect(4)
        record.ended([outcome("a"), outcome("b", status="failed", reason="truncated")])
        record.finished()
        record.log._nodes_at = time.monotonic()  # there is no Ray here to ask for its nodes
        record.loaded(Load(in_flight={"segment": 2}, waiting={"qa": 5}, paused=[PAUSED]))
        lease.tell(record.standing.model_dump(mode="json"), at_once=True)
        until(lambda: bool(s := run_status(dataset.storage)) and bool(s.standing) and bool(s.standing.stages))

        run = json.loads(marathon("status", "out", "--json"))["run"]
        assert (run["state"], run["host"]) == ("alive", socket.gethostname())
        standing = run["standing"]
        assert (standing["finished"], standing["expected"], standing["doing"]) == (1, 4, "stages")
        assert standing["stages"]["segment"]["reasons"] == {"truncated": 1}
        assert [stage["in_flight"] + stage["waiting"] for stage in standing["stages"].values()] == [2, 5]
        assert standing["paused"][0]["site"] == "youtube"
        said = marathon("status", "out")
        assert "under way: stages" in said and "1 of 4 videos" in said
    said = marathon("status", "out", "--watch")
    assert "ended: done" in said and "1 of 4 videos" in said, "what has ended is not waited for"


def test_a_run_that_died_is_told_from_one_that_ended(dataset: Dataset, marathon: Command) -> None:
    assert marathon("status", "out").startswith("stage"), "nobody ever worked on it"
    with dataset.lease() as lease, Recording(dataset, lease, RunSettings(workers=2)):
        pass
    (key,) = dataset.storage.keys("lease")
    held = json.loads(dataset.storage.read(key))
    held |= {"released": False, "process_started": 0, "alive": time.time() - 3600}
    dataset.storage.write(key, json.dumps(held).encode())
    said = marathon("status", "out")
    assert " died (" in said and "heard of 1:00:0" in said and "run the same command again" in said


@pytest.mark.parametrize("ended", ["done", "died"])
def test_a_purge_or_a_release_does_not_hide_the_run_before_it(dataset: Dataset, marathon: Command, ended: str) -> None:
    with dataset.lease() as lease, Recording(dataset, lease, RunSettings(workers=2)) as record:
        record.expect(3)
    if ended == "died":
        (key,) = dataset.storage.keys("lease")
        told = json.loads(dataset.storage.read(key)) | {"released": False, "process_started": 0}
        dataset.storage.write(key, json.dumps(told).encode())
    before = run_status(dataset.storage)
    assert before and before.standing and before.standing.expected == 3
    purge(dataset.url, [])
    dataset.storage.write("job.yaml", f"dataset: {dataset.url}\ninputs: [a.jsonl]\n".encode())
    with pytest.raises(UserError, match="nothing to release"):
        release_dataset(dataset.url, "demo", "", Console())
    assert run_status(dataset.storage) == before
    assert f" {ended}" in marathon("status", "out")
    with held(dataset):
        until(lambda: "last_run" in dataset.storage.read(dataset.storage.keys("lease")[-1]).decode())
        assert "in use   by host" in marathon("status", "out")


def test_a_finished_run_is_on_record(built: Path) -> None:
    run = run_status(Dataset(str(built / "out")).storage)
    assert run and run.standing and (run.state, run.standing.doing) == ("released", "done")
    assert run.standing.expected == run.standing.finished == 3


# Log


def documented_events() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", PAGE, re.MULTILINE)
    return {event: set(re.findall(r"`(\w+)`", fields)) for event, fields in rows}


def test_the_log_of_a_run_holds_what_its_page_says(built: Path) -> None:
    found, documented = events(built / "out"), documented_events()
    assert {event["event"] for event in found} == {"run_began", "step_began", "node_joined", "work_ended", "run_ended"}
    for event in found:
        assert event.keys() <= {"time", "event"} | documented[event["event"]], event
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    assert found[-1]["how"] == "done" and found[-1]["stages"]["verify"]["ok"] == 66
    work = [event for event in found if event["event"] == "work_ended"]
    assert len(work) == 7 * 3, "a line for a video's work in a stage, whatever its tasks"


def test_the_log_tells_of_pauses_deaths_and_the_end(dataset: Dataset) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        dataset.lease() as lease,
        Recording(dataset, lease, RunSettings(workers=2)) as record,
    ):
        record.log._nodes_at = time.monotonic()  # there is no Ray here to ask for its nodes
        for paused in ([PAUSED], [PAUSED], []):
            record.loaded(Load(paused=paused))
        record.killed("segment", "a", "worker_died")
        record.ended(
            [outcome("a", "qa", "order"), outcome("a", "qa", "gap", status="failed", reason="refused", host="node7")]
        )
        record.stopping("told to by a signal")
        raise KeyboardInterrupt
    found = events(Path(dataset.url))
    assert [event["event"] for event in found] == [
        "run_began",
        "site_paused",
        "site_resumed",
        "work_killed",
        "work_ended",
        "stopping",
        "run_ended",
    ]
    assert (found[4]["ok"], found[4]["failed"], found[4]["host"]) == (1, {"refused": 1}, "node7")
    assert (found[6]["how"], found[6]["error"]) == ("broke off", "interrupted")
    for event in found:
        assert event.keys() <= {"time", "event"} | documented_events()[event["event"]], event


def test_the_log_does_not_bring_back_what_a_takedown_took_out(dataset: Dataset) -> None:
    log = EventLog(dataset.storage, "r")
    log.ended([outcome("yt_gone")])
    log.ended([outcome("yt_stays")])
    log.flush()
    (key,) = dataset.storage.keys("logs")
    dataset.storage.write(key, scrubbed(key, dataset.storage.read(key), Names(["yt_gone"])))
    log.stopping("told to by a signal")
    log.flush()
    assert [event.get("video_id") for event in events(Path(dataset.url))] == ["yt_stays", None]


def test_a_long_log_lies_in_several_files(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_SEGMENT_BYTES", 1000)
    log = EventLog(dataset.storage, "r")
    for number in range(40):
        log.ended([outcome(f"v{number}")])
        log.flush()
    assert len(dataset.storage.keys("logs")) > 3
    assert [event["video_id"] for event in events(Path(dataset.url))] == [f"v{number}" for number in range(40)]


@pytest.mark.slow
def test_the_log_tells_of_nodes_that_are_lost(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_NODES_SECONDS", 0.0)
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        log = EventLog(dataset.storage, "r")
        log.loaded(Load())
        node = cluster.add_node(num_cpus=1)
        log.loaded(Load())
        cluster.remove_node(node)
        until(lambda: len(nodes()) == 1)
        log.loaded(Load())
        log.flush()
    finally:
        ray.shutdown()
        cluster.shutdown()
    found = events(Path(dataset.url))
    assert [event["event"] for event in found] == ["node_joined", "node_joined", "node_lost"]
    assert found[1]["node"] == found[2]["node"] != found[0]["node"]


# Metrics


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHECKOUT / "jobs/grafana.json").read_text())
    return found


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def alarms() -> list[str]:
    told = PAGE.partition("What to be told of at night:")[2]
    return [" ".join(lines.split()) for lines in re.findall(r"^    #.*\n((?:    .+\n)+)", told, re.MULTILINE)]


def shown_metrics() -> set[str]:
    names = {name for each in expressions() for name in re.findall(r"\bray_\w+", each)}
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


def test_the_dashboard_and_the_alarms_name_metrics_that_there_are_by_labels_that_they_have() -> None:
    own = {name.removeprefix("ray_") for name in shown_metrics() if "marathon" in name}
    assert own <= EXPORTED
    assert {name for each in alarms() for name in re.findall(r"ray_(marathon_\w+)", each)} <= EXPORTED
    labels = {name: each.labels for name, each in (COUNTERS | GAUGES | HISTOGRAMS).items()}
    for each in (*expressions(), *alarms()):
        names = [re.sub("_bucket$", "", name) for name in re.findall(r"ray_(marathon_\w+)", each)]
        for by in re.findall(r"by \(([\w, ]+)\)", each) if names else ():
            known = {label for name in names for label in labels[name]} | {"dataset", "le", "NodeAddress"}
            assert set(by.split(", ")) <= known, each


def test_the_first_kill_failure_or_loss_is_seen_and_a_run_that_never_finishes_a_video_is_told_of() -> None:
    """To Prometheus no count is an increase that a series begins with, and none that one scrape alone tells."""
    for each in expressions():
        assert "increase(" not in each and "$__interval" not in each, each
        for rated in re.findall(r"rate\(ray_marathon_(\w+(?:{.*?})?)", each):
            assert not re.match("kills_total|lost_total|outcomes_total", rated), each
    assert alarms()
    for each in alarms():
        fires = each.partition(" unless ")[0]
        assert "rate(" not in fires and "increase(" not in fires, each


def test_the_dashboard_is_one() -> None:
    """What Grafana's model of a dashboard asks for, and no panel over another."""
    found = dashboard()
    assert found["schemaVersion"] >= 36 and found["uid"] and found["title"]
    variables = {variable["name"]: variable for variable in found["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["dataset"]["type"] == "query"
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"} and target["refId"]


def test_the_page_lists_every_metric() -> None:
    listed = set(re.findall(r"^\| `(marathon_\w+)` \|", PAGE, re.MULTILINE))
    assert listed == EXPORTED


def test_a_port_of_metrics_that_is_taken_is_said_in_one_line() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        settings = RunSettings(workers=1, metrics_port=port)
        with pytest.raises(UserError, match=f"run.metrics_port {port}: cannot be listened on"), ray_started(settings):
            pass


def until(holds: Any, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def scraped(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return str(page.read().decode())
    except OSError:
        return ""


def value(page: str, name: str, **labels: str) -> float:
    lines = [line for line in page.splitlines() if line.startswith(f"ray_{name}{{")]
    wanted = [f'{label}="{text}"' for label, text in labels.items()]
    (line,) = (line for line in lines if all(each in line for each in wanted))
    return float(line.rpartition(" ")[2])


@pytest.mark.slow
def test_ray_exports_what_the_dashboard_shows(dataset: Dataset) -> None:
    """A Ray that a run starts, its metrics told to it as the loop does, and its page as Prometheus gets it."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    usage = Usage(model="writer", requests=3, prompt_tokens=50, cached_tokens=20, completion_tokens=9, gpu_seconds=4)
    known = outcome("a", "qa", "order", usage=(usage,))
    dataset.ledger.append([known])
    more = usage.model_copy(update={"requests": 5, "completion_tokens": 10, "gpu_seconds": 4.5})
    settings = RunSettings(workers=1, metrics_port=port)
    with dataset.lease() as lease, Recording(dataset, lease, settings) as record, ray_started(settings):
        record.expect(4)
        record.loaded(Load(in_flight={"segment": 2}, waiting={"qa": 5}, paused=[PAUSED]))
        record.ended([outcome("a", seconds=3.0, video_seconds=60.0, items=7, lost={"rejected": 2})])
        record.ended([outcome("b", seconds=5.0, status="failed", reason="truncated")])
        record.ended([outcome("a", "qa", "order", usage=(more,))])
        record.killed("segment", "c", "worker_died")
        record.finished()
        record.loaded(Load(in_flight={"segment": 1}))
        until(lambda: "ray_marathon_videos_finished_total{" in scraped(port))
        until(lambda: "ray_node_disk_free{" in scraped(port))
        page = scraped(port)

    names = set(re.findall(r"^# TYPE (ray_\w+) ", page, re.MULTILINE))
    assert {name for name in names if "marathon" in name} == {f"ray_{name}" for name in EXPORTED}
    assert shown_metrics() <= names
    kinds = dict(re.findall(r"^# TYPE ray_(marathon_\w+) (\w+)$", page, re.MULTILINE))
    assert {kinds[name] for name in COUNTERS} == {"counter"} and {kinds[name] for name in GAUGES} == {"gauge"}
    assert value(page, "marathon_outcomes_total", stage="segment", status="failed", reason="truncated") == 1
    assert value(page, "marathon_work_seconds_total", stage="segment") == 8
    assert value(page, "marathon_requests_total", model="writer") == 2, "what was on record is not counted again"
    assert value(page, "marathon_tokens_total", model="writer", kind="answer") == 1
    assert value(page, "marathon_in_flight", stage="segment") == 1
    assert value(page, "marathon_waiting", stage="qa") == 0
    assert value(page, "marathon_videos_left", dataset=dataset.url) == 3
    assert value(page, "marathon_stage_seconds_count", stage="segment") == 2
