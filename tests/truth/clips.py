"""Clip captions, held sentence by sentence against what happens and is seen in the clip's time."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise

from marathon_pipeline.records import ClipCaption
from truth.account import clauses_of
from truth.moments import in_cell
from truth.reading import OFF, PICTURE, cell_in
from truth.scorer import Tally
from truth.told import NAME, VIEW, Time, Told, Undecided

FIELDS = ("temporality", "spatiality", "object", "action", "scene", "summary")
FIRM = 5.0 + 2 * OFF  # seconds: what lasts so long in a clip must be told where all is told
MOMENTS = r" (comes in|comes into|comes up against|turns|goes out|changes to) "
AT_ITS_END = r" (goes out|comes up against) "


class Window:
    """The clip's time, as long as it surely is."""

    def __init__(self, told: Told, start: float, end: float) -> None:
        self.told, self.start, self.end = told, start, end
        self.low, self.high = start + OFF, end - OFF
        self.halves = [start + step / 2 for step in range(int(2 * (end - start)) + 1)]

    def seconds(self, name: str) -> float:
        times = self.told.stretches.get(name, ())
        return sum(max(0.0, min(time.end, self.end) - max(time.start, self.start)) for time in times)

    def lasting(self, times: Iterable[Time], seconds: float) -> bool:
        """Whether one of these lasts for so long within the clip, or lies in it from beginning to end."""
        return any(
            min(time.end, self.end) - max(time.start, self.start) > seconds
            or self.low <= time.start <= time.end <= self.high
            for time in times
        )


