"""Messages to people through apprise: on new, waiting, recovered and escalated incidents.

The history in the store is the queue. Each URL has a thread and a stored place in the history of its own: a
notifier that hangs or fails delays its own messages alone, never the daemon, and a restart goes on where the last
message was accepted. A message is sent again only where it is not known that it arrived.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from doctor.watch.config import Notify
from doctor.watch.message import event_of, kind_of, message, summed_up, targets, through_apprise

log = logging.getLogger(__name__)

_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 3600.0  # between two tries of one message; doubles each time
_GIVE_UP_S = 86_400.0  # after so long a message is dropped
_STALE_S = 3 * 86_400.0  # nobody is told of what happened longer ago, such as before a URL was used again
_PAGE = 1000
Send = Callable[[str, str, str], None]


class History(Protocol):
    """What is needed of the store."""

    def history_after(self, after: int, limit: int = ...) -> list[dict[str, Any]]: ...
    def cursor(self, name: str) -> int | None: ...
    def last_history(self) -> int: ...


Save = Callable[[str, int], None]


class Target:
    """One URL. Everything but :meth:`wake` and :meth:`stop` runs in its own thread."""

    def __init__(self, number: int, url: str, settings: Notify, store: History, save: Save, send: Send) -> None:
        self.url, self.settings = url, settings
        self.name = f"{kind_of(url)} (URL {number})"
        self._store, self._save, self._send = store, save, send
        self._cursor = f"notify:{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._position = -1
        self._times: deque[float] = deque()  # monotonic, of the last hour's messages
        self._first_try = self._not_before = 0.0
        self._tries = 0
        self._event = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=f"notifier-{number}", daemon=True)
        self.sent = self.failed = 0
        self.problem = ""

    def start(self) -> None:
        self._thread.start()

    def wake(self, at_once: bool = False) -> None:
        if at_once:
            self._not_before = 0.0
        self._event.set()

    def stop(self) -> None:
        self._ended = True
        self._event.set()

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _work(self) -> None:
        while not self._ended:
            try:
                pause = self._round()
            except Exception as problem:  # noqa: BLE001 - the store is locked, or a bug: the other parts go on
                self.problem, pause = f"{self.name}: {type(problem).__name__}: {problem}", 30.0
            if pause > 0 and not self._ended:
                self._event.wait(pause)
                self._event.clear()

    def _round(self) -> float:
        """Send at most one message; after how many seconds to look again at the latest."""
        if self._position < 0:
            self._position = self._begin()
        left = self._not_before - time.monotonic()
        if left > 0:
            return left
        rows = self._store.history_after(self._position, _PAGE)
        waiting = [row for row in rows if event_of(row) in self.settings.events and row["time"] > time.time() - _STALE_S]
        if not waiting:
            if rows:
                self._move(rows[-1]["id"])
            return 0.0 if len(rows) == _PAGE else 60.0
        room, free_in = self._room()
        if not room:
            return free_in
        if room == 1 and len(waiting) > 1:  # the last one that the hour allows tells of all that wait
            upto, (title, body) = waiting[-1]["id"], summed_up(self.settings, waiting)
        else:
            upto, (title, body) = waiting[0]["id"], message(self.settings, waiting[0])
        return self._deliver(upto, title, body)

    def _begin(self) -> int:
        known = self._store.cursor(self._cursor)
        if known is None:
            known = self._store.cursor("notified")  # where the daemon itself is: nothing of before is told
            known = self._store.last_history() if known is None else known
            self._save(self._cursor, known)
        return known

    def _move(self, position: int) -> None:
        self._position = position
        self._save(self._cursor, position)

    def _room(self) -> tuple[int, float]:
        """(messages that this hour still allows, seconds until the next when there is none)."""
        now = time.monotonic()
        while self._times and now - self._times[0] >= 3600:
            self._times.popleft()
        room = self.settings.per_hour - len(self._times)
        return max(0, room), min(60.0, 3600 - (now - self._times[0])) if room <= 0 else 0.0

    def _deliver(self, upto: int, title: str, body: str) -> float:
        now = time.monotonic()
        self._first_try = self._first_try if self._tries else now
        try:
            self._send(self.url, title, body)
        except Exception as problem:  # noqa: BLE001 - a plug-in's fault is its own
            return self._failed(upto, now, problem)
        self._times.append(time.monotonic())
        self._tries, self._not_before, self.problem = 0, 0.0, ""
        self.sent += 1
        self._move(upto)
        return 0.0

    def _failed(self, upto: int, now: float, problem: Exception) -> float:
        self._tries += 1
        why = str(problem) if isinstance(problem, RuntimeError) else type(problem).__name__  # others may quote the URL
        self.problem = f"{self.name}: {why}"
        if self._tries == 1:
            log.warning("a notification could not be sent, will be tried again: %s", self.problem)
        if now - self._first_try >= _GIVE_UP_S:
            log.warning("a notification is dropped: %s", self.problem)
            self.failed, self._tries = self.failed + 1, 0
            self._move(upto)
            return 0.0
        pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0 ** min(self._tries - 1, 20))
        self._not_before = time.monotonic() + pause
        return pause


class Notifier:
    """All targets. ``save`` stores a place in the history; it must return at once."""

    def __init__(self, settings: Notify, store: History, save: Save, send: Send = through_apprise) -> None:
        self.settings = settings
        self._store, self._save, self._send = store, save, send
        self._targets: dict[str, Target] = {}
        self._retired = [0, 0]
        self._unreadable = ""
        self._started = False
        self.configure(settings)

    def start(self) -> None:
        self._started = True
        for target in self._targets.values():
            target.start()

    def configure(self, settings: Notify) -> None:
        """Take over other settings. URLs that stay keep their place and their count of the hour."""
        self.settings = settings
        urls, self._unreadable = targets(settings)
        for url in [url for url in self._targets if url not in urls]:
            gone = self._targets.pop(url)
            gone.stop()
            self._retired = [self._retired[0] + gone.sent, self._retired[1] + gone.failed]
        for number, url in enumerate(urls, 1):
            if url in self._targets:
                self._targets[url].settings = settings
                self._targets[url].wake(at_once=True)
                continue
            self._targets[url] = Target(number, url, settings, self._store, self._save, self._send)
            if self._started:
                self._targets[url].start()

    def wake(self) -> None:
        """Something has happened."""
        for target in list(self._targets.values()):
            target.wake()

    @property
    def sent(self) -> int:
        return self._retired[0] + sum(target.sent for target in list(self._targets.values()))

    @property
    def failed(self) -> int:
        return self._retired[1] + sum(target.failed for target in list(self._targets.values()))

    @property
    def problem(self) -> str:
        problems = [self._unreadable, *(target.problem for target in list(self._targets.values()))]
        return "; ".join(problem for problem in problems if problem)

    def stop(self, seconds: float = 1.0) -> None:
        """End; a message that is just being sent is given a moment to be acknowledged."""
        end = time.monotonic() + seconds
        chosen = list(self._targets.values())
        for target in chosen:
            target.stop()
        for target in chosen:
            target.join(max(0.0, end - time.monotonic()))
