"""What goes wrong, when, and what a wrong answer looks like.

A fault strikes by a hash of the request's body and of how often that body was seen, so that a run meets the same
faults whatever its timing.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

KINDS = (
    "late",  # a good answer, some seconds later
    "rate_limit",  # 429, at times with Retry-After
    "error",  # 500
    "unavailable",  # 503
    "cut",  # the connection ends in the middle of the answer
    "hang",  # no answer until the client gives up
    "truncate",  # finish_reason `length`, the JSON ends somewhere
    "schema",  # JSON that breaks the schema, or no JSON
    "refuse",  # a refusal, or finish_reason `content_filter`
    "repeat",  # one word over and over, until the tokens are spent
    "fill",  # obeys the schema, but each text is one word over and over, up to its maxLength
    "swap",  # the answer to another request, with that one's reference
    "swap_frames",  # captions of another request's frames, with the right reference
)
SETTINGS = {
    "refuse_always": 0.0,  # a share of what is asked, refused however often it is tried again or repaired
    "most": 2,  # strikes in a row at what is asked, retries and repairs together, so that each has an answer in the end
    "late_seconds": 2.0,  # at most
}


class Strike(NamedTuple):
    kind: str  # empty: none
    random: Random  # for the fault's own choices; as reproducible as the strike


class Faults:
    """Decides what strikes. shares: of the requests, by kind, and settings; ValueError where they are wrong."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        if unknown := sorted(set(shares) - {*KINDS, *SETTINGS}):
            raise ValueError(f"`{unknown[0]}` is none of {', '.join((*KINDS, *SETTINGS))}")
        self._shares = [(kind, shares[kind]) for kind in KINDS if kind in shares]
        if not sum(share for _, share in self._shares) <= 1:
            raise ValueError("the shares add up to more than 1")
        self.settings = SETTINGS | {name: shares[name] for name in SETTINGS if name in shares}
        self._seen: Counter[bytes] = Counter()
        self._in_a_row: Counter[str] = Counter()

    def strike(self, body: bytes, conversation: str) -> Strike:
        """body: its digest; conversation: that of what is asked, which retries and repairs have in common."""
        self._seen[body] += 1
        random = Random(hashlib.sha256(b"%s %d" % (body, self._seen[body])).digest())
        if Random(f"refuse {conversation}").random() < self.settings["refuse_always"]:
            return Strike("refuse_always", random)
        kind = self._drawn(random.random())
        if not kind or self._in_a_row[conversation] >= self.settings["most"]:
            self._in_a_row.pop(conversation, None)
            return Strike("", random)
        self._in_a_row[conversation] += 1
        return Strike(kind, random)

    def _drawn(self, place: float) -> str:
        for kind, share in self._shares:
            if place < share:
                return kind
            place -= share
        return ""


@dataclass(frozen=True)
class Choice:
    """The one choice of a chat completion."""

    content: str | None
    finish_reason: str = "stop"
    refusal: str | None = None


def truncated(content: str, random: Random) -> Choice:
    return Choice(content[: random.randrange(1, max(2, len(content) - 1))], "length")


def refused(random: Random) -> Choice:
    if random.random() < 0.5:
        return Choice(None, "stop", "I'm sorry, but I can't help with that.")
    return Choice("", "content_filter")


def repeated(content: str, max_tokens: int, random: Random) -> Choice:
    start = content[: len(content) // 3].rpartition(" ")[0]
    word = random.choice(("blue", "the", "and then", "on the table,"))
    return Choice((start + f" {word}" * max_tokens)[: 4 * max_tokens], "length")


def filled(schema: Mapping[str, Any], value: Any, word: str, name: str = "") -> Any:
    """An answer with each of its texts replaced by one word over and over, as long as the schema lets it be."""
    if isinstance(value, dict):
        return {key: filled(schema["properties"][key], each, word, key) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(schema["items"], each, word) for each in value]
    if not isinstance(value, str) or "enum" in schema or name == "reference":
        return value
    return (f"{word} " * 200)[: schema.get("maxLength", 400)].strip()


def unlike_schema(value: Any, random: Random) -> Choice:
    """Each way in which servers that only promise a schema break it."""
    content = json.dumps(value, ensure_ascii=False)
    broken = [f"Here is the answer:\n```json\n{content}\n```", "I cannot tell what is asked here.", content + "}", "[]"]
    if isinstance(value, dict) and value:
        last = list(value)[-1]
        for wrong in (
            {key: value[key] for key in value if key != last},
            value | {"remark": "One more thing."},
            value | {last: None},
            value | {last: 7},
        ):
            broken.append(json.dumps(wrong, ensure_ascii=False))
    return Choice(random.choice(broken))
