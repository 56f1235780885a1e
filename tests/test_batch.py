"""Requests in files instead of at servers: what is written, what is taken back, and the dataset that comes of it."""

import asyncio
import gzip
import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request as Post
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest
import served
from conftest import Command
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.annotators.served.batch import BatchWriter
from marathon_pipeline.annotators.served.batch_results import BatchResults
from marathon_pipeline.annotators.served.pool import Request
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.dataset.journal import Asked, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, Unfinished

JOB = """
dataset: out
inputs: [VIDEOS]
segment: {min_seconds: 0}
events: {min_events: 0}
tasks: [temporal_order, overall_summarization]
models:
  seer: {model: org/seer, endpoints: [URL], frames: {count: 2, height: 112, send: images}}
  writer: {model: org/writer, endpoints: [URL]}
annotators: {caption_clips: seer, caption_events: writer, summarize: writer, qa: writer}
release: {name: test}
"""
OPENAI = TypeAdapter(CompletionCreateParamsNonStreaming)
Line = dict[str, Any]


@dataclass(frozen=True)
class Direct:
    """A dataset built by asking a server, and the job, whose server stands still from then on unless `restart`ed."""

    folder: Path
    server: served.Server

    def fresh(self, folder: Path) -> Command:
        """The same job with nothing done yet."""
        shutil.copy(self.folder / "job.yaml", folder)
        return Command(folder)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    folder = tmp_path_factory.mktemp("direct")
    Command(folder)("synth", "videos", "--videos", 2, "--minutes", 1, "--seed", 5)
    with served.running(model="org/seer,org/writer") as server:
        job = JOB.replace("URL", server.url).replace("VIDEOS", str(folder / "videos" / "manifest.jsonl"))
        (folder / "job.yaml").write_text(job)
        Command(folder)("run", "job.yaml")
        yield Direct(folder, server)


def run(marathon: Command, *arguments: object) -> tuple[int, str, str]:
    process = marathon.start("run", "job.yaml", *arguments)
    out, err = process.communicate(timeout=200)
    assert "Traceback" not in out + err, err
    return process.returncode, out, err


def waiting(folder: Path) -> list[Path]:
    """The files of requests."""
    return [path for path in sorted(folder.glob("*.jsonl")) if path.with_suffix(".index.jsonl").exists()]


def lines_of(*paths: Path) -> list[Line]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def answered(line: Line, url: str) -> Line:
    """A line of a result file, as OpenAI and vLLM write it."""
    assert (line.keys(), line["method"]) == ({"custom_id", "method", "url", "body"}, "POST")
    assert (line["url"], len(line["custom_id"])) == ("/v1/chat/completions", 64)  # no longer id is taken
    OPENAI.validate_python(line["body"])
    body = json.dumps(line["body"]).encode()
    with urlopen(Post(f"{url}/chat/completions", body, {"Content-Type": "application/json"}), timeout=60) as answer:
        response = {"status_code": 200, "request_id": "batch", "body": json.load(answer)}
    return {"id": "line", "custom_id": line["custom_id"], "response": response, "error": None}


