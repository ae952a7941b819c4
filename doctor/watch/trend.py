"""A robust trend of a measured quantity, and when it reaches zero."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trend:
    """``slope`` per second by Theil and Sen; ``falling`` is the share of pairs of samples that fall."""

    slope: float
    falling: float
    span: float
    samples: int


def theil_sen(points: Sequence[tuple[float, float]], least: int = 6) -> Trend | None:
    """The median slope over all pairs of (time, value); None with fewer than ``least`` points.

    Up to 29 % of the points may be outliers (a clean-up job, a burst) without moving it much.
    """
    if len(points) < least:
        return None
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(points)
        for later in points[index + 1 :]
        if later[0] > earlier[0]
    ]
    if not slopes:
        return None
    falling = sum(slope < 0 for slope in slopes) / len(slopes)
    return Trend(statistics.median(slopes), falling, points[-1][0] - points[0][0], len(points))


class Series:
    """The last samples of one quantity; a jump of the clock backwards starts it anew."""

    def __init__(self, keep: int = 60) -> None:
        self.points: deque[tuple[float, float]] = deque(maxlen=keep)

    def add(self, when: float, value: float) -> None:
        if self.points and when <= self.points[-1][0]:
            if when < self.points[-1][0]:
                self.points.clear()
            else:
                return
        self.points.append((when, value))

    def falls(self, least: int = 3) -> bool:
        """Whether most of it goes down by what is known so far: not yet a trend, but a reason to look closer."""
        found = theil_sen(list(self.points), least)
        return found is not None and found.slope < 0 and found.falling >= 0.8

    def trend(self) -> Trend | None:
        return theil_sen(list(self.points))
