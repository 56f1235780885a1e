"""One question to a model, until its answer is sound: from the journal if it was asked before, else from a server."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from pydantic import ConfigDict

from marathon_pipeline.annotators.served.pool import Request, Sender, hash_of
from marathon_pipeline.annotators.served.prompts import Prompt
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.annotators.served.shapes import Shape, Unsound, parse, schema_of
from marathon_pipeline.dataset.journal import Answer, Answers, Asked
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import Binding, digest

S = TypeVar("S", bound=Shape)

_REPAIRS = 2
_MIXED_UP = 3  # answers to another request before one gives up
_CODE = 'In "reference" copy this code: '
_QUOTED = 2000  # characters of a bad answer that a repair shows


class Question(NamedTuple):
    """`unit`: what it is about, unique within a video, a stage and a part; `clip_ids`: those that it may name."""

    owner: str
    stage: str
    unit: str
    prompt: Prompt
    clip_ids: Sequence[str] = ()
    most: int | None = None
    pictures: tuple[bytes, ...] = ()
    version: int = 1  # of the template


class Asker:
    """Asks one model on behalf of one part of a stage's work."""

    def __init__(self, settings: ModelSettings, sender: Sender, answers: Answers) -> None:
        self._settings, self._sender, self._answers = settings, sender, answers

    async def ask(
        self, question: Question, shape: type[S], faults: Callable[[S], Sequence[str]] = lambda answer: ()
    ) -> tuple[S, Binding]:
        """An answer that obeys its shape, and what it was made from. `faults`: what else is wrong with one.

        Faults are quoted in a repair; an answer that keeps them is returned all the same. Raises Failed: `refused`,
        `bad_answer`, `mixed_up` (the server gave the answers to other requests), and those of `Sender.send`.
        """
        first, last = self._answers.rounds
        for round in range(first, last + 1):
            try:
                return await self._round(question, shape, faults, round)
            except Failed as failure:
                if failure.transient or round == last:
                    raise
        raise AssertionError("no round")

    async def _round(
        self, question: Question, shape: type[S], faults: Callable[[S], Sequence[str]], round: int
    ) -> tuple[S, Binding]:
        request, code = first_request(question, shape, self._answers.part, round)
        messages = request.messages
        sound: tuple[S, Binding] | None = None
        problem = ""
        for _ in range(1 + _REPAIRS):
            answer = await self._answer(request, question, code)
            if answer.refusal or answer.finish == "content_filter":
                raise Failed("refused", f"{question.unit}: {answer.refusal[:200] or 'the server filtered the answer'}")
            try:
                value = parse(shape, answer.text, question.clip_ids, question.most)
                if self._settings.echo and value.reference.strip() != code:
                    raise Unsound(f"reference: it is not the code {code}")
            except Unsound as error:
                cut = "it was cut off at its greatest length, and " if answer.finish == "length" else ""
                problem = f"{cut}{error}"
            else:
                sound = value, self._binding(question, answer)
                if not (found := list(faults(value))):
                    return sound
                problem = "; ".join(found)
            # By another seed, since a model that repeats its bad answer would repeat it again.
            request = request._replace(messages=(*messages, _said(answer.text), _mend(problem)), seed=request.seed + 1)
        if sound is None:
            raise Failed("bad_answer", f"{question.unit}: after {_REPAIRS} repairs {problem[:300]}")
        return sound

    async def _answer(self, request: Request, question: Question, code: str) -> Answer:
        """An answer that is the answer to this very request."""
        hashed = hash_of(request, self._settings)
        for known in await self._answers.journal.find(hashed):
            if self._is_own(known, code):
                return known
        recorded = self._recorded(request, question, hashed)
        for _ in range(_MIXED_UP):
            reply = await self._sender.send(request, recorded, self._answers.journal)
            answer = Answer(**recorded.model_dump(), **reply._asdict())
            # To the end, even where whoever waits for it is cancelled: what was answered is never asked again.
            await asyncio.shield(self._answers.journal.keep(answer, question.prompt.shared))
            if self._is_own(answer, code):
                return answer
        raise Failed("mixed_up", f"{question.unit}: the server answers other requests than this one", transient=True)

    def _is_own(self, answer: Answer, code: str) -> bool:
        """An answer that repeats another code belongs to another request; one that shows none is only unsound."""
        if not self._settings.echo or answer.refusal:
            return True
        try:
            return parse(_Code, answer.text).reference.strip() in (code, "")
        except Unsound:
            return True

    def _recorded(self, request: Request, question: Question, hashed: str) -> Asked:
        first, *others = (message["content"] for message in request.messages[1:])
        turns = [first.removeprefix(question.prompt.shared), *others]
        return Asked(
            request=hashed,
            part=self._answers.part,
            unit=question.unit,
            model=self._settings.name,
            shared=digest(question.prompt.shared)[:16] if question.prompt.shared else "",
            prompt="\n\n".join(turns),
            frames=_pictures_hash(question.pictures),
        )

    def _binding(self, question: Question, answer: Answer) -> Binding:
        return Binding(
            annotator=self._settings.name,
            template_version=question.version,
            request=answer.request,
            frames=answer.frames,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )


class _Code(Shape):
    """The reference alone, of an answer of any shape."""

    model_config = ConfigDict(extra="ignore")
    schema_name = ""


def first_request(question: Question, shape: type[Shape], part: str, round: int) -> tuple[Request, str]:
    """What is sent first for a question in a round, and the code that its answer repeats."""
    prompt = question.prompt
    place = digest([question.owner, question.stage, part, question.unit, round])
    code = place[:8]
    asked = f"{prompt.shared}{prompt.own.rstrip()}\n\n{_CODE}{code}"
    messages = ({"role": "system", "content": prompt.system}, {"role": "user", "content": asked})
    schema = schema_of(shape, question.clip_ids, question.most)
    seed = int(place[8:15], 16)
    return Request(messages, shape.schema_name, schema, seed, prompt.shared, question.pictures), code


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text[:_QUOTED]}


def _mend(problem: str) -> dict[str, str]:
    return {
        "role": "user",
        "content": f"This answer cannot be used: {problem.rstrip('.')}. Give the whole object again, mended.",
    }


def _pictures_hash(pictures: Sequence[bytes]) -> str:
    return digest([hashlib.sha256(picture).hexdigest() for picture in pictures]) if pictures else ""
