"""Messages to people through apprise: on new, waiting, recovered and escalated incidents.

What happened is read from the store's history behind a stored cursor, so that nothing is lost or sent
twice over a restart. Sending is a thread of its own: a notifier that hangs or fails delays messages,
never the daemon.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from doctor.watch.config import Notify

log = logging.getLogger(__name__)
_TRIES = 3
Send = Callable[[list[str], str, str], bool]


def through_apprise(urls: list[str], title: str, body: str) -> bool:
    """Send one message to all URLs; False when one refused it."""
    import apprise

    club = apprise.Apprise()
    for url in urls:
        club.add(url)
    return bool(club.notify(title=title, body=body))


def event_of(row: dict[str, Any]) -> str:
    """Which of the four events a line of the history is; '' for none."""
    if row["event"] == "opened":
        return "new"
    if row["event"] == "state":
        after = str(row["text"]).partition(" -> ")[2].partition(":")[0]
        return after if after in ("waiting", "recovered", "escalated") else ""
    return ""


def targets(settings: Notify) -> list[str]:
    """The URLs of the configuration and of the file (or credential) that it names."""
    urls = list(settings.urls)
    if settings.urls_file:
        try:
            with open(os.path.expandvars(os.path.expanduser(settings.urls_file)), encoding="utf-8") as stream:
                urls += [line.strip() for line in stream if line.strip() and not line.startswith("#")]
        except OSError as problem:
            log.warning("notify.urls_file: %s", problem)
    return urls


class Notifier:
    """Turns history into messages at a bounded rate; what exceeds it is summed up in one message."""

    def __init__(self, settings: Notify, send: Send = through_apprise, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._send = send
        self._clock = clock
        self._sent: deque[float] = deque()
        self._queue: deque[tuple[str, str]] = deque(maxlen=1000)
        self._held_back: list[str] = []
        self._wake = threading.Event()
        self._stop = False
        self.urls = targets(settings)
        self.sent = 0
        self.failed = 0
        self.problem = ""
        self.last_good = 0.0

    def start(self) -> None:
        threading.Thread(target=self._work, name="notifier", daemon=True).start()

    def offer(self, rows: list[dict[str, Any]]) -> None:
        """Lines of the history, oldest first. Returns at once."""
        if not self.urls:
            return
        for row in rows:
            event = event_of(row)
            if event not in self.settings.events:
                continue
            title, body = self.text(event, row)
            if self._allowed():
                self._queue.append((title, body))
            else:
                self._held_back.append(title)
        self._flush_held_back()
        if self._queue:
            self._wake.set()

    def text(self, event: str, row: dict[str, Any]) -> tuple[str, str]:
        fields = {
            "event": event, "label": row.get("label") or "", "run": row.get("submit_dir") or "", "incident": row.get("incident") or "",
            "cause": row.get("cause") or "", "summary": row.get("summary") or "", "reason": str(row["text"]).partition(": ")[2],
            "host": socket.gethostname(),
        }  # fmt: skip
        return self.settings.title.format(**fields), self.settings.body.format(**fields)

    def _allowed(self) -> bool:
        now = self._clock()
        while self._sent and now - self._sent[0] > 3600:
            self._sent.popleft()
        if len(self._sent) >= self.settings.per_hour:
            return False
        self._sent.append(now)
        return True

    def _flush_held_back(self) -> None:
        if self._held_back and self._allowed():
            titles, self._held_back = self._held_back, []
            body = "\n".join(titles[:50]) + (f"\nand {len(titles) - 50} more" if len(titles) > 50 else "")
            self._queue.append((f"[pegasus-doctor] {len(titles)} more events", body))

    def tick(self) -> None:
        """Send what was held back once the hour allows it."""
        self._flush_held_back()
        if self._queue:
            self._wake.set()

    def _work(self) -> None:
        while not self._stop:
            self._wake.wait(60)
            self._wake.clear()
            while self._queue and not self._stop:
                self._deliver(*self._queue.popleft())

    def _deliver(self, title: str, body: str) -> None:
        for attempt in range(_TRIES):
            try:
                if self._send(self.urls, title, body):
                    self.sent += 1
                    self.problem, self.last_good = "", time.time()
                    return
                self.problem = "a notifier refused the message"
            except Exception as problem:  # noqa: BLE001 - a plug-in's fault is its own
                self.problem = f"{type(problem).__name__}: {problem}"
            if self._stop:
                return
            time.sleep(min(5.0, 0.5 * 2**attempt))
        self.failed += 1
        log.warning("a notification could not be sent: %s", self.problem)

    def stop(self) -> None:
        self._stop = True
        self._wake.set()