def answer(
    folder: Path, url: str, spoil: Callable[[Path, list[Line]], list[Line]] = lambda path, lines: lines
) -> list[str]:
    """Have all files of requests answered, in any order; returns the ids."""
    ids: list[str] = []
    for path in waiting(folder):
        lines = lines_of(path)
        ids += [line["custom_id"] for line in lines]
        answers = spoil(path, [answered(line, url) for line in lines])
        random.Random(0).shuffle(answers)
        path.with_suffix(".results.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in answers))
    return ids


def failing_first(path: Path, lines: list[Line]) -> list[Line]:
    """Of the first captions one fails, one is not what was asked for, and two are each other's."""
    if path.name != "org-seer-000001.jsonl":
        return lines
    failed, *others = lines
    bad, one, other = others[:3]
    message = bad["response"]["body"]["choices"][0]["message"]
    message["content"] = message["content"][:-9]
    one["response"], other["response"] = other["response"], one["response"]
    error = {"error": {"message": "No.", "type": "InternalServerError", "code": 500}}
    return [failed | {"response": {"status_code": 500, "request_id": "r", "body": None}, "error": error}, *others]


def tables(folder: Path) -> dict[str, list[Line]]:
    """All rows, without what says how they were asked for."""
    rows = {}
    for path in sorted(folder.glob("tables/*/*/*.parquet")):
        table = pq.read_table(path)
        columns = [name for name in table.column_names if name != "binding"]
        rows[path.relative_to(folder).as_posix()] = table.select(columns).to_pylist()
    return rows


def journal(folder: Path) -> list[Line]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("journal/*/*/*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def direct_requests(direct: Direct) -> list[Line]:
    """What the journal of the direct run holds."""
    return [line for line in journal(direct.folder / "out") if "request" in line]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_rounds_of_batches_give_the_dataset_of_a_direct_run(direct: Direct, marathon: Command) -> None:
    folder = marathon.folder / "requests"
    direct.fresh(marathon.folder)
    code, out, err = run(marathon, "--batch", "requests")
    asked: list[str] = []
    rounds = 0
    while code == 3 and rounds < 12:
        rounds += 1
        count = sum(len(lines_of(path)) for path in waiting(folder))
        assert f"{count} requests wait for answers" in err
        written = re.findall(r"^batch +(\S+): \d+ requests in requests/(\S+)", out, re.M)
        assert [name.rpartition("-")[0] for _, name in written] == [model.replace("/", "-") for model, _ in written]
        asked += answer(folder, direct.server.url, failing_first)
        code, out, err = run(marathon, "--batch", "requests", "--batch-results", "requests")
    assert code == 0, err
    assert not waiting(folder)
    assert tables(marathon.folder / "out") == tables(direct.folder / "out")
    assert len(asked) - len(set(asked)) == 3, "what failed and what was another's is asked again, once, and no more"
    known = {line["request"]: line for line in journal(marathon.folder / "out") if "request" in line}
    for line in journal(direct.folder / "out"):
        if "shared_text" in line:
            assert line in journal(marathon.folder / "out")
        else:
            theirs = known[line["request"]]
            assert [theirs[name] for name in ("unit", "prompt")] == [line[name] for name in ("unit", "prompt")]

    before = contents(marathon.folder / "out/journal")
    code, out, _ = run(marathon, "--batch-results", "requests")
    assert (code, contents(marathon.folder / "out/journal")) == (0, before)
    assert "0 answers taken" in out


@pytest.mark.slow
def test_captions_and_qa_by_batch_and_the_rest_by_servers_give_the_same_dataset(
    direct: Direct, marathon: Command
) -> None:
    folder = marathon.folder / "requests"
    direct.fresh(marathon.folder)
    assert run(marathon, "--batch", "requests")[0] == 3
    by_batch = set(answer(folder, direct.server.url))
    noise = ["{", "[]", "\xff", '{"custom_id": "x", "response": {"status_code": 200, "body": {}}}', "", "9" * 5000]
    (result,) = folder.glob("*.results.jsonl")
    stray = lines_of(result)[0] | {"custom_id": "0" * 64}
    late = {"custom_id": "1" * 64, "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    more = [*noise, json.dumps(stray), json.dumps(late)]
    result.write_text(result.read_text() + "".join(f"{line}\n" for line in more), encoding="latin-1")
    before = len(direct.server.requests())
    code, out, err = run(marathon, "--batch-results", "requests", "--until", "summarize")
    assert code == 0, err
    assert f"{len(by_batch)} answers taken, 1 failed (batch_expired 1)" in out
    assert err == "marathon: --batch-results: left out: 5 damaged, 1 for no request of the indexes beside them\n"
    sent = [entry for entry in direct.server.requests()[before:] if entry["schema"] != "support_check"]
    assert {entry["schema"] for entry in sent} == {"event_split", "event_caption", "global_caption"}

    assert run(marathon, "--batch", "requests")[0] == 3
    by_batch |= set(answer(folder, direct.server.url))
    code, out, err = run(marathon, "--batch-results", "requests")
    assert code == 0, err
    assert len(by_batch) + len(sent) == len(direct_requests(direct))
    assert tables(marathon.folder / "out") == tables(direct.folder / "out")


@pytest.mark.slow
def test_a_second_batch_replaces_the_requests_of_the_first(direct: Direct, marathon: Command) -> None:
    folder = marathon.folder / "requests"
    direct.fresh(marathon.folder)
    assert run(marathon, "--batch", "requests")[0] == 3
    (first,) = waiting(folder)
    once = lines_of(first)
    assert len({line["custom_id"] for line in once}) == len(once)
    (folder / "org-seer-000002.jsonl.part").write_text("half")
    (folder / "my-own.jsonl").write_text("mine")
    assert run(marathon, "--batch", "requests")[0] == 3
    assert lines_of(*waiting(folder)) == once
    assert not list(folder.glob("*.part"))
    assert (folder / "my-own.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("end", "moments"), [(signal.SIGKILL, (0, 2, 4)), (signal.SIGTERM, (0,))])
def test_a_batch_that_is_stopped_anywhere_leaves_whole_files(
    direct: Direct, marathon: Command, end: signal.Signals, moments: tuple[float, ...]
) -> None:
    folder = marathon.folder / "requests"
    direct.fresh(marathon.folder)
    for seconds in moments:
        process = begun(marathon)
        time.sleep(seconds)
        process.send_signal(end)
        _, err = process.communicate(timeout=100)
        assert "Traceback" not in err
        assert process.returncode in (3, -signal.SIGKILL)
        for path in waiting(folder):
            ids = [line["custom_id"] for line in lines_of(path)]
            assert ids == [each["request"] for each in lines_of(path.with_suffix(".index.jsonl")) if "request" in each]
    assert run(marathon, "--batch", "requests")[0] == 3
    answer(folder, direct.server.url)
    assert run(marathon, "--batch-results", "requests")[0] == 0
    assert tables(marathon.folder / "out") == tables(direct.folder / "out")


def begun(marathon: Command) -> "subprocess.Popen[str]":
    """A run that writes requests, whose first work is done."""
    process = marathon.start("run", "job.yaml", "--batch", "requests")
    while not (marathon.folder / "out/tables").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_requests_that_cannot_be_written_are_one_line_at_the_end(direct: Direct, marathon: Command) -> None:
    direct.fresh(marathon.folder)
    process = begun(marathon)
    (marathon.folder / "requests").rmdir()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err.endswith("requests: cannot be written (No such file or directory); then run the same command again\n")
    assert err.count("\n") == 1
    assert run(marathon, "--batch", "requests")[0] == 3
    answer(marathon.folder / "requests", direct.server.url)
    assert run(marathon, "--batch-results", "requests")[0] == 0
    assert tables(marathon.folder / "out") == tables(direct.folder / "out")


SERVED = """
models: {m: {model: m, endpoints: ["http://127.0.0.1:9/v1"]}}
annotators: {caption_events: m, summarize: m, qa: m}
"""
INDEX, REQUESTS = "requests/m-000001.index.jsonl", "requests/m-000001.jsonl"


@pytest.mark.parametrize(
    ("job", "files", "options", "said"),
    [
        ("", (), ("--batch", "requests"), "no stage of this job asks a served model"),
        (SERVED, ("requests",), ("--batch", "requests"), "--batch requests: cannot be written"),
        (SERVED, (), ("--batch-results", "none"), "--batch-results none: cannot be read"),
        (SERVED, (INDEX, REQUESTS), ("--batch-results", "requests"), "requests: holds no result files"),
        (SERVED, (INDEX, REQUESTS), ("--batch-results", REQUESTS), "holds requests"),
        (SERVED, ("results/m.jsonl",), ("--batch-results", "results"), "no index of its requests"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_batch_is_said_before_anything_begins(
    marathon: Command, job: str, files: tuple[str, ...], options: tuple[str, ...], said: str
) -> None:
    (marathon.folder / "job.yaml").write_text(f"dataset: out\n{job}")
    for file in files:
        (marathon.folder / file).parent.mkdir(exist_ok=True)
        (marathon.folder / file).write_text("")
    err = marathon.here("run", "job.yaml", *options, code=2)
    assert said in err
    assert err.count("\n") == 1
    assert not (marathon.folder / "out").exists()


SETTINGS = ModelSettings(model="org/m", endpoints=("http://127.0.0.1:9/v1",))


def request_of(number: int, shared: str, chars: int = 100) -> tuple[Request, Asked]:
    said = f"{shared}{number:04}".ljust(chars)
    messages = ({"role": "system", "content": "You write."}, {"role": "user", "content": said})
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    request = Request(messages, "qa_open", schema, number, shared)
    own = Asked(request=f"{number:064}", part="", unit=f"u{number}", model="org/m", shared=shared, prompt=said)
    return request, own


def write(folder: Path, requests: list[tuple[Request, Asked]], **limits: int) -> Written | None:
    async def all_of_them() -> Written | None:
        writer, place = BatchWriter(SETTINGS, folder, **limits), Journal(Storage(str(folder / "out")), "qa", "v1")
        for request, asked in requests:
            with pytest.raises(Unfinished):
                await writer.send(request, asked, place)
        return await writer.close()

    return asyncio.run(all_of_them())


def test_no_file_is_larger_than_it_may_be(tmp_path: Path) -> None:
    by_count, by_bytes = tmp_path / "count", tmp_path / "bytes"
    for folder in (by_count, by_bytes):
        folder.mkdir()
    written = write(by_count, [request_of(number, "") for number in range(25)], most_requests=10)
    assert written and (written.requests, len(written.files)) == (25, 3)
    assert [len(lines_of(path)) for path in waiting(by_count)] == [10, 10, 5]

    written = write(by_bytes, [request_of(n, "", 9000 if n == 7 else 100 + 50 * n) for n in range(20)], most_bytes=5000)
    sizes = {path: path.stat().st_size for path in waiting(by_bytes)}
    assert [len(lines_of(path)) for path, size in sizes.items() if size > 5000] == [1]
    assert sorted(line["custom_id"] for line in lines_of(*sizes)) == [f"{number:064}" for number in range(20)]


def test_requests_that_begin_alike_stand_side_by_side_and_their_beginning_is_kept_once(tmp_path: Path) -> None:
    write(tmp_path, [request_of(number, "alpha" if number % 2 else "beta") for number in range(6)])
    (path,) = waiting(tmp_path)
    begins = [line["body"]["messages"][1]["content"].rstrip()[:-4] for line in lines_of(path)]
    assert begins == ["alpha"] * 3 + ["beta"] * 3
    texts = [line["shared_text"] for line in lines_of(path.with_suffix(".index.jsonl")) if "shared_text" in line]
    assert texts == ["alpha", "beta"]


def test_a_folder_that_takes_no_more_is_a_passing_failure_and_said_at_the_end(tmp_path: Path) -> None:
    async def on_a_folder_that_vanishes() -> None:
        folder = tmp_path / "requests"
        folder.mkdir()
        writer = BatchWriter(SETTINGS, folder, most_requests=1)
        place = Journal(Storage(str(tmp_path / "out")), "qa", "v1")
        with pytest.raises(Unfinished):
            await writer.send(*request_of(0, ""), place)
        folder.rmdir()
        for number in (1, 2):
            with pytest.raises(Failed, match="storage") as failure:
                await writer.send(*request_of(number, ""), place)
            assert failure.value.transient
        with pytest.raises(Failed, match="cannot be written"):
            await writer.close()

    asyncio.run(on_a_folder_that_vanishes())


def test_answers_of_videos_that_were_purged_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [request_of(number, "alpha") for number in range(3)])
    (path,) = waiting(tmp_path)
    choice = {"message": {"content": "{}"}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    answers = [
        {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}} for line in lines_of(path)
    ]
    path.with_suffix(".results.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in answers))
    storage = Storage(str(tmp_path / "out"))
    taken = BatchResults([str(tmp_path)], None).take(storage, {"v2"})
    assert (taken.new, taken.absent, storage.keys("journal")) == (0, 3, [])
    taken = BatchResults([str(tmp_path)], None).take(storage, {"v1"})
    assert (taken.new, taken.known, len(storage.keys("journal"))) == (3, 0, 1)
    taken = BatchResults([str(tmp_path)], None).take(storage, {"v1"})
    assert (taken.new, taken.known, len(storage.keys("journal"))) == (0, 3, 1)
