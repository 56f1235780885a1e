"""Names of colours: a table from every (coarse) BGR value to one of the eleven names.

In HSV, hue in degrees, saturation S and value V from 0 to 1:

- black: V < 0.20, or V < 0.30 where S < 0.30;
- white, grey: S < 0.18, or S * V < 0.10; white where V > 0.80;
- red 345-14, orange 14-42, yellow 42-68, green 68-165, blue 165-258, purple 258-295, pink 295-345;
- brown instead of orange and red (5-45): V < 0.62, or S < 0.50; pink instead of red: S < 0.55 and V > 0.62.

A value is *strong* where a person would call it by its hue without hesitation: S >= 0.55, V >= 0.42 (blue and purple
V >= 0.35: they are dark by nature), and no closer than a few degrees to the next name's hues.
"""

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.records import Colour

NAMES: tuple[Colour, ...] = get_args(Colour)
NONE = len(NAMES)  # no strong colour
_BITS = 5
_HUES: tuple[tuple[float, Colour], ...] = (  # each up to this hue
    (14, "red"),
    (42, "orange"),
    (68, "yellow"),
    (165, "green"),
    (258, "blue"),
    (295, "purple"),
    (345, "pink"),
    (360, "red"),
)
_STRONG: dict[Colour, tuple[float, float, float]] = {  # hues from, to (past 360: around), least V
    "red": (346, 372, 0.42),
    "orange": (16, 40, 0.70),
    "yellow": (44, 66, 0.55),
    "green": (75, 160, 0.35),
    "blue": (180, 255, 0.35),
    "purple": (262, 292, 0.35),
    "pink": (300, 343, 0.60),
}
_STRONG_SATURATION = 0.55


def names(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Index into `NAMES` of each pixel, and the same where its colour is strong, else `NONE`. image: (..., 3) BGR."""
    codes = _codes(image)
    return _NAME[codes], _STRONG_NAME[codes]


def _codes(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    high = (image >> (8 - _BITS)).astype(np.uint16)
    codes = (high[..., 0] << (2 * _BITS)) | (high[..., 1] << _BITS) | high[..., 2]
    return codes.astype(np.uint16, copy=False)


def _hsv() -> tuple[NDArray[np.float64], ...]:
    """Hue (degrees), S and V of every coarse BGR value, in the order of `_codes`."""
    code = np.arange(1 << (3 * _BITS))
    mask = (1 << _BITS) - 1
    blue, green, red = (((code >> shift & mask) + 0.5) / (mask + 1) for shift in (2 * _BITS, _BITS, 0))
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    safe = np.where(spread == 0, 1, spread)
    hue = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return hue * 60, spread / value, value


def _name_table() -> NDArray[np.uint8]:
    hue, saturation, value = _hsv()
    table = np.full(hue.shape, NAMES.index("red"), np.uint8)
    for upto, name in reversed(_HUES):
        table[hue < upto] = NAMES.index(name)
    brownish = (hue >= 5) & (hue < 45) & ((value < 0.62) | (saturation < 0.5))
    table[brownish] = NAMES.index("brown")
    table[(table == NAMES.index("red")) & (saturation < 0.55) & (value > 0.62)] = NAMES.index("pink")
    neutral = (saturation < 0.18) | (saturation * value < 0.10)
    table[neutral] = NAMES.index("grey")
    table[neutral & (value > 0.8)] = NAMES.index("white")
    table[(value < 0.2) | ((value < 0.3) & (saturation < 0.3))] = NAMES.index("black")
    return table


def _strong_table() -> NDArray[np.uint8]:
    hue, saturation, value = _hsv()
    table = np.full(hue.shape, NONE, np.uint8)
    for name, (low, high, least) in _STRONG.items():
        turned = np.where(hue < high - 360, hue + 360, hue)
        table[(turned >= low) & (turned < high) & (value >= least) & (saturation >= _STRONG_SATURATION)] = NAMES.index(
            name
        )
    return table


_NAME = _name_table()
_STRONG_NAME = _strong_table()
