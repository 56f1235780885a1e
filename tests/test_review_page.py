"""`marathon review`: who may ask the server what, and the page driven in a real browser."""

import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import Command
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import Verdict
from marathon_pipeline.review.deal import deal
from marathon_pipeline.review.desk import Desk
from marathon_pipeline.review.server import app_of, is_loopback, serve
from marathon_pipeline.taxonomy import load_taxonomy

if TYPE_CHECKING:
    from playwright.sync_api import Page

GATES = "dataset: [{measure: reviewed_sound, least: 0.9, fewest: 22}, {measure: agreement, least: 0.5, fewest: 1}]"
STANDARDS = Standards(
    load_taxonomy(), Gates.model_validate({"dataset": [{"measure": "reviewed_sound", "least": 0.9, "fewest": 1}]})
)


@pytest.fixture(scope="module")
def source(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the dataset that nobody judges; the tests judge copies of it."""
    folder = tmp_path_factory.mktemp("review") / "out"
    shutil.copytree(built / "out", folder, ignore=shutil.ignore_patterns("releases", "media", "originals"))
    return folder


def desk_of(folder: Path, per_task: int = 1, seed: int = 0) -> Desk:
    dataset = Dataset(str(folder))
    reviews = dataset.reviews()
    dealt = deal(dataset, STANDARDS, reviews, per_task, seed, lambda done, total: None)
    return Desk(dealt, reviews, dataset.removals(), STANDARDS)


@pytest.fixture
def folder(source: Path) -> Iterator[Path]:
    """The dataset, of which nothing is judged yet."""
    yield source
    for left in ("reviews", "removals"):
        shutil.rmtree(source / left, ignore_errors=True)


@pytest.fixture
def fresh(folder: Path) -> TestClient:
    return client_of(folder)


@pytest.fixture(scope="module")
def client(source: Path) -> TestClient:
    """For tests that judge nothing, or do not mind what is judged already."""
    return client_of(source)


def client_of(folder: Path, token: str = "", host: str = "127.0.0.1:8642") -> TestClient:
    app = app_of(desk_of(folder), Dataset(str(folder)).storage, "out", token)
    return TestClient(app, base_url=f"http://{host}", follow_redirects=False)


def table(client: TestClient, reviewer: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/table", params={"reviewer": reviewer}).json()
    return found


def say(client: TestClient, reviewer: str, item: dict[str, Any], verdict: str, **more: str) -> Any:
    body = {"reviewer": reviewer, "qa_id": item["qa_id"], "shown": item["shown"], "verdict": verdict} | more
    if verdict == "reject":
        body.setdefault("reason", "wrong_answer")
    return client.post("/api/judgements", json=body)


def state(client: TestClient, reviewer: str, item: dict[str, Any]) -> str:
    return next(each["state"] for each in table(client, reviewer)["items"] if each["qa_id"] == item["qa_id"])


def test_the_deal_is_of_every_task_and_format_accepted_alone_and_the_same_each_time(source: Path) -> None:
    dataset = Dataset(str(source))
    problems = {
        verdict.qa_id
        for video in dataset.finished()
        for verdict in dataset.tables.read(Verdict, video.video_id)
        if verdict.problems
    }
    dealt = list(desk_of(source, per_task=4).table("Ada").items)
    assert not problems & {each.qa_id for each in dealt}
    assert dealt == list(desk_of(source, per_task=4).table("Ada").items)
    assert dealt != list(desk_of(source, per_task=4, seed=1).table("Ada").items)
    counts = [sum(each.task == task for each in dealt) for task in STANDARDS.taxonomy.tasks]
    assert max(counts) == 4
    assert {each.format for each in dealt if each.task == "object_recognition"} == {"open", "choice"}
    # whoever stops early has judged a sample of all tasks
    assert len({each.task for each in dealt[:20]}) == 20


def test_reviewers_are_blind_to_each_other_and_to_what_was_measured(fresh: TestClient) -> None:
    first = table(fresh, "Ada")["items"][0]
    assert say(fresh, "Ada", first, "reject", note="a secret of Ada").status_code == 200
    seen = fresh.get("/api/table", params={"reviewer": "Ben"}).text
    assert "secret" not in seen and "Ada" not in seen
    assert not {"verdict", "problems", "evidence_seconds"} & set(json.loads(seen)["items"][0])
    assert state(fresh, "Ben", first) == "open" and state(fresh, "ADA ", first) == "reject"


def test_a_dispute_is_shown_when_nothing_waits_and_a_third_person_settles_it(fresh: TestClient) -> None:
    items = table(fresh, "Ada")["items"]
    for each in items:
        say(fresh, "Ada", each, "accept")
    first, *rest = items
    say(fresh, "Ben", first, "reject", note="it is green")
    assert state(fresh, "Ben", first) == "reject", "Ben is told while pairs wait for him"
    assert state(fresh, "Ada", first) == "dispute"
    assert state(fresh, "Cleo", first) == "dispute" and state(fresh, "Cleo", rest[0]) == "open"
    for each in rest:
        say(fresh, "Ben", each, "accept")
    assert state(fresh, "Ben", first) == "dispute" and state(fresh, "Cleo", rest[0]) == "full"
    told = next(each for each in table(fresh, "Cleo")["items"] if each["qa_id"] == first["qa_id"])["opinions"]
    assert [(each["reviewer"], each["verdict"], each["note"]) for each in told] == [
        ("Ada", "accept", ""),
        ("Ben", "reject", "it is green"),
    ]
    before = table(fresh, "Cleo")
    assert before["reviewed"]["disputed"] == 1
    after = say(fresh, "Cleo", first, "accept").json()
    assert (after["reviewed"]["disputed"], after["reviewed"]["whole"]["share"]) == (0, 1.0)
    assert [gate["state"] for gate in after["gates"]] == ["holds"]
    refused = say(fresh, "Ben", first, "accept")
    assert refused.status_code == 409 and "adjudicated" in refused.json()["detail"]
    assert say(fresh, "Cleo", rest[0], "reject").status_code == 409  # two agree on it


def test_who_has_pairs_to_judge_is_told_nothing_of_what_two_say_and_cannot_change_it(fresh: TestClient) -> None:
    first, *rest = table(fresh, "Ada")["items"]
    say(fresh, "Ada", first, "reject")
    assert say(fresh, "Ada", first, "accept").status_code == 200, "nobody else has judged it"
    seen = [say(fresh, "Ben", first, "reject").json(), table(fresh, "Ada")]
    assert [(each["reviewed"], each["gates"], each["progress"]["both"]) for each in seen] == [(None, [], 1)] * 2
    for name, verdict in (("Ada", "withdrawn"), ("Ada", "reject"), ("Ben", "accept")):
        refused = say(fresh, name, first, verdict)
        assert refused.status_code == 409 and "another person has judged this pair too" in refused.json()["detail"]
    for each in rest:
        say(fresh, "Ada", each, "accept")
    done = table(fresh, "Ada")
    assert done["gates"] and [(pair["judged"], pair["agreed"]) for pair in done["reviewed"]["agreement"]] == [(1, 0)]
    assert table(fresh, "Ben")["reviewed"] is None
    assert state(fresh, "Ada", first) == "dispute" and say(fresh, "Ada", first, "withdrawn").status_code == 409


def test_what_was_purged_since_is_dropped_and_no_judgement_of_it_is_kept(fresh: TestClient, folder: Path) -> None:
    first, *rest = table(fresh, "Ada")["items"]
    gone = first["video_id"]
    Dataset(str(folder)).removals().add("its-source", ids=[gone])
    assert say(fresh, "Ada", first, "accept").status_code == 409 and not (folder / "reviews").exists()
    left = [each["qa_id"] for each in rest if each["video_id"] != gone]
    assert [each["qa_id"] for each in table(fresh, "Ada")["items"]] == left and left
    assert fresh.get(f"/media/{gone}.mp4").status_code == 404


def test_what_was_said_can_be_taken_back_and_said_again(fresh: TestClient) -> None:
    first = table(fresh, "Ada")["items"][0]
    say(fresh, "Ada", first, "reject", reason="unclear")
    assert say(fresh, "Ada", first, "withdrawn").json()["progress"]["mine"] == 0
    assert state(fresh, "Ada", first) == "open"
    say(fresh, "Ada", first, "accept")
    assert state(fresh, "Ada", first) == "accept"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"verdict": "reject", "reason": "bad_luck"}, 409),
        ({"verdict": "reject", "reason": "other"}, 409),
        ({"verdict": "perhaps"}, 409),
        ({"reviewer": " "}, 409),
        ({"qa_id": "nowhere"}, 409),
        ({"shown": "something else"}, 409),
        ({"qa_id": 7}, 422),
        ({"more": "x"}, 422),
        ({"note": "x" * 2001}, 422),
    ],
)
def test_what_is_no_judgement_is_refused_and_nothing_is_kept(
    more: dict[str, Any], status: int, client: TestClient, source: Path
) -> None:
    first = table(client, "Ada")["items"][0]
    body = {"reviewer": "Ada", "qa_id": first["qa_id"], "shown": first["shown"], "verdict": "accept"} | more
    before = len(list(source.rglob("reviews/*/*/*.json")))
    assert client.post("/api/judgements", json=body).status_code == status
    assert len(list(source.rglob("reviews/*/*/*.json"))) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8642"}, 200),
        ({}, 200),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example:8642"}, 403),
        ({"host": "evil.example:8642", "origin": "http://evil.example:8642"}, 403),  # a name that was rebound
        ({"host": "localhost:9000", "origin": "http://localhost:9000"}, 200),  # a forwarded port
    ],
)
def test_no_other_site_can_judge(headers: dict[str, str], status: int, client: TestClient) -> None:
    first = table(client, "Ada")["items"][0]
    body = {"reviewer": "Ada", "qa_id": first["qa_id"], "shown": first["shown"], "verdict": "accept"}
    assert client.post("/api/judgements", json=body, headers=headers).status_code == status


def test_what_cannot_be_read_or_kept_is_said_in_one_line(
    folder: Path, fresh: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = table(fresh, "Ada")["items"][0]

    def full(*_: object) -> bool:
        raise Failed("storage", "reviews: no space left on device")

    monkeypatch.setattr(Storage, "create", full)
    kept = say(fresh, "Ada", first, "accept")
    assert (kept.status_code, kept.json()) == (503, {"detail": "reviews: no space left on device"})
    damaged = folder / "reviews" / "00" / "v1" / "q1-0-0001.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    read = fresh.get("/api/table", params={"reviewer": "Ada"})
    assert read.status_code == 503 and "q1-0-0001.json is no judgement" in read.json()["detail"]
    assert [len(record.getMessage().splitlines()) for record in caplog.records if record.levelname == "ERROR"] == [1, 1]
    assert not any(record.exc_info for record in caplog.records)


def test_beyond_this_machine_nobody_is_let_in_without_the_token(folder: Path) -> None:
    client = client_of(folder, token="s3cret", host="10.0.0.7:8642")
    for path in ("/", "/review.js", "/api/table?reviewer=Ada", "/media/x.mp4", "/?token=wrong", "/?token=é"):
        assert client.get(path).status_code == 401
    assert client.post("/api/judgements", json={}).status_code == 401
    first = client.get("/?token=s3cret")
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(first.headers["set-cookie"].split("; "))
    assert client.get("/").status_code == 200 and client.get("/api/about").status_code == 200
    other = client_of(folder, token="s3cret", host="10.0.0.7:8642")
    assert other.get("/api/about", headers={"authorization": "Bearer s3cret"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.7", False), ("", False)],
)
def test_what_is_this_machine_alone(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_the_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    page = Path(__file__).parent.parent / "marathon_pipeline/review/page"
    assert not any(re.search(r"https?://|innerHTML", file.read_text()) for file in page.iterdir())


@given(st.integers(0, 400), st.one_of(st.none(), st.integers(0, 400)), st.integers(1, 300))
def test_a_stretch_of_a_video_is_what_was_asked_for(
    tmp_path_factory: pytest.TempPathFactory, source: Path, start: int, end: int | None, last: int
) -> None:
    client, whole = _video_client(source)
    found = client.get(f"/media/{VIDEO}.mp4", headers={"range": f"bytes={start}-{'' if end is None else end}"})
    wanted = whole[start : None if end is None else end + 1]
    assert (found.status_code, found.content) == ((206, wanted) if wanted else (416, b""))
    if wanted:
        assert found.headers["content-range"] == f"bytes {start}-{start + len(wanted) - 1}/{len(whole)}"
    assert client.get(f"/media/{VIDEO}.mp4", headers={"range": f"bytes=-{last}"}).content == whole[-last:]


VIDEO = "synthetic_5_000"
_clients: dict[Path, tuple[TestClient, bytes]] = {}


def _video_client(source: Path) -> tuple[TestClient, bytes]:
    """Of a short text in place of the proxy, on the side."""
    if source not in _clients:
        folder = source.parent / "short"
        shutil.copytree(source, folder)
        whole = bytes(range(256)) + b"end"
        (folder / media_key("proxies", VIDEO, ".mp4")).write_bytes(whole)
        _clients[source] = client_of(folder), whole
    return _clients[source]


def test_a_video_that_was_not_dealt_is_not_there(client: TestClient, source: Path) -> None:
    assert client.get("/media/..%2f..%2fdataset.mp4").status_code == 404
    assert client.get("/media/other.mp4").status_code == 404
    found = client.get(f"/media/{VIDEO}.mp4")
    assert (found.status_code, found.headers["content-type"]) == (200, "video/mp4")
    assert found.content == (source / media_key("proxies", VIDEO, ".mp4")).read_bytes()


def served(marathon: Command, *arguments: object) -> tuple["subprocess.Popen[str]", str]:
    process = marathon.start("review", "out", "--port", 0, *arguments)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("review  http://"), line
    return process, line.split()[1]


def ended(process: "subprocess.Popen[str]") -> str:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in out + err
    return err


@pytest.fixture(scope="module")
def browser() -> "Iterator[Any]":
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        pytest.skip("no Chromium on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        yield browser
        browser.close()


def sign_in(browser: Any, url: str, name: str) -> "Page":
    page: Page = browser.new_context().new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(url)
    page.get_by_label("Name").fill(name)
    page.keyboard.press("Enter")
    page.locator("article").wait_for()
    return page


def until(page: "Page", what: str) -> None:
    """Playwright's own waiting evaluates strings in the page, which its policy forbids."""
    for _ in range(200):
        if page.evaluate(what):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {what}")


@pytest.mark.slow
def test_a_reviewer_judges_blind_plays_the_evidence_and_sees_the_gates_when_nothing_waits(
    browser: Any, folder: Path
) -> None:
    (folder.parent / "gates.yaml").write_text(GATES)
    desk = desk_of(folder)
    for item in desk.table("Ada").items:
        for name in ("Ada", "Ben") if item.task != "object_recognition" else ():
            desk.judge(name, item.qa_id, item.shown, "reject", "unclear", "")
    process, url = served(Command(folder.parent), "--per-task", 1, "--gates", "gates.yaml")
    try:
        ada, ben = (sign_in(browser, url, name) for name in ("Ada", "Ben"))
        for page in (ada, ben):
            assert "you judge blind" in page.locator("#gates").inner_text()
            assert page.locator("#agreement").inner_text() == ""
            page.get_by_label("Task").select_option("object_recognition")
            assert page.locator("#list li").count() == 1
            page.locator("#list button").click()
            assert page.locator(".over .task").inner_text() == "Object Recognition"

        video = "document.querySelector('video')"
        until(ben, f"{video}.readyState >= 2 && !{video}.seeking")
        start = ben.evaluate(f"{video}.currentTime")
        ben.keyboard.press(".")
        ben.keyboard.press(" ")
        until(ben, f"!{video}.paused && {video}.currentTime > {start} + 0.2")
        assert ben.evaluate(f"{video}.videoWidth") > 0

        def rejects() -> None:
            for key in ("r", "1"):
                ben.keyboard.press(key)
            ben.get_by_text("not judged").first.wait_for()  # nothing waits for him any more

        rejects()
        ben.keyboard.press("u")
        ben.get_by_text("you judge blind").wait_for()
        rejects()
        ada.keyboard.press("a")
        ada.locator("#gates .broken").wait_for()
        gate = ada.locator("#gates li").first
        assert "reviewed sound" in gate.inner_text() and "0 %" in gate.inner_text()
        assert "Ada and Ben agree on 21 of 22, kappa" in ada.locator("#agreement").inner_text()
        ben.keyboard.press("u")
        ben.get_by_text("another person has judged this pair too").wait_for()

        before = gate.inner_text()
        for page in (ben, ada):
            page.reload()
            page.locator("#list .dispute").wait_for()
            page.keyboard.press("a")
            page.locator("#list .ruled").wait_for()
        assert "reviewed sound" in gate.inner_text() and gate.inner_text() != before
        for width in (1280, 390):
            ben.set_viewport_size({"width": width, "height": 844})
            assert ben.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        said = ended(process)
    assert "stopped" in said
    assert len(list(folder.rglob("reviews/*/*/*.json"))) == 2 * 21 + 4 + 2  # what was taken back stays on record


def test_a_port_that_is_taken_is_said(source: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: .*give another one"):
            serve(desk_of(source), Dataset(str(source)).storage, "out", "127.0.0.1", port, print)
