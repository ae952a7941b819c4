"""Which runs want a turn: each at most once, first come first served, never two turns of one run at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict


class Ready:
    """Bounded by the number of runs, whatever the number of notifications."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._busy: set[str] = set()
        self._wake = threading.Condition()
        self._stop = False

    def wake(self, key: str) -> None:
        if key in self._waiting:  # without the lock: the common case of a burst
            return
        with self._wake:
            self._waiting.setdefault(key, time.monotonic())
            self._wake.notify()

    def take(self, timeout: float = 5.0) -> tuple[str, float] | None:
        """The next run and since when it waits; None after ``timeout`` or at the end."""
        with self._wake:
            until = time.monotonic() + timeout
            while not self._stop:
                key = next((key for key in self._waiting if key not in self._busy), None)
                if key is not None:
                    since = self._waiting.pop(key)
                    self._busy.add(key)
                    return key, since
                left = until - time.monotonic()
                if left <= 0:
                    return None
                self._wake.wait(left)
            return None

    def done(self, key: str, again: bool) -> None:
        with self._wake:
            self._busy.discard(key)
            if again:
                self._waiting.setdefault(key, time.monotonic())
            if key in self._waiting:
                self._wake.notify()

    def stop(self) -> None:
        with self._wake:
            self._stop = True
            self._wake.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)