def score_clips(told: Told, captions: Iterable[ClipCaption], where: str = "") -> dict[str, Tally]:
    """The scores of all sentences, by field."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for caption in captions:
        window = Window(told, caption.start, caption.end)
        for field in FIELDS:
            of_field = tallies[f"clip: {field}"]
            for sentence, right in _judged(window, getattr(caption, field)):
                of_field.asked += 1
                of_field.decided += right is not None
                of_field.wrong += right is False
                if right is False:
                    of_field.faults.append(f"{where} {caption.start:g} to {caption.end:g} {field}: {sentence} | WRONG")
    return dict(tallies)


def _judged(window: Window, text: str) -> Iterator[tuple[str, bool | None]]:
    narrative = Narrative(window)
    for sentence in text.lower().rstrip(".").split(". "):
        if match := re.fullmatch(rf"in a view that is {VIEW}, (.+)", sentence):
            parts = [f"the view is {match[1]} above and {match[2]} below at first", match[3]]
        else:
            parts = [sentence]
        for part in parts:
            try:
                claim = next(
                    (
                        claim(window, *match.groups())
                        for pattern, claim in CLAIMS
                        if (match := re.fullmatch(pattern, part))
                    ),
                    None,
                )
                yield part, narrative.goes_on(part) if claim is None else claim
            except Undecided:
                yield part, None


class Narrative:
    """What happens, told in order: `goes_on` says whether a sentence is true of what comes then."""

    def __init__(self, window: Window) -> None:
        self.window, self.now = window, window.start
        self.used: set[tuple[str, Time]] = set()

    def goes_on(self, sentence: str) -> bool:
        return all(self._next(clause) for clause in clauses_of(sentence.removeprefix("then ")))

    def _next(self, clause: str) -> bool:
        start, end = self.window.start - OFF, self.window.end + OFF
        for time in self.window.told.times(clause, loosely=True):
            moment = time.end if re.search(AT_ITS_END, clause) else max(time.start, self.window.start)
            if re.search(MOMENTS, clause):
                inside = start <= (moment if re.search(AT_ITS_END, clause) else time.start) <= end
            else:
                inside = time.start < end and time.end > start
            if inside and moment >= self.now - 2 * OFF and (clause, time) not in self.used:
                self.used.add((clause, time))
                self.now = max(self.now, moment)
                return True
        return False


# What the sentences claim.


def cuts(window: Window, count: str | None) -> bool:
    changes = window.told.changes
    surely = sum(window.low < change < window.high for change in changes)
    return surely <= int(count or 1) <= sum(window.start - OFF < change < window.end + OFF for change in changes)


def unchanged(window: Window) -> bool:
    return not any(window.low < moment < window.high for moment in _borders(window))


def mostly_unchanged(window: Window) -> bool:
    inside = [moment for moment in _borders(window) if window.start < moment < window.end]
    longest = max(b - a for a, b in pairwise([window.start, *inside, window.end]))
    return longest > (window.end - window.start) / 2


def _borders(window: Window) -> list[float]:
    """When something sets in or ends."""
    moments = (moment for deed in window.told.deeds for moment in (deed.start, deed.end))
    return sorted([*window.told.changes, *moments])


def _looks(window: Window) -> list[tuple[tuple[str, str], float]]:
    looks = (window.told.look(t) for t in window.halves)
    return [(look, len(list(run)) / 2) for look, run in groupby(looks)]


def a_view(window: Window, upper: str, lower: str) -> bool:
    return (upper, lower) in [look for look, _ in _looks(window)]


def views(window: Window, text: str) -> bool:
    """Whether these are the views of the clip, in order; one that comes back, or hardly stays, may be left out."""
    said = [(match[1], match[2]) for match in re.finditer(VIEW, text)]
    there = list(dict.fromkeys(look for look, _ in _looks(window)))
    firm = {look for look, seconds in _looks(window) if seconds >= FIRM}
    return [look for look in there if look in said] == said and firm <= set(said)


def kept_place(window: Window, name: str, text: str) -> bool:
    told, cell = window.told, cell_in(text)
    return any(told.rests(name, t) and (at := told.place(name, t)) and in_cell(at, cell) for t in window.halves)


def beside(window: Window, one: str, side: str, other: str) -> bool:
    """Whether it holds all the while that both are seen to rest for 4 s."""
    told, found = window.told, set()
    for t in window.halves[4:-4]:
        if all(told.rests(name, t + shift) for name in (one, other) for shift in (-2, 0, 2)):
            a, b = told.place(one, t), told.place(other, t)
            assert a and b
            across, down = (b[0] - a[0]) * PICTURE, b[1] - a[1]
            sideways = abs(across) > abs(down)
            found.add(("left of" if across > 0 else "right of") if sideways else ("above" if down > 0 else "below"))
    return found == {side}


def there_all_the_time(window: Window, name: str) -> bool:
    return window.told.seen_throughout(name, window.low, window.high)


def there_most_of_the_time(window: Window, name: str) -> bool:
    return window.seconds(name) + OFF >= 0.8 * (window.end - window.start)


def there_for_a_part(window: Window, name: str) -> bool:
    told = window.told
    whole = told.seen_throughout(name, window.start - OFF, min(told.seconds, window.end + OFF))
    return told.seen(name, window.start - OFF, window.end + OFF) and not whole


def something(window: Window, colour: str) -> bool:
    return any(name.startswith(colour) and window.seconds(name) > 0 for name in window.told.stretches)


def more_than_one(window: Window, name: str) -> bool:
    colour, shape = name.split()
    script = window.told.script
    things = [thing.id for thing in script.things if thing.shape == shape]
    return any(sum(script.colour(thing, t) == colour for thing in things) > 1 for t in window.halves)


def no_thing(window: Window) -> bool:
    return all(window.seconds(name) < FIRM for name in window.told.stretches)


def rests(window: Window, name: str) -> bool:
    return any(window.told.rests(name, t) for t in window.halves)


def no_deed(window: Window) -> bool:
    return not window.lasting((Time(deed.start, deed.end) for deed in window.told.deeds), FIRM)


def calm(window: Window) -> bool:
    """Where something happens all the same, it is not decided: what is small moves calmly."""
    if any(deed.start < window.end and deed.end > window.start for deed in window.told.deeds):
        raise Undecided("something happens")
    return True


def dark(window: Window) -> bool:
    return all(window.told.script.place(t).light == "night" for t in _firm(window))


def bright(window: Window) -> bool:
    places = [window.told.script.place(t) for t in _firm(window)]
    return all(place.light == "day" and "black" not in (place.upper, place.lower) for place in places)


def _firm(window: Window) -> list[float]:
    """The times at which the clip shows what it shows for long."""
    firm = {look for look, seconds in _looks(window) if seconds >= FIRM}
    return [t for t in window.halves if window.told.look(t) in firm]


def in_view(window: Window, names: str, rest: str | None) -> bool:
    found = [name for name in re.findall(NAME, names) if window.told.seen(name, window.start - OFF, window.end + OFF)]
    return len(found) == len(re.findall(NAME, names)) and (not rest or no_deed(window))


CLAIMS: tuple[tuple[str, Callable[..., bool]], ...] = (
    (r"the picture changes at once (?:one time|(\d+) times)", cuts),
    (r"nothing sets in or ends; the picture goes on as it is", unchanged),
    (r"for most of the time, the picture goes on as it is", mostly_unchanged),
    (rf"the view is {VIEW}", a_view),
    (r"the view is (.+ at first.*)", views),
    (rf"the ({NAME}) is ((?:in|at|on) the .+) for a while", kept_place),
    (rf"while both rest, the ({NAME}) is (left of|above) the ({NAME})", beside),
    (rf"an? ({NAME}) is in view all the time", there_all_the_time),
    (rf"an? ({NAME}) is in view nearly all the time", there_most_of_the_time),
    (rf"an? ({NAME}) is in view for a part of the time", there_for_a_part),
    (r"something (\w+) stands out for a part of the time", something),
    (rf"more than one ({NAME}) is in view", more_than_one),
    (r"no single thing stands out(?: from its surroundings)?", no_thing),
    (rf"an? ({NAME}) rests in its place", rests),
    (r"no thing is seen to act", no_deed),
    (r"all is calm", calm),
    (r"it is dark", dark),
    (r"it is bright", bright),
    (r"something (\w+) is in view", something),
    (rf"(an? {NAME}(?:(?:, | and )an? {NAME})*) (?:is|are) in view(, and nothing else happens)?", in_view),
)
