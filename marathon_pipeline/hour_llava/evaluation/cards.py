"""Needles: cards that fill the picture of a long synthetic video for a moment, each asked for by its pattern.

A card is one of four patterns in one of seven colours. A video shows no pattern twice, so a question names one moment
and the answer is seen nowhere else: who does not look at that second can only guess.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from marathon_pipeline.records import LETTERS, Colour, Format, Span, Split, digest
from marathon_pipeline.synthetic.render import VIVID, rgb

PATTERNS = ("plain", "striped", "barred", "chequered")
COLOURS: tuple[Colour, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
PERIODS = 8  # of a pattern, over the picture's height and over its width: it is still one at 32 x 32 pixels


class CardSettings(BaseModel):
    """Which videos are made. The same settings make the same videos."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minutes: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 60.0)
    videos: int = Field(10, ge=1)  # of each length; few of them, and the intervals are wide
    cards: int = Field(4, ge=1, le=len(PATTERNS))  # in a video, spread over its depth
    seconds: tuple[int, int] = (1, 1)  # that a card is seen, from the first to the second, short ones more often
    seed: int = 0
    height: int = Field(180, ge=90, multiple_of=90)
    split: Split = "test"
    formats: tuple[Format, ...] = ("open", "choice")  # each card is asked for in

    @model_validator(mode="after")
    def _can_be_shown(self) -> "CardSettings":
        if not self.minutes or not all(1 <= minutes <= 24 * 60 for minutes in self.minutes):
            raise ValueError("minutes: give one length or more, each of 1 to 1,440 minutes")
        least, most = self.seconds
        if not 1 <= least <= most:
            raise ValueError(f"seconds: {least} to {most} is no range; give the shortest first, 1 or more")
        if most * self.cards * 2 > 60 * min(self.minutes):
            raise ValueError(f"seconds: {self.cards} cards of {most} s do not fit a video of {min(self.minutes):g} min")
        return self


@dataclass(frozen=True)
class Card:
    pattern: str
    colour: Colour
    span: Span

    @property
    def question(self) -> str:
        return f"A {self.pattern} card fills the picture for a moment. What colour is it?"


def cards_of(settings: CardSettings, minutes: float, seed: int) -> list[Card]:
    """The cards of one video, in time: one in each of as many equal parts of it, anywhere there."""
    rng = _random("cards", seed)
    patterns = rng.sample(PATTERNS, settings.cards)
    least, most = settings.seconds
    part = 60 * minutes / settings.cards
    cards = []
    for number, pattern in enumerate(patterns):
        length = min(most, round(least * (most / least) ** rng.random()))
        start = int(number * part) + rng.randrange(int(part) - length)
        cards.append(Card(pattern, rng.choice(COLOURS), Span(start=start, end=start + length)))
    return cards


def options_of(card: Card, seed: int) -> tuple[tuple[str, ...], str]:
    """Four colours in any order, the card's own among them, and its letter."""
    rng = _random("options", seed, card.pattern)
    options = [card.colour, *rng.sample([colour for colour in COLOURS if colour != card.colour], len(LETTERS) - 1)]
    rng.shuffle(options)
    return tuple(options), LETTERS[options.index(card.colour)]


def picture_of(card: Card, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB; what is not of its colour is white."""
    across = (np.arange(width) * 2 * PERIODS // width) % 2 == 0
    down = (np.arange(height) * 2 * PERIODS // height)[:, None] % 2 == 0
    coloured = {
        "plain": np.ones((height, width), dtype=bool),
        "striped": np.broadcast_to(down, (height, width)),
        "barred": np.broadcast_to(across, (height, width)),
        "chequered": across == down,
    }[card.pattern]
    return np.where(coloured[..., None], rgb(VIVID[card.colour]), 255.0).astype(np.uint8)


def numbered(settings: CardSettings) -> Iterator[tuple[str, float, int]]:
    """Of each video its id, its minutes and its own seed."""
    for minutes in settings.minutes:
        for index in range(settings.videos):
            seed = int(digest(["needle", settings.seed, minutes, index])[:8], 16)
            yield f"needle_{settings.seed}_{round(60 * minutes)}s_{index:04}", minutes, seed


def _random(*of: object) -> Random:
    return Random(int(digest([*of])[:16], 16))  # noqa: S311
