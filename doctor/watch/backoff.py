"""Pauses between tries that fail: growing, bounded, and never in step with other daemons."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """``period`` while all is well; doubled from failure to failure up to ``longest``, with jitter."""

    def __init__(self, period: float, longest: float = 300.0, chance: Callable[[], float] = random.random) -> None:
        self.period = period
        self.longest = longest
        self.failures = 0
        self._chance = chance

    def succeeded(self) -> float:
        """Seconds to the next try after a success."""
        self.failures = 0
        return self.period

    def failed(self) -> float:
        """Seconds to the next try after one more failure: between half of the pause and all of it."""
        self.failures += 1
        pause = min(self.longest, self.period * 2.0 ** min(self.failures, 16))
        return max(min(self.period, self.longest), pause * (0.5 + 0.5 * self._chance()))
