"""What the server answers: a pure function of the system text, the first user message and its frames.

Not of the seed, the time, the order, the code to be echoed, or the turns that follow: a retry and a repair get the
same good answer. It obeys the request's JSON schema, and is plain English that the audit of the project accepts.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

CODE = re.compile(r'In "reference" copy this code: *(\S+)')
FRAME_CHARACTERS = 1024  # what a frame counts for in the prompt, as if it were text: 256 tokens
TASKS = sorted(path.stem for path in (Path(__file__).parents[2] / "task_templates" / "qa").glob("*/*.yaml"))


@dataclass(frozen=True)
class Asked:
    """What a request asks. `conversation`: digest of all that the answer may depend on; `frames`: of the frames."""

    conversation: str
    frames: str
    code: str
    name: str  # of the schema
    schema: Mapping[str, Any] | None
    task: str
    user: str  # the first user message
    prompt: str  # as it would be tokenized, the frames by their digests


def asked(request: Mapping[str, Any]) -> Asked:
    """Read the body of a chat completion; KeyError, TypeError or ValueError where it is none."""
    turns = [(message["role"], *_parts(message["content"])) for message in request["messages"]]
    system = "\n".join(text for role, text, _ in turns if role == "system")
    user, frames = next(((text, frames) for role, text, frames in turns if role == "user"), ("", []))
    shown = _digest(*frames) if frames else ""
    code = CODE.search(user)
    wanted = (request.get("response_format") or {}).get("json_schema") or {}
    return Asked(
        conversation=_digest(system, CODE.sub("", user), shown),
        frames=shown,
        code=code[1] if code else "",
        name=wanted.get("name", ""),
        schema=_inlined(wanted["schema"], wanted["schema"].get("$defs", {})) if "schema" in wanted else None,
        task=_task(user) if wanted.get("name", "").startswith("qa_") else "",
        user=user,
        prompt="".join(f"<|{role}|>{_drawn_out(frames)}{text}<|end|>" for role, text, frames in turns),
    )


def answer(to: Asked) -> Any:
    """A value of the request's schema; a text where it has none. ValueError: a schema beyond this small generator."""
    teller = Teller(to.frames or to.conversation)
    if to.schema is None:
        return teller.text(400)
    value = _value(to.schema, {"reference": to.code or "none"}, teller)
    if to.frames and "scene" in value:  # frames decide a caption, and what else is asked only its last words
        bound = to.schema["properties"]["scene"].get("maxLength", 4000)
        value["scene"] = _cut(f"{value['scene']} {Random(to.conversation).choice(WORDS['light'])}", bound)
    return value


def _parts(content: Any) -> tuple[str, list[str]]:
    """The text of a message and the digests of its frames, the same for images and for a video of sampled frames."""
    if isinstance(content, str):
        return content, []
    texts, frames = [], []
    for part in content or ():
        if part["type"] == "text":
            texts.append(part["text"])
        else:
            head, comma, data = part[part["type"]]["url"].partition(",")
            frames += [_digest(frame) for frame in (data.split(",") if comma else [head])]
    return "\n".join(texts), frames


def _drawn_out(frames: Sequence[str]) -> str:
    return "".join((frame * FRAME_CHARACTERS)[:FRAME_CHARACTERS] for frame in frames)


def _task(text: str) -> str:
    """The task whose published name stands first in a prompt, else whose id does: a task may point at its siblings."""
    for spelled in (lambda task: task.replace("_", " ").title(), str):
        found = [(place, task) for task in TASKS if (place := text.find(spelled(task))) >= 0]
        if found:
            return min(found)[1]
    return ""


def _digest(*texts: str) -> str:
    hasher = hashlib.sha256()
    for text in texts:
        hasher.update(b"%d " % len(text) + text.encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def _inlined(schema: Any, defs: Mapping[str, Any]) -> Any:
    """A schema with what it refers to in its place."""
    if not defs or not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(defs[schema["$ref"].rpartition("/")[2]], defs)
    return {key: _inlined(part, defs) for key, part in schema.items() if key != "$defs"}


def _value(schema: Mapping[str, Any], given: Any, teller: "Teller", name: str = "") -> Any:
    """A value of a schema; given: the parts of it that are known already."""
    kind = schema.get("type")
    if "enum" in schema:
        return given if given is not None else teller.random.choice(schema["enum"])
    if kind == "object":
        given = given or {}
        return {key: _value(part, given.get(key), teller, key) for key, part in schema["properties"].items()}
    if kind == "array":
        items = schema["items"]
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, 6))
        if given is None:
            given = _list(items, least, most, teller, name)
        return [_value(items, each, teller) for each in given[:most]]
    if kind == "string":
        bound = schema.get("maxLength", 4000)
        return _cut(given, bound) if given is not None else teller.about(name, bound)
    if kind == "integer":
        return teller.random.randint(schema.get("minimum", 0), schema.get("maximum", 100))
    raise ValueError(f"this server makes no values of {dict(schema)}")


