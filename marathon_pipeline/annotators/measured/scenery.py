"""Facts about the picture as a whole: settings, cuts, activity, camera, colours."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from statistics import fmean
from typing import TypeVar, get_args

from marathon_pipeline.annotators.measured.tracks import Track, joined_runs
from marathon_pipeline.records import Colour, Fact, Signals

COLOURS: tuple[Colour, ...] = get_args(Colour)
CALM, LIVELY = 0.004, 0.016  # mean motion up to, and from; between them nothing is said
_PREVAILS = 0.5  # share of its half from which a colour is said to be above or below
_SETTLED = 4.0  # seconds that a setting, or a level of activity, lasts at least
_STRAY = 0.004  # share of the picture
_BUSY = 0.5  # share of all movement that one third holds
_Value = TypeVar("_Value")


def facts(signals: Sequence[Signals], tracks: Sequence[Track]) -> Iterator[Fact]:
    yield from _settings(signals)
    yield from _cuts(signals)
    yield from _activity(signals)
    yield from _camera(signals)
    yield from _colours(signals, tracks)


def _settings(signals: Sequence[Signals]) -> Iterator[Fact]:
    smooth = _majority([_halves(row) for row in signals])
    for halves, run in _runs(signals, smooth):
        if any(halves) and _lasts(run, signals):
            brightness = round(fmean(row.brightness for row in run), 3)
            yield _fact("setting", run, subject=halves[0], other=halves[1], amount=brightness)


def _halves(row: Signals) -> tuple[str, str]:
    return (row.upper if row.upper_share >= _PREVAILS else "", row.lower if row.lower_share >= _PREVAILS else "")


def _majority(values: Sequence[tuple[str, str]], reach: int = 1) -> list[tuple[str, str]]:
    """Each value, or what prevails among its neighbours where it stands alone."""
    windows = (values[max(0, index - reach) : index + reach + 1] for index in range(len(values)))
    return [
        value if value in window[:reach] or value in window[-reach:] else Counter(window).most_common(1)[0][0]
        for value, window in zip(values, windows, strict=True)
    ]


def _cuts(signals: Sequence[Signals]) -> Iterator[Fact]:
    for before, row in pairwise(signals):
        if row.shot != before.shot:
            yield Fact(kind="cut", start=row.second, end=row.second + 1)


def _activity(signals: Sequence[Signals]) -> Iterator[Fact]:
    levels = ["calm" if row.motion <= CALM else "lively" if row.motion >= LIVELY else "" for row in signals]
    for level, run in _runs(signals, levels):
        if level and _lasts(run, signals):
            yield _fact("activity", run, value=level, amount=round(fmean(row.motion for row in run), 4))
    for third, run in _runs(signals, [_busy_third(row) for row in signals]):
        if third and _lasts(run, signals):
            yield _fact("busy", run, value=third)


def _busy_third(row: Signals) -> str:
    total = sum(row.motion_grid)
    thirds = {name: sum(row.motion_grid[index::3]) for index, name in enumerate(("left", "middle", "right"))}
    most = max(thirds, key=lambda name: thirds[name])
    return most if row.motion > CALM and thirds[most] >= _BUSY * total else ""


def _camera(signals: Sequence[Signals]) -> Iterator[Fact]:
    for camera, run in _runs(signals, [row.camera for row in signals]):
        if camera != "still" and len(run) >= 2:
            yield _fact("camera", run, value=camera)


def _colours(signals: Sequence[Signals], tracks: Sequence[Track]) -> Iterator[Fact]:
    named: Counter[tuple[Colour, int]] = Counter()
    for track in tracks:
        for point in track.points:
            named[track.colour, point.second] += point.thing.area  # type: ignore[assignment]
    for colour in COLOURS:
        shares = {row.second: getattr(row.colours, colour) for row in signals}
        yield _fact("most", signals, value=colour, amount=round(max(shares.values(), default=0.0), 4))
        stray = [
            row.second
            for row in signals
            if colour not in _halves(row) and shares[row.second] - 1.1 * named[colour, row.second] > _STRAY
        ]
        for start, end in joined_runs(stray):
            yield Fact(kind="stray", start=start, end=end, value=colour)


def _runs(signals: Sequence[Signals], values: Sequence[_Value]) -> Iterator[tuple[_Value, list[Signals]]]:
    for value, group in groupby(zip(values, signals, strict=True), key=lambda pair: pair[0]):
        yield value, [row for _, row in group]


def _lasts(run: Sequence[Signals], signals: Sequence[Signals]) -> bool:
    """Settled, or cut by the window's edge: its other half decides."""
    return len(run) >= _SETTLED or run[0] is signals[0] or run[-1] is signals[-1]


def _fact(kind: str, run: Sequence[Signals], **fields: object) -> Fact:
    return Fact.model_validate({"kind": kind, "start": run[0].second, "end": run[-1].second + 1, **fields})
