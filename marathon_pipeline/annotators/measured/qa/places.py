"""Places in the picture, by its thirds (`column,row`), and the same seen in a mirror.

Wrong places are mirror images of the right one: which of them it is cannot be told without the video.
"""

from marathon_pipeline.annotators.measured.words import PLACES


def said_of(cell: str) -> str:
    """`in the upper left`"""
    return PLACES[int(cell[0]), int(cell[2])]


def mirrored(*cells: str) -> list[tuple[str, ...]]:
    """The cells as they lie in the three mirror images, where these differ: of a corner the other corners."""
    whole = [tuple(map(int, cell.split(","))) for cell in cells]
    images = [
        tuple(f"{2 - x if across else x},{2 - y if down else y}" for x, y in whole)
        for across, down in ((True, False), (False, True), (True, True))
    ]
    return images if len({cells, *images}) == 4 else []


def far(one: str, other: str) -> bool:
    """Whether nobody takes one for the other: two thirds away, or one in both directions."""
    across, down = abs(int(one[0]) - int(other[0])), abs(int(one[2]) - int(other[2]))
    return across == 2 or down == 2 or across == down == 1
