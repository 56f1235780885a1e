"""The ground of the tests against a real vLLM: what the served models take, obey and count."""

import base64
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
from PIL import Image, ImageDraw
from serve import CONTEXT, HERE, Server, ServerFailed, serve

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CLIPS = [f"c{number:04}" for number in range(40)]
EVIDENCE = {"type": "array", "items": {"enum": CLIPS}, "minItems": 1, "maxItems": 4}


def text(length: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": length}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def array(item: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": least, "maxItems": most}


SCHEMAS = {
    "clip_caption": obj(
        reference=text(8), temporality=text(60), spatiality=text(60), object=text(60), summary=text(90)
    ),
    "event_split": obj(reference=text(8), events=array(obj(title=text(40), first={"enum": CLIPS}), 1, 8)),
    "qa_open": obj(
        reference=text(8), questions=array(obj(question=text(80), answer=text(40), evidence=EVIDENCE), 0, 3)
    ),
    "qa_choice": obj(
        reference=text(8),
        questions=array(obj(question=text(80), answer=text(40), wrong=array(text(40), 3, 3), evidence=EVIDENCE), 0, 3),
    ),
    "support_check": obj(word={"enum": ["marathon"]}),
}


@pytest.fixture(params=["captioner", "writer"])
def server(request: pytest.FixtureRequest, vllm_servers: dict[str, Server]) -> Server:
    return vllm_servers[request.param]


@pytest.fixture(scope="module")
def frames() -> list[str]:
    """Eight JPEGs, base64: a square that wanders."""
    made = []
    for index in range(8):
        picture = Image.new("RGB", (398, 224), (30, 60, 90))
        ImageDraw.Draw(picture).rectangle((20 + 40 * index, 60, 80 + 40 * index, 120), fill=(200, 40, 40))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG")
        made.append(base64.b64encode(buffer.getvalue()).decode())
    return made


def asked(server: Server, content: Any, name: str = "support_check", **settings: Any) -> tuple[int, Any]:
    body = {
        "model": server.model,
        "messages": [{"role": "system", "content": "You describe videos."}, {"role": "user", "content": content}],
        "max_tokens": 2000,
        "temperature": 0.2,
        "seed": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": name, "strict": True, "schema": SCHEMAS[name]},
        },
    }
    return server.post("/chat/completions", body | settings)


def answer(server: Server, content: Any, name: str = "support_check", **settings: Any) -> Any:
    """The answer, valid JSON of the schema."""
    status, found = asked(server, content, name, **settings)
    assert status == 200, found
    (choice,) = found["choices"]
    assert choice["finish_reason"] == "stop", choice
    told = json.loads(choice["message"]["content"])
    jsonschema.validate(told, SCHEMAS[name])
    return told


@pytest.mark.parametrize("name", SCHEMAS)
def test_ten_of_ten_answers_obey_the_schema(server: Server, name: str) -> None:
    before = server.metrics().finished.get("stop", 0)
    with ThreadPoolExecutor(5) as pool:
        told = list(pool.map(lambda seed: answer(server, "What happens?", name, seed=seed), range(10)))
    assert [list(each) for each in told] == [list(SCHEMAS[name]["properties"])] * 10
    assert server.metrics().finished["stop"] == before + 10


def test_a_conversation_with_a_repair_is_taken(vllm_servers: dict[str, Server]) -> None:
    messages = [
        {"role": "system", "content": "You describe videos."},
        {"role": "user", "content": "What happens?"},
        {"role": "assistant", "content": '{"word": "half'},
        {"role": "user", "content": "This is no JSON: it ends within a text. Answer again."},
    ]
    answer(vllm_servers["writer"], "", messages=messages)


@pytest.mark.parametrize("times", [1, 5])
def test_frames_are_taken_as_one_video(vllm_servers: dict[str, Server], frames: list[str], times: int) -> None:
    video = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(frames * times)}"}}
    assert seen(vllm_servers["captioner"], [video]) == times * 4 * 8 * 14 + 2  # 8 x 14 a pair of frames; two marks


