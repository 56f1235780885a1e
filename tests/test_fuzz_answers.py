"""Mutated answers of served models: rows that can be read again, or a typed reason. `MARATHON_FUZZ=10000`: so many."""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from by_hand import SUMMARY, TAXONOMY, captions, clip, events, settings
from hostile_media import ffmpeg
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from served import answers
from test_fuzz import Edits, edited, edits

from marathon_pipeline.annotators.served.annotator import Served
from marathon_pipeline.annotators.served.settings import FrameSettings
from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.pipeline.stage_list import ANNOTATED, StageSettings, build_stages
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import Clip, ClipCaption, Event, QAPair, Record, Signals, Summary
from marathon_pipeline.stages.stage import Stage

MUCH = int(os.environ.get("MARATHON_FUZZ", "30"))
CLIPS = captions(3)
GIVEN: dict[type[Record], list[Any]] = {
    Signals: [],
    Clip: [clip(index) for index in range(len(CLIPS))],
    ClipCaption: CLIPS,
    Event: events(CLIPS, 2),
    Summary: [SUMMARY],
}
TASKS = ("temporal_order", "object_existence")
STAGES = (*ANNOTATED, "verify")
NASTY = (None, True, -1, 2**70, 1e308, float("inf"), float("nan"), "", "\0", "\ud800", "e\u0301" * 999, [], {}, [[]])
LIKE_ANSWERS = [
    ("[", 100_000),
    ('{"a":', 50_000),
    ("1", 5000),
    *((text, 1) for text in ("", "null", "7", '"x"', "{}", "[1]", "{", '{"choices": 1}', '{"reference": 1e999}')),
]


@dataclass(frozen=True)
class Spoil:
    """What is done to one answer: `text`, else some of its bytes, else one of its values.

    whole: to all that the server sends, not only to what the model says.
    """

    whole: bool
    text: tuple[str, int] | None  # so often
    changes: Edits
    place: float
    value: Any

    def __call__(self, data: bytes) -> bytes:
        if self.text is not None:
            return (self.text[0] * self.text[1]).encode()
        if self.changes:
            return edited(data, self.changes)
        return json.dumps(bent(json.loads(data), self.place, self.value)).encode()


spoils = st.builds(
    Spoil,
    whole=st.booleans(),
    text=st.none() | st.none() | st.sampled_from(LIKE_ANSWERS),
    changes=st.just([]) | edits,
    place=st.floats(0, 1, exclude_max=True),
    value=st.sampled_from(NASTY),
)


def bent(tree: Any, place: float, value: Any) -> Any:
    """A JSON value with one of the values in it, or all of it, replaced; a list or an object may lose one instead."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, each in pairs:
            places.append((node, key))
            walk(each)

    walk(tree)
    if not places:
        return value
    node, key = places[int(place * len(places))]
    if value is None and place * len(places) % 1 < 0.5:
        del node[key]
    else:
        node[key] = value
    return tree


@dataclass
class Spoiler:
    """A server whose next answers are spoilt, one by each of `spoils`; those that follow are good."""

    spoils: list[Spoil] = field(default_factory=list)
    spoilt: int = 0

    async def respond(self, request: web.Request) -> web.Response:
        good = json.dumps(answers.answer(answers.asked(await request.json()))).encode()
        spoil = self.spoils.pop(0) if self.spoils else None
        self.spoilt += spoil is not None
        said = good if spoil is None or spoil.whole else spoil(good)
        message = {"role": "assistant", "content": said.decode("utf-8", "surrogateescape"), "refusal": None}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
        completion = {"id": "c", "choices": [{"finish_reason": "stop", "message": message}], "usage": usage}
        body = json.dumps(completion).encode()
        return web.Response(body=spoil(body) if spoil and spoil.whole else body, content_type="application/json")


@dataclass
class Bench:
    """Stages that ask the spoiler, and a dataset with what they read."""

    loop: asyncio.AbstractEventLoop
    spoiler: Spoiler
    base: Path
    stages: dict[str, Callable[[Dataset], Stage]]

    def work(self, name: str, spoils: list[Spoil]) -> tuple[list[Any], Dataset]:
        self.spoiler.spoils = [*spoils]
        folder = self.base.with_name("dataset")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        dataset = Dataset(str(folder))
        stage = self.stages[name](dataset)
        order = Order("video", "video", dict.fromkeys(stage.parts, "f"), {}, True, True, None)
        found = self.loop.run_until_complete(asyncio.wait_for(carry_out(stage, dataset, order), 60))
        return found, dataset


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    base, loop, spoiler = tmp_path_factory.mktemp("answers") / "base", asyncio.new_event_loop(), Spoiler()
    dataset = Dataset(str(base), create=True)
    for record, rows in GIVEN.items():
        dataset.tables.write(record, "video", rows, {})
    proxy = base / media_key("proxies", "video", ".mp4")
    proxy.parent.mkdir(parents=True)
    ffmpeg("-f", "lavfi", "-i", "color=s=64x48:r=1:d=70", "-g", 1, proxy)

    async def start() -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", spoiler.respond)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = loop.run_until_complete(start())
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    model = settings(retries=0, frames=FrameSettings(count=1, height=28), timeout_seconds=20)
    asked = Served(model.model_copy(update={"endpoints": (url,)}), TAXONOMY)

    def built(name: str) -> Callable[[Dataset], Stage]:
        def build(dataset: Dataset) -> Stage:
            writers = dict.fromkeys(ANNOTATED, asked)
            judge = asked if name == "verify" else None
            stages = build_stages(StageSettings(), writers, TAXONOMY, TASKS, dataset.storage, judge)
            return next(stage for stage in stages if stage.name == name)

        return build

    made = Bench(loop, spoiler, base, {name: built(name) for name in STAGES})
    asked_well, dataset_of_it = made.work("qa", [])
    assert {outcome.status for outcome in asked_well} == {"ok"}
    dataset.tables.write(QAPair, "video", dataset_of_it.tables.read(QAPair, "video"), {})  # for `verify`
    yield made
    loop.run_until_complete(asked.close())
    loop.run_until_complete(runner.cleanup())
    loop.close()
    print(f"{spoiler.spoilt} answers were spoilt")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STAGES)
@hypothesis_settings(max_examples=MUCH // len(STAGES))
@given(spoils=st.lists(spoils, min_size=1, max_size=4))
def test_mutated_answers_end_in_rows_or_by_a_typed_reason(bench: Bench, name: str, spoils: list[Spoil]) -> None:
    outcomes, dataset = bench.work(name, spoils)
    stage = bench.stages[name](dataset)
    assert [outcome.part for outcome in outcomes] == [*stage.parts]
    for outcome in outcomes:
        assert outcome.status == "ok" or outcome.reason not in ("", "defect"), outcome.message
        assert len(outcome.message.splitlines()) <= 1
    if any(outcome.status == "ok" for outcome in outcomes):
        rows = [row for record in stage.writes for row in dataset.tables.read(record, "video")]
        assert b"" not in [row.model_dump_json().encode() for row in rows]  # no half of a character in them
