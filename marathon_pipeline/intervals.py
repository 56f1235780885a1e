"""How far a counted share may be from the true one."""

from math import sqrt


def wilson(part: float, whole: float, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share (Wilson 1927), by default that of 95 %; all of it where nothing was counted."""
    if not whole:
        return 0.0, 1.0
    share, spread = part / whole, z * z / whole
    middle, half = share + spread / 2, z * sqrt((share * (1 - share) + spread / 4) / whole)
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))
