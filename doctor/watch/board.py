"""What the daemon tells: the rows that ``status`` shows, the journal, and news for the notifier."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING

from doctor.errors import DoctorError
from doctor.store import Store
from doctor.watch.watched import row_of

if TYPE_CHECKING:
    from doctor.watch.daemon import Daemon

log = logging.getLogger("doctor.watch")
_FIELDS = (("run", "submit_dir"), ("incident", "incident"), ("event", "event"), ("cause", "cause"))


class Board:
    """Called by the main thread alone."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._cursor = 0
        self._answered: dict[str, float] = {}  # when a source last answered an earlier process

    def begin(self) -> None:
        """Go on where an earlier process stopped telling; what happened before the first one is no news."""
        store = self._daemon.store
        self._answered = {row["name"]: row["last_good"] or 0.0 for row in store.sources()}
        known = store.cursor("notified")
        self._cursor = store.last_history() if known is None else known
        if known is None:
            store.save_cursor("notified", self._cursor)

    def answered(self, name: str) -> float:
        """When a source last answered an earlier process; 0 for never."""
        return self._answered.get(name, 0.0)

    def tell(self) -> None:
        """Hand what has happened since to the journal, the notifier and the healers."""
        daemon = self._daemon
        try:
            rows = daemon.store.history_after(self._cursor)
        except DoctorError:
            return
        while rows:
            for row in rows:
                log.info(
                    "%s %s of %s: %s", row["event"], row["incident"] or "-", row["label"] or row["submit_dir"] or "-", row["text"],
                    extra={"fields": {name: row[key] or "" for name, key in _FIELDS}},
                )  # fmt: skip
                daemon.healer.happened(row["run"], row["event"])
            cursor = self._cursor = int(rows[-1]["id"])
            daemon.writer.change(lambda store, cursor=cursor: store.save_cursor("notified", cursor))  # type: ignore[misc]
            daemon.notifier.wake()
            rows = daemon.store.history_after(self._cursor)

    def publish(self) -> None:
        """Write what ``status`` shows, where it changed."""
        daemon = self._daemon
        for name, ok, text in (
            ("writer", not daemon.writer.problem, daemon.writer.problem),
            ("notifier", not daemon.notifier.problem, daemon.notifier.problem),
            ("observers", True, ", ".join(f"{n} {how}" for how, n in daemon.observers.counts.items() if n)),
        ):
            daemon.source(name, ok, text)
        daemon.say(daemon.writer.problem)
        if daemon.writer.problem:
            return  # what is new will be told when it can be: nothing piles up
        rows = []
        for watched in list(daemon.runs.values()):
            if watched.shown and time.monotonic() - watched.last_turn > 20 and not watched.problem:
                continue
            try:
                row = row_of(watched)
            except RuntimeError:
                continue
            if row["body"] + row["state"] != watched.shown:
                watched.shown = row["body"] + row["state"]
                rows.append(row)
        sources = [
            {"name": one.name, "ok": int(one.ok), "text": one.text, "last_good": one.last_good or self.answered(one.name)}
            for one in list(daemon.sources.values())
        ]
        heart = json.dumps(
            {"pid": os.getpid(), "begun": daemon.begun, "runs": len(daemon.runs), "lines": daemon.lines, "diagnosed": daemon.diagnosed,
             "backlog": daemon.writer.backlog, "waiting": len(daemon.ready), "mode": daemon.policy.mode, "healing": daemon.healer.active}
        )  # fmt: skip
        sources.append({"name": "daemon", "ok": 1, "text": heart, "last_good": daemon.clock()})

        def change(store: Store) -> None:
            if rows:
                store.save_watched(rows)
            store.save_sources(sources)

        daemon.writer.change(change)
