"""The model's answers and what they cost, and earlier incidents like one."""

from __future__ import annotations

from typing import Any

from doctor.loop.records import IncidentRow
from doctor.store.incidents import Incidents


class Answers(Incidents):
    """Answers that were paid for are kept; every call is counted."""

    def llm_answer(self, key: str, model: str, version: str, run: str, fingerprint: str) -> str | None:
        """The answer kept under a key, else the latest one to the same failure of the same run."""
        rows = self._rows("select body from llm_answers where key = ?", key)
        if not rows and run:
            rows = self._rows(
                "select body from llm_answers where run = ? and fingerprint = ? and model = ? and version = ? "
                "order by created desc limit 1",
                run,
                fingerprint,
                model,
                version,
            )
        return str(rows[0]["body"]) if rows else None

    def save_llm_answer(self, key: str, model: str, version: str, run: str, fingerprint: str, body: str) -> None:
        row = {"model": model, "version": version, "run": run, "fingerprint": fingerprint, "body": body, "created": self.clock()}
        with self.batch():
            self._db.table("llm_answers").upsert({"key": key, **row}, pk="key")

    def llm_answers(self, fingerprint: str) -> list[dict[str, Any]]:
        """Kept answers to a failure whose fingerprint begins so, the latest first."""
        return self._rows(
            "select model, run, fingerprint, body, created from llm_answers where substr(fingerprint, 1, ?) = ? order by created desc",
            len(fingerprint),
            fingerprint,
        )

    def add_llm_usage(self, row: dict[str, Any]) -> None:
        """What one call cost, whatever came of it."""
        with self.batch():
            self._insert("llm_usage", {**row, "time": self.clock()})

    def llm_spent(self, *, run: str | None = None, since: float = 0.0) -> dict[str, Any]:
        """Calls, tokens and dollars of one run or of all since a time."""
        return self._rows(
            "select coalesce(sum(calls), 0) as calls, coalesce(sum(sent), 0) as sent, coalesce(sum(received), 0) as received,"
            " coalesce(sum(cache_written), 0) as cache_written, coalesce(sum(cache_read), 0) as cache_read,"
            " coalesce(sum(dollars), 0.0) as dollars from llm_usage where time >= ? and (? is null or run = ?)",
            since,
            run,
            run,
        )[0]

    def llm_usage(self, since: float = 0.0) -> list[dict[str, Any]]:
        """What was spent per day (UTC) and model, the latest day first."""
        return self._rows(
            "select date(time, 'unixepoch') as day, model, sum(calls) as calls, sum(sent) as sent, sum(received) as received,"
            " sum(cache_written) as cache_written, sum(cache_read) as cache_read, sum(dollars) as dollars,"
            " sum(outcome = 'answered') as answered, sum(outcome = 'abstained') as abstained,"
            " sum(outcome not in ('answered', 'abstained')) as failed"
            " from llm_usage where time >= ? group by 1, 2 order by 1 desc, 2",
            since,
        )

    def past_incidents(self, fingerprint: str, cause: str, run: str, limit: int = 3) -> list[IncidentRow]:
        """Ended incidents of other runs with the same fingerprint, then with the same cause, the latest first."""
        found = self._incidents(
            "incidents.run != ? and incidents.stage in ('recovered', 'escalated') and (incidents.fingerprint = ? or incidents.cause = ?)",
            run,
            fingerprint,
            cause,
        )
        found.sort(key=lambda row: (row.incident.id != fingerprint, -row.updated))
        return found[:limit]
