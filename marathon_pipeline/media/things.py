"""Compact, strongly coloured regions that stand out from what surrounds them."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.media.colours import NAMES, NONE
from marathon_pipeline.records import Shape, Thing

_AREA = (0.002, 0.25)  # share of the picture: smaller has no outline, larger is scenery
_SOLIDITY = 0.86  # of the region to its convex hull: less is a tangle, or several things
_CLEAN = 0.9  # the same, from which an outline is clean enough to be named
_RING = (
    0.2  # share of a region's surroundings that may be close to its colour: more, and it is part of something larger
)
_CLOSE = 60.0  # distance in BGR under which two colours are close
_HUES = 18  # degrees of hue within which a saturated, not too dark colour is close as well: grass in darker grass
_FRAME = 0.33  # share of a region's surroundings that may lie outside the picture
_BAND = 2.5  # a region at the picture's edge that is longer than this is a strip of scenery
_MOST = 12  # things a second: a picture with more of them is a pattern
_KERNEL = np.ones((3, 3), np.uint8)


def things_in(image: NDArray[np.uint8], coloured: NDArray[np.uint8]) -> tuple[tuple[Thing, ...], NDArray[np.bool_]]:
    """The things in one picture, largest first, and a mask of what they cover.

    image: (height, width, 3) BGR; coloured: (height, width), its strong colours by `colours.names`.
    """
    pixels = coloured.size
    rows, columns = coloured.shape
    covered = np.zeros(coloured.shape, bool)
    found: list[Thing] = []
    counts = np.bincount(coloured.ravel(), minlength=NONE + 1)
    for index in np.flatnonzero(counts[:NONE] >= _AREA[0] * pixels):
        mask = (coloured == index).view(np.uint8)
        whole = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _KERNEL)
        if cv2.countNonZero(whole) < _AREA[0] * pixels:
            continue
        _, labels, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=8, ltype=cv2.CV_16U)
        areas = stats[1:, cv2.CC_STAT_AREA]
        for label in 1 + np.flatnonzero((areas >= _AREA[0] * pixels) & (areas <= _AREA[1] * pixels)):
            x, y, width, height, area = (int(value) for value in stats[label])
            region = (labels[y : y + height, x : x + width] == label).view(np.uint8)
            cut = x == 0 or y == 0 or x + width == columns or y + height == rows
            if (cut and max(width, height) > _BAND * min(width, height)) or not _stands_out(image, region, x, y):
                continue
            shape = _shape(region, cut)
            if shape is None:
                continue
            covered[y : y + height, x : x + width] |= region.view(bool)
            found.append(
                Thing(
                    colour=NAMES[index],
                    shape=shape,
                    x=round((x + width / 2) / columns, 3),
                    y=round((y + height / 2) / rows, 3),
                    width=round(width / columns, 3),
                    height=round(height / rows, 3),
                    area=round(area / pixels, 4),
                )
            )
    found.sort(key=lambda thing: (-thing.area, thing.x, thing.y))
    return tuple(found[:_MOST]), covered


def _stands_out(image: NDArray[np.uint8], region: NDArray[np.uint8], x: int, y: int) -> bool:
    """Whether a ring around a region (two pixels off its blurred edge) lies in the picture and has other colours."""
    height, width = region.shape
    wide = 3 + max(height, width) // 10
    padded = cv2.copyMakeBorder(region, wide, wide, wide, wide, cv2.BORDER_CONSTANT)
    ring = cv2.dilate(padded, np.ones((2 * wide + 1, 2 * wide + 1), np.uint8)) - cv2.dilate(
        padded, np.ones((5, 5), np.uint8)
    )
    top, left = max(0, y - wide), max(0, x - wide)
    around = image[top : y + height + wide, left : x + width + wide]
    inside = ring[top - y + wide :, left - x + wide :][: around.shape[0], : around.shape[1]].view(bool)
    seen = int(inside.sum())
    if seen < (1 - _FRAME) * ring.sum():
        return False
    own = image[y : y + height, x : x + width][region.view(bool)].mean(axis=0)
    others = around[inside]
    close = np.linalg.norm(others - own, axis=1) < _CLOSE
    hue, saturation, value = _hsv(others)
    apart = np.abs((hue - _hsv(own[None].astype(np.uint8))[0] + 180) % 360 - 180)
    close |= (apart < _HUES) & (saturation > 0.5) & (value > 0.2)
    return bool(close.sum() <= _RING * seen)


def _hsv(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    """Hue in degrees, saturation and value from 0 to 1 of pixels, (n, 3) BGR."""
    hsv = cv2.cvtColor(pixels[None], cv2.COLOR_BGR2HSV)[0].astype(np.float32)
    return hsv[:, 0] * 2, hsv[:, 1] / 255, hsv[:, 2] / 255


def _shape(region: NDArray[np.uint8], cut: bool) -> Shape | None:
    """The outline of a region, `thing` where none is clear or the picture cuts it off; None where it is not compact."""
    scale = max(1, math.ceil(64 / max(region.shape)))  # pixels are squares: enlarged, their corners count
    large = cv2.copyMakeBorder(region.repeat(scale, axis=0).repeat(scale, axis=1), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(contours, key=cv2.contourArea)
    hull = cv2.convexHull(outline)
    hull_area = max(1.0, cv2.contourArea(hull))
    solidity = large.sum() / hull_area
    if solidity < _SOLIDITY:
        return None
    if cut or solidity < _CLEAN:
        return "thing"
    (_, (side, other), _) = cv2.minAreaRect(hull)
    long, short = max(side, other), max(1.0, min(side, other))
    _, radius = cv2.minEnclosingCircle(hull)
    triangle_area, _ = cv2.minEnclosingTriangle(hull)
    boxed, rounded, pointed = (
        hull_area / (long * short),
        hull_area / (math.pi * radius * radius),
        hull_area / max(1.0, triangle_area),
    )
    if rounded >= 0.82:  # a square fills 0.64 of its circle, a pentagon 0.76
        return "circle"
    if boxed >= 0.93:  # a circle fills 0.79 of its box
        return "square" if long <= 1.2 * short else "bar" if long >= 1.8 * short else "thing"
    if pointed >= 0.85 and boxed <= 0.72:  # a circle fills 0.60 of its triangle
        return "triangle"
    return "thing"
