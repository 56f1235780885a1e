"""Titles of events, and accounts of a whole video, held clause by clause against the script."""

import re
from itertools import pairwise, product

from truth.told import NAME, VIEW, Time, Told, Undecided

OFF = 1.5
LINKS = r"^(?:at first, |then |after that, |later, |next, |in the end, )+"


def listed(text: str) -> list[str]:
    """`grows, turns red and goes out at the top`: its parts."""
    return [part for part in re.split(r", | and (?!down again|again|forth)", text) if part]


def clauses_of(sentence: str) -> list[str]:
    """`a red circle comes in from the left and grows twice`: clauses of one deed each."""
    match = re.fullmatch(rf"(?:the|an?) ({NAME}) (.+)", sentence)
    if match:
        who, does = f"the {match[1]}", re.sub(rf"against an? ({NAME})", r"against the \1", match[2])
    else:
        match = re.fullmatch(r"(the (?:view|picture|camera)) (.+)", sentence)
        if not match:
            raise Undecided(sentence)
        who, does = match.groups()
        if who == "the view":
            does = does.replace(" above and ", " above & ")
    found = []
    for part in listed(does):
        part, count = re.subn(r" (twice|several times)$", "", part)
        found += [f"{who} {part}".replace("&", "and")] * (1 + count)
    return found


def spans_of(told: Told, title: str) -> list[Time]:
    """The stretches that a title fits: from the beginning of its first deed to the end of its last one."""
    title = title.lower().rstrip(".")
    if match := re.fullmatch(rf"a view that is {VIEW}(?:, with (.+))?", title):
        stays = [time for look, time in told.views if look == match.groups()[:2]]
        names = re.findall(NAME, match[3] or "")
        return [s for s in stays if all(told.seen(name, s.start + OFF, s.end - OFF) for name in names)]

    def together(one: Time, other: Time) -> bool:
        return told.script.stay(one.start + OFF) == told.script.stay(other.start + OFF)

    spans: list[Time] = []
    for index, clause in enumerate(clauses_of(title)):
        times = told.times(clause, loosely=True)
        if not index:
            spans = times
            continue
        later = [
            (span, [time for time in times if time.start >= span.start and together(span, time)]) for span in spans
        ]
        spans = [Time(span.start, max(span.end, found[0].end)) for span, found in later if found]
    return spans


def in_order(groups: list[list[Time]]) -> bool:
    """Whether one stretch of each can be taken so that each is over before the next begins."""
    return any(all(a.end <= b.start + OFF for a, b in pairwise(chosen)) for chosen in product(*groups))


def fits(told: Told, text: str) -> bool:
    """Whether all that an account tells happens, in its order, and nothing happens where it says so."""
    now, until = 0.0, None
    for sentence in text.lower().rstrip(".").split(". "):
        sentence = re.sub(LINKS, "", sentence)
        if match := re.fullmatch(rf"the view is {VIEW}(?:, and (.+) (?:is|are) in it)?", sentence):
            stay = next((t for look, t in told.views if look == match.groups()[:2] and t.end > now + 3), None)
            if stay is None or not all(
                told.seen(name, stay.start, stay.end) for name in re.findall(NAME, match[3] or "")
            ):
                return False
            now, until = max(now, stay.start - OFF), stay.end
        elif match := re.fullmatch(r"(.+) (?:is|are) in view", sentence):
            if not all(name in told.stretches for name in re.findall(NAME, match[1])):
                return False
        elif sentence in ("nothing else happens", "nothing is seen to happen"):
            if until is not None and any(now + OFF < deed.start < until - OFF for deed in told.deeds):
                return False
        elif match := re.fullmatch(r"the picture cuts to another view (\d+) times", sentence):
            if until is None:
                raise Undecided(sentence)
            if sum(now + 2 * OFF < change < until - OFF for change in told.changes) != int(match[1]):
                return False
        else:
            for clause in clauses_of(sentence):
                found = [time.start for time in told.times(clause, loosely=True) if time.start >= now - 2 * OFF]
                if not found:
                    return False
                now = max(now, found[0])
    return True
