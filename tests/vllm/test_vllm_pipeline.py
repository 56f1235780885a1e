"""The pipeline on a real vLLM: every row is valid and bound to its request, and shared prompts come from the cache.

Random weights write no sensible events, so there are two passes: all stages served, and QA served over what `measured`
wrote. What is sent is recorded on its way.
"""

import gzip
import http.server
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from serve import Server

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.journal import Answer
from marathon_pipeline.records import Clip, ClipCaption, Event, QAPair, Record, Summary

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

TASKS = (
    "[temporal_order, duration_perception, temporal_perception, object_recognition, object_attribute, action_sequence]"
)
JOB = """
dataset: {dataset}
inputs: [{inputs}]
synthetic: {{folder: videos, videos: 2, minutes: 1, seed: 3}}
segment: {{min_seconds: 0}}
events: {{min_events: 0}}
tasks: {tasks}
models:
  captioner:
    model: captioner
    endpoints: ["{captioner}"]
    echo: false          # random weights copy nothing
    temperature: 1.0
    answer_tokens: 2048
    chars_per_token: 1.5 # of the tiny tokenizer
    frames: {{count: 4, height: 112, send: video}}
  writer:
    model: writer
    endpoints: ["{writer}"]
    echo: false
    temperature: 1.0
    answer_tokens: 2048
    chars_per_token: 1.5
annotators: {annotators}
"""
SERVED = "{caption_clips: captioner, caption_events: writer, summarize: writer, qa: writer}"
WRITTEN = "{qa: writer}"


class Recorder:
    """Stands before a server, and keeps the requests in the order of their coming."""

    def __init__(self, server: Server) -> None:
        self.bodies: list[dict[str, Any]] = []
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._pass_on(None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.bodies.append(json.loads(body))
                self._pass_on(body)

            def _pass_on(self, body: bytes | None) -> None:
                url = server.url.removesuffix("/v1") + self.path
                asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
                try:
                    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                        asked, timeout=300
                    ) as answer:
                        status, data = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    status, data = error.code, error.read()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: object) -> None:
                """Not to the terminal."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Without the check at start."""
        return [body for body in self.bodies if name_of(body) != "support_check"]


def name_of(body: dict[str, Any]) -> str:
    return str(body["response_format"]["json_schema"]["name"])


@contextmanager
def recorded(servers: dict[str, Server]) -> Iterator[dict[str, Recorder]]:
    recorders = {name: Recorder(server) for name, server in servers.items()}
    try:
        yield recorders
    finally:
        for recorder in recorders.values():
            recorder.close()


def run(marathon: Command, real_videos: Path, recorders: dict[str, Recorder], annotators: str) -> tuple[Dataset, int]:
    """The dataset, and how the command ended: random answers may come to nothing, which it says."""
    inputs = ", ".join(str(real_videos / name) for name in ("kitchen_ego.mp4", "sintel_trailer.mp4"))
    urls = {name: recorder.url for name, recorder in recorders.items()}
    (marathon.folder / "job.yaml").write_text(
        JOB.format(dataset="out", inputs=inputs, tasks=TASKS, annotators=annotators, **urls)
    )
    process = marathon.start("run", "job.yaml")
    out, err = process.communicate(timeout=800)
    assert "Traceback" not in out + err, err
    assert process.returncode in (0, 1), out + err
    print(out)
    return Dataset(str(marathon.folder / "out")), process.returncode


def journaled(dataset: Dataset) -> list[Answer]:
    assert dataset.storage.root
    files = (dataset.storage.root / "journal").rglob("*.jsonl.gz")
    lines = (json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines())
    return [Answer.model_validate(line) for line in lines if "shared_text" not in line]


def rows(dataset: Dataset, record: type[Record], videos: list[str]) -> list[Any]:
    return [row for video in videos for row in dataset.tables.read(record, video)]


def texts_of(row: Any) -> set[str]:
    if isinstance(row, QAPair):
        return {row.question, row.answer, *row.options}
    if isinstance(row, Event):
        return {row.caption}
    if isinstance(row, Summary):
        return {row.text}
    return {row.temporality, row.spatiality, row.object, row.action, row.scene, row.summary}


def strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {text for each in value.values() for text in strings(each)}
    if isinstance(value, list):
        return {text for each in value for text in strings(each)}
    return {str(value).strip()}


def check_binding(dataset: Dataset, record: type[Record], videos: list[str], least: int) -> None:
    """Every row says what the answer to its own request says, and that request was about it."""
    answers: dict[str, list[Answer]] = {}
    for answer in journaled(dataset):
        answers.setdefault(answer.request, []).append(answer)
    found = rows(dataset, record, videos)
    assert len(found) >= least, f"{len(found)} rows of {record.table}"
    for row in found:
        assert any(texts_of(row) <= strings(json.loads(a.text, strict=False)) for a in answers[row.binding.request])
        units = {answer.unit for answer in answers[row.binding.request]}
        assert units == {
            getattr(row, "clip_id", None) or getattr(row, "event_id", None) or getattr(row, "format", "global")
        }