def _list(items: Mapping[str, Any], least: int, most: int, teller: "Teller", name: str) -> Sequence[Any]:
    if "enum" in items:  # clips, as evidence: some of them, in their order
        count = min(len(items["enum"]), most, max(least, teller.random.randint(1, 3)))
        return [items["enum"][place] for place in sorted(teller.random.sample(range(len(items["enum"])), count))]
    if name == "events":
        clips = items["properties"]["first"]["enum"]
        count = min(len(clips), most, max(least, teller.random.randint(4, 6)))
        later = sorted(teller.random.sample(range(1, len(clips)), count - 1))
        return [{"title": teller.told("{who} {does} {thing}"), "first": clips[place]} for place in (0, *later)]
    if name == "questions":
        return [*teller.questions(min(3, most), choice="wrong" in items["properties"])]
    return [None] * teller.random.randint(least, most)


def _cut(text: str, bound: int) -> str:
    if len(text) <= bound:
        return text
    return text[: bound + 1].rpartition(" ")[0].rstrip(" ,.") or text[:bound]


class Teller:
    """Says things that never happened, in English, by a seed. It says no word of a kind again before all were said."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self._decks: dict[str, list[str]] = {}

    def about(self, name: str, bound: int) -> str:
        """A text of at most `bound` characters, for the property of a schema that has this name."""
        if name in FIELDS:
            return _cut(" ".join(self.told(sentence) for sentence in FIELDS[name]), bound)
        return self.text(bound, sentences=self.random.randint(10, 16))

    def text(self, bound: int, sentences: int = 3) -> str:
        text = self.told(self._draw("sentence"))
        for _ in range(1, sentences):
            longer = f"{text} {self.told(self._draw('sentence'))}"
            if len(longer) > bound:
                break
            text = longer
        return _cut(text, bound)

    def questions(self, count: int, choice: bool) -> Iterator[dict[str, Any]]:
        for question, kind, full in self.random.sample(QUESTIONS, count):
            right, *wrong = (self.told(f"{{{kind}}}") for _ in range(4))
            asked = self.told(question)
            if choice:
                yield {"question": asked, "answer": right, "wrong": wrong}
            else:
                yield {"question": asked, "answer": f"{right}, {self._filled(full)}."}

    def told(self, pattern: str) -> str:
        text = self._filled(pattern)
        return text[0].upper() + text[1:]

    def _filled(self, pattern: str) -> str:
        while "{" in pattern:  # what stands for something may be made of such itself
            pattern = re.sub(r"\{(\w+)\}", lambda found: self._draw(found[1]), pattern)
        return pattern

    def _draw(self, kind: str) -> str:
        if not self._decks.get(kind):
            self._decks[kind] = self.random.sample(WORDS[kind], len(WORDS[kind]))
        return self._decks[kind].pop()


# Of each: the question, what is asked for, and how an answer in full goes on. None of them names what it asks for.
QUESTIONS = (
    ("What does {who} {verb} {place} {moment}?", "thing", "and {who} watches"),
    ("Where does {who} {verb} {thing} {moment}?", "place", "with {thing} close by"),
    ("Who {does} {thing} {place} {moment}?", "who", "while {who} waits"),
    ("In which manner does {who} {verb} {thing} {place}?", "manner", "until {thing} is out of the way"),
    ("After {who} {does} {thing}, what does {who} {verb}?", "thing", "which stands {place}"),
    ("Which person stands {place} while {who} {does} {thing}?", "who", "who holds {thing}"),
)
FIELDS = {
    "temporality": ("{moment}, {who} {does} {thing}.", "Then {who} comes up and {does} {thing} {manner}."),
    "spatiality": ("{thing} stands {place}.", "{who} is {place}, {side} {thing}."),
    "object": ("There are {count} of {thing} in sight.", "{who} holds {thing}, and {thing} lies {place}."),
    "action": ("{who} {does} {thing} {manner}.", "{who} {does} {thing}, and {does} {thing} after it."),
    "scene": ("All of it goes on {place}.", "{thing} can be seen behind {who}."),
    "summary": ("{who} {does} {thing} {place}, and {who} {does} {thing}.",),
    "title": ("{who} {does} {thing}",),
}
WORDS: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "words.yaml").read_text()) | {
    "sentence": [
        "{who} {does} {thing} {place}.",
        "{moment}, {who} {does} {thing} {manner}.",
        "{thing} stands {place}, {side} {thing}.",
        "While {who} {does} {thing}, {who} waits {place}.",
        "{who} comes closer {manner} and {does} {thing}.",
        "There are {count} people {place}, and {who} {does} {thing} for them.",
        "After that, {who} {does} {thing} and stays {place}.",
        "{who} looks at {thing} before {who} {does} it {manner}.",
    ],
    "who": ["the {person} in the {colour} {garment}"],
    "thing": ["the {material} {item}"],
}
WORDS["does"] = [
    f"{verb}es" if verb.endswith(("sh", "ch")) else f"{verb[:-1]}ies" if verb.endswith("ry") else f"{verb}s"
    for verb in WORDS["verb"]
]
