"""Typed facts about one window of a video: what its measured signals entail, and no more.

Kinds, and what their fields hold (`start` to `end` in seconds of the video; a moment is one second long):

- `setting`: subject the colour above, other the colour below (empty: none prevails); amount the mean brightness.
- `cut`: the picture changes at once.
- `activity`: value `calm` or `lively`; amount the mean motion. Seconds between the two levels have none.
- `busy`: value the third of the picture (`left`, `middle`, `right`) that holds most of the movement.
- `camera`: value where it turns.
- `most`: value a colour; amount the largest share of the picture that it had: the ground for saying `never`.
- `stray`: value a colour seen outside the things named and the setting: while it lasts, no thing of it is said absent.
- `glimpse`: subject was seen, perhaps: for less than a stretch of `visible`, or by another outline than the usual one.
- `visible`: subject is in the picture; amount its mean area.
- `several`: more than one subject of this name is in the picture: nothing is said that needs it to be one.
- `enters`, `leaves`: subject passes the side `value` of the picture.
- `moves`: subject moves in the direction `value`, by `amount` of the picture.
- `paces`: subject goes back and forth, value `sideways` or `up and down`, amount legs.
- `rests`: subject stays where it is; value the third of the picture, `column,row`, empty near a border of thirds.
- `grows`, `shrinks`: amount how many times larger or smaller the area becomes.
- `turns`: subject takes the colour `value`; other is its new name.
- `reaches`: subject comes up against other, which was at rest.
- `nears`: subject comes so near to other, which was at rest, that it may have come up against it.
- `sets_off`: as subject reaches other, other begins to move in the direction `value`.
- `recolours`: as subject reaches other, other takes the colour `value`.
- `beside`: both are at rest, and subject is `left of`, `above` or, in neither way, `askew` of other (value).
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from marathon_pipeline.annotators.measured import motion, scenery
from marathon_pipeline.annotators.measured.shots import joined_shots
from marathon_pipeline.annotators.measured.tracks import GAP, Track, follow, joined_runs
from marathon_pipeline.annotators.measured.words import name_of
from marathon_pipeline.records import Clip, Fact, Signals

Kind = Literal[
    "setting", "cut", "activity", "busy", "camera", "most", "stray", "glimpse", "visible", "several",
    "enters", "leaves", "moves", "paces", "rests", "grows", "shrinks", "turns",
    "reaches", "nears", "sets_off", "recolours", "beside",
]  # fmt: skip


def observe(clip: Clip, signals: Sequence[Signals]) -> tuple[Fact, ...]:
    """The facts of one window, by start, kind and subject. `signals`: the window's seconds."""
    signals = joined_shots(signals)
    followed = follow(signals)
    tracks = [track for track in followed if _lasts(track, clip)]
    found = [
        *scenery.facts(signals, tracks),
        *motion.facts(signals, tracks),
        *_several(tracks),
        *_glimpses(followed, tracks),
    ]
    return tuple(sorted(found, key=lambda fact: (fact.start, fact.kind, fact.subject, fact.other, fact.value)))


def _lasts(track: Track, clip: Clip) -> bool:
    """Long enough to be there, or cut by the window's edge: its other half decides."""
    return track.end - track.start >= GAP or track.start <= clip.start or track.end >= int(clip.end)


def _several(tracks: Sequence[Track]) -> Iterator[Fact]:
    for index, one in enumerate(tracks):
        for other in tracks[index + 1 :]:
            start, end = max(one.start, other.start), min(one.end, other.end)
            if one.colour == other.colour and one.shape == other.shape and start < end:
                yield Fact(kind="several", start=start, end=end, subject=name_of(one.colour, one.shape))


def _glimpses(followed: Sequence[Track], tracks: Sequence[Track]) -> Iterator[Fact]:
    seconds: dict[str, list[int]] = {}
    for track in followed:
        for point in track.points:
            if track not in tracks or point.thing.shape not in (track.shape, "thing"):
                seconds.setdefault(name_of(track.colour, point.thing.shape), []).append(point.second)
    for subject, seen in seconds.items():
        for start, end in joined_runs(seen):
            yield Fact(kind="glimpse", start=start, end=end, subject=subject)