def check_account(dataset: Dataset, recorders: dict[str, Recorder], servers: dict[str, Server]) -> None:
    """All that was sent is accounted for: in the journal, or as a failure with its reason."""
    answers = journaled(dataset)
    sent = [body for recorder in recorders.values() for body in recorder.asked]
    assert len(answers) == len(sent)
    assert {answer.finish for answer in answers} <= {"stop", "length"}
    for outcome in dataset.ledger:
        assert outcome.status == "ok" or outcome.reason in ("bad_answer", "nothing_to_ask", "context"), outcome
    spent = Counter[str]()
    for outcome in dataset.ledger:
        for usage in outcome.usage:
            spent["requests"] += usage.requests
            spent["tokens"] += usage.prompt_tokens + usage.completion_tokens
    assert spent["requests"] == len(answers)
    assert spent["tokens"] == sum(answer.prompt_tokens + answer.completion_tokens for answer in answers)


def test_all_stages_are_written_by_served_models(
    marathon: Command, real_videos: Path, vllm_servers: dict[str, Server]
) -> None:
    with recorded(vllm_servers) as recorders:
        dataset, _ = run(marathon, real_videos, recorders, SERVED)
        videos = sorted({o.video_id for o in dataset.ledger if o.stage == "segment" and o.status == "ok"})
        assert len(videos) == 4
        clips = rows(dataset, Clip, videos)
        check_binding(dataset, ClipCaption, videos, least=len(clips) * 3 // 4)
        check_binding(dataset, Event, videos, least=5)
        check_binding(dataset, Summary, videos, least=3)
        check_binding(dataset, QAPair, videos, least=10)  # of random words many are of other scripts, and refused
        check_account(dataset, recorders, vllm_servers)
        captions = [body for body in recorders["captioner"].asked if name_of(body) == "clip_caption"]
        assert all(body["messages"][1]["content"][0]["type"] == "video_url" for body in captions)


def test_questions_about_a_video_find_their_notes_in_the_cache(
    marathon: Command, real_videos: Path, vllm_servers: dict[str, Server], tmp_path: Path
) -> None:
    """At least 90 % of what whole blocks of the prompts allow; the same prompts the other way round beside it."""
    writer = vllm_servers["writer"]
    with recorded(vllm_servers) as recorders:
        before = writer.metrics()
        dataset, _ = run(marathon, real_videos, recorders, WRITTEN)
        after = writer.metrics()
        videos = sorted({o.video_id for o in dataset.ledger if o.stage == "summarize" and o.status == "ok"})
        assert len(videos) == 4
        check_binding(dataset, QAPair, videos, least=10)  # of random words many are of other scripts, and refused
        check_account(dataset, recorders, vllm_servers)
        asked = recorders["writer"].bodies
    hits, allowed = after.prefix_hits - before.prefix_hits, allowed_hits(writer, asked)
    total = after.prefix_queries - before.prefix_queries
    turned = [turned_round(body) for body in asked if name_of(body) != "support_check"]
    before = writer.metrics()
    for body in turned:
        assert writer.post("/chat/completions", body)[0] == 200
    reversed_hits = writer.metrics().prefix_hits - before.prefix_hits
    print(
        f"prefix cache: {hits:,} tokens of {allowed:,} that whole blocks allow ({hits / allowed:.1%}), "
        f"{total:,} asked; with the task first {reversed_hits:,}"
    )
    assert hits >= 0.9 * allowed
    assert reversed_hits < hits


def allowed_hits(server: Server, bodies: list[dict[str, Any]]) -> int:
    """Tokens in whole blocks that stood at the same place behind the same text in a request before."""
    block, seen, hits = server.block_size, set[tuple[int, ...]](), 0
    for body in bodies:
        asked = urllib.request.Request(
            server.url.removesuffix("/v1") + "/tokenize",
            json.dumps({"model": server.model, "messages": body["messages"]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
            tokens = json.load(answer)["tokens"]
        beginnings = [tuple(tokens[:end]) for end in range(block, len(tokens) + 1, block)]
        known = sum(beginning in seen for beginning in beginnings)
        hits += block * min(known, (len(tokens) - 1) // block)  # the last token is always computed
        seen.update(beginnings)
    return hits


def turned_round(body: dict[str, Any]) -> dict[str, Any]:
    """The same request with the task ahead of the notes, and hardly an answer."""
    system, asked, *_ = body["messages"]
    notes, mark, task = asked["content"].partition("\nThe task: ")
    turned = {"role": "user", "content": f"{mark}{task}\n{notes}"}
    return {**body, "messages": [turned, system], "max_tokens": 1, "response_format": {"type": "text"}}