def test_frames_are_taken_as_images(vllm_servers: dict[str, Server], frames: list[str]) -> None:
    images = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{frame}"}} for frame in frames]
    assert seen(vllm_servers["captioner"], images) == 8 * (8 * 14 + 2)


def seen(server: Server, media: list[dict[str, Any]]) -> int:
    """How many tokens the media cost in a prompt."""
    question = {"type": "text", "text": "What happens?"}
    prompts = []
    for content in ([question], [*media, question]):
        status, found = asked(server, content)
        assert status == 200, found
        prompts.append(found["usage"]["prompt_tokens"])
    return prompts[1] - prompts[0]


def test_a_shared_prefix_is_read_from_the_cache_in_whole_blocks(server: Server) -> None:
    shared = " ".join(f"In clip {number} a man walks to the left." for number in range(250))
    answer(server, shared + "\nWhat is first?")
    before = server.metrics()
    status, found = asked(server, shared + "\nWho is last?")
    assert status == 200, found
    after, prompt = server.metrics(), found["usage"]["prompt_tokens"]
    assert prompt > 2000
    assert after.prefix_queries - before.prefix_queries == prompt
    assert after.prompt_tokens - before.prompt_tokens == prompt
    hits, block = after.prefix_hits - before.prefix_hits, server.block_size
    assert hits % block == 0
    assert prompt - 2 * block < hits < prompt


def test_the_server_says_its_context(server: Server) -> None:
    (model,) = server.get("/models")["data"]
    assert (model["id"], model["max_model_len"]) == (server.model, CONTEXT)


@pytest.mark.parametrize(("words", "answer_tokens"), [(40_000, 100), (20, CONTEXT + 1)])
def test_a_request_that_is_too_long_is_refused_with_the_limit(server: Server, words: int, answer_tokens: int) -> None:
    status, found = asked(server, "word " * words, max_tokens=answer_tokens)
    assert status == 400
    assert str(CONTEXT) in found["error"]["message"]


def test_an_answer_is_cut_where_the_context_ends(server: Server) -> None:
    """A prompt that leaves less than `max_tokens` is no error of the server's."""
    _, short = asked(server, "!" * 10, "clip_caption")  # a token each
    left = 20  # too few for any caption
    status, found = asked(server, "!" * (CONTEXT - left + 10 - short["usage"]["prompt_tokens"]), "clip_caption")
    assert status == 200, found
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["usage"]["total_tokens"] == CONTEXT


def test_seeds_survive_prompts_that_exceed_a_step(server: Server) -> None:
    """Chunked prefill winds a seed's generator back, which a CPU's cannot: the engine died (vLLM 0.32)."""
    long = "".join(f"In clip {number} a man walks to the left. " for number in range(700))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: answer(server, f"{seed} {long}", "clip_caption", seed=seed), range(8)))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerFailed, match=r"exit code 1 before it was ready(?s:.)*no-such-model"),
        serve(tmp_path / "no-such-model", tmp_path),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("by", ["leaving the block", "the kill -9 of its tester"])
def test_a_server_ends_with_all_its_processes(vllm_models: dict[str, Path], tmp_path: Path, by: str) -> None:
    tester = subprocess.Popen(
        [sys.executable, "-c", TESTER, vllm_models["writer"], tmp_path],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert tester.stdout
    server = psutil.Process(int(tester.stdout.readline()))
    processes = [server, *server.children(recursive=True)]
    assert len(processes) > 2  # the engine is one of its own
    if by == "the kill -9 of its tester":
        tester.kill()
    tester.communicate(b"\n")
    while any(alive(process) for process in processes):
        time.sleep(0.1)


TESTER = """
import sys, pathlib, serve
with serve.serve(*map(pathlib.Path, sys.argv[1:])) as server:
    print(server.process.pid, flush=True)
    input()
"""


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
