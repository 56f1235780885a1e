"""A video's captions, events and summary written by hand, and a sender that gives the answers one wants to see."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from served import answers

from marathon_pipeline.annotators.served.annotator import Served, ServedWriter
from marathon_pipeline.annotators.served.pool import Reply, Request, body_of, hash_of
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.dataset.journal import Answers, Asked, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import Binding, Clip, ClipCaption, Event, Summary
from marathon_pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
BINDING = Binding(annotator="hand", template_version=1, request="")
FIELDS = ("temporality", "spatiality", "object", "action", "scene", "summary")


def captions(count: int, words: int = 12) -> list[ClipCaption]:
    """Clips of 30 seconds, one every 20; each field names itself and its clip."""

    def field(name: str, index: int) -> str:
        return f"The {name} of stretch {index} is told" + " and told again" * ((words - 7) // 3) + "."

    return [
        ClipCaption(
            video_id="video",
            clip_id=f"c{index:04d}",
            start=20.0 * index,
            end=20.0 * index + 30,
            binding=BINDING,
            **{name: field(name, index) for name in FIELDS},
        )
        for index in range(count)
    ]


def events(clips: Sequence[ClipCaption], count: int, words: int = 30) -> list[Event]:
    made = []
    for number in range(count):
        own = clips[len(clips) * number // count : len(clips) * (number + 1) // count]
        made.append(
            Event(
                video_id="video",
                event_id=f"event_{number:03d}",
                start=own[0].start,
                end=own[-1].end,
                title=f"The woman does thing {number}",
                caption=f"Thing {number} goes on" + " and on" * (words // 2) + ".",
                clip_ids=tuple(clip.clip_id for clip in own),
                binding=BINDING,
            )
        )
    return made


SUMMARY = Summary(video_id="video", text="A woman does one thing after another until it is dark.", binding=BINDING)


def clip(index: int) -> Clip:
    return Clip(
        video_id="video",
        clip_id=f"c{index:04d}",
        start=20.0 * index,
        end=20.0 * index + 30,
        shots=(),
        frame_hashes=(),
    )


async def pictures(seconds: Sequence[int], height: int) -> list[bytes]:
    return [f"picture of second {second}, {height} high".encode() for second in seconds]


def settings(**more: Any) -> ModelSettings:
    return ModelSettings(model="test", endpoints=("http://127.0.0.1:1/v1",), **more)


def reply(text: str, finish: str = "stop", refusal: str = "") -> Reply:
    return Reply("id", finish, text, refusal, 100, 40, 10, 0.5, 0.25)


def code_of(request: Request) -> str:
    found = answers.CODE.search(request.messages[1]["content"])
    assert found is not None
    return found[1]


def good(request: Request) -> Reply:
    """What the test server would answer."""
    return reply(json.dumps(answers.answer(answers.asked(body_of(request, settings())))))


def recorded(request: Request, model: ModelSettings) -> tuple[Asked, Journal]:
    """What goes with a request to a sender that looks at its hash only."""
    asked = Asked(request=hash_of(request, model), part="", unit="", model=model.name, prompt="")
    return asked, Journal(Storage("."), "stage", "video")


class ByHand:
    """A sender. `replies`: those to the first requests, one each; `good` answers all that follow."""

    def __init__(self, *replies: Callable[[Request], Reply]) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []

    async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
        self.requests.append(request)
        return (self.replies.pop(0) if self.replies else good)(request)

    def share(self, processes: int) -> None:
        pass

    def stop(self) -> None:
        pass

    async def close(self) -> None:
        pass


def annotator(sender: ByHand, **more: Any) -> Served:
    made = Served(settings(**more), TAXONOMY)
    made.sender = sender  # in the place of the pool
    return made


def writer(
    sender: ByHand, folder: Path, *, rounds: tuple[int, int] = (0, 0), part: str = "", **more: Any
) -> tuple[ServedWriter, Answers]:
    """A writer with a journal that is read anew, as in another run."""
    answers = Answers(Journal(Storage(str(folder)), "stage", "video"), part, rounds)
    return annotator(sender, **more).for_work(answers), answers
