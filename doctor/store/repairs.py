"""Repairs: plans, the guards' answers, the journal of acts, rescues and outcomes."""

from __future__ import annotations

import json
from typing import Any

from doctor.loop.records import Entry, IncidentRow, PlanRow, plain, plan_from
from doctor.loop.stages import Stage
from doctor.repair import GuardAnswer, Plan
from doctor.store.incidents import Incidents


class Repairs(Incidents):
    """What was to be done, what was done, and whether it helped: the intent before the act, the result after it."""

    def add_plan(self, row: IncidentRow, attempt: int, plan: Plan, key: str, baseline: dict[str, Any], *, id_: int | None = None) -> int:
        """Keep a plan; with ``id_`` it replaces the one of that number."""
        values = {
            "incident": row.id, "run": row.run, "attempt": attempt, "action": plan.action, "job": plan.job, "key": key,
            "body": json.dumps(plain(plan)), "baseline": json.dumps(baseline),
        }  # fmt: skip
        with self.batch():
            if id_ is not None:
                self._update("plans", id_, **values)
                return id_
            return self._insert("plans", {**values, "state": "proposed", "reason": "", "created": self.clock(), "applied": None})

    def plan_state(self, plan: int, state: str, reason: str = "") -> None:
        with self.batch():
            values: dict[str, Any] = {"state": state, "reason": reason}
            if state == "applied":
                values["applied"] = self.clock()
            self._update("plans", plan, **values)

    def plans(self, incident: str, *, attempt: int | None = None, states: tuple[str, ...] = ()) -> list[PlanRow]:
        rows = self._rows("select * from plans where incident = ? order by id", incident)
        return [
            PlanRow(
                row["id"], row["incident"], row["attempt"], plan_from(json.loads(row["body"])), row["key"], row["state"], row["reason"],
                json.loads(row["baseline"]), row["created"], row["applied"],
            )
            for row in rows
            if (attempt is None or row["attempt"] == attempt) and (not states or row["state"] in states)
        ]  # fmt: skip

    def planned_again(self, run: str) -> str:
        """The submit directory of the run that took this one's place because it was planned again; '' when none did."""
        rows = self._rows(
            "select json_extract(body, '$.new_run') as place from plans where run = ? and state = 'applied' order by id desc", run
        )
        return next((row["place"] for row in rows if row["place"]), "")

    def add_verdict(self, plan: int, answers: tuple[GuardAnswer, ...]) -> None:
        """The guards' answers on a plan; they replace earlier ones."""
        now = self.clock()
        with self.batch():
            table = self._db.table("verdicts")
            table.delete_where("plan = ?", [plan])
            table.insert_all(
                {"plan": plan, "guard": one.guard, "decision": one.decision.value, "reason": one.reason, "time": now} for one in answers
            )

    def verdicts(self, plan: int) -> list[dict[str, Any]]:
        return self._rows("select guard, decision, reason from verdicts where plan = ? order by id", plan)

    def begin_attempt(self, row: IncidentRow) -> None:
        """The intent to act: one more attempt is counted, and the incident is in ``acting``, before anything is done."""
        with self.batch():
            current = self.incident(row.id)
            self.move(row.id, Stage.ACTING)
            self._update("incidents", row.id, attempts=current.attempts + 1)

    def forget_attempt(self, incident: str) -> None:
        """An attempt of which nothing was done does not count."""
        with self.batch():
            self._update("incidents", incident, attempts=max(0, self.incident(incident).attempts - 1))

    def journal(self, plan: int) -> PlanJournal:
        """The journal for one plan (implements :class:`doctor.repair.Journal`)."""
        return PlanJournal(self, plan)

    def entries(self, plan: int | None = None, *, states: tuple[str, ...] = ()) -> list[Entry]:
        rows = self._rows("select * from journal order by id") if plan is None else self._rows(
            "select * from journal where plan = ? order by id", plan
        )  # fmt: skip
        return [
            Entry(row["id"], row["plan"], row["what"], row["original"], row["mode"], row["state"], row["intended"])
            for row in rows
            if not states or row["state"] in states
        ]

    def begin_rescue(self, run: str, starts: int) -> int:
        """The intent to submit the rescue DAG; ``starts`` are the DAGMan starts logged so far."""
        with self.batch():
            self.note(run, "", "rescue", "rescue intended")
            return self._insert(
                "rescues", {"run": run, "starts": starts, "state": "intended", "reason": "", "intended": self.clock(), "ended": None}
            )

    def rescue_submitted(self, rescue: int, reason: str) -> None:
        with self.batch():
            self._update("rescues", rescue, state="submitted", reason=reason)

    def end_rescue(self, rescue: int, run: str, state: str, reason: str) -> None:
        with self.batch():
            self._update("rescues", rescue, state=state, reason=reason, ended=self.clock())
            self.note(run, "", "rescue", f"rescue {state}: {reason}")

    def rescues(self, run: str, *, state: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        rows = self._rows("select * from rescues where run = ? and intended >= ? order by id", run, since)
        return [row for row in rows if state is None or row["state"] == state]

    def add_outcome(self, row: IncidentRow, attempt: int, result: str, reason: str) -> None:
        with self.batch():
            self._insert(
                "outcomes",
                {"run": row.run, "incident": row.id, "attempt": attempt, "result": result, "reason": reason, "time": self.clock()},
            )
            self.note(row.run, row.id, "outcome", f"{result}: {reason}")

    def outcomes(self, incident: str) -> list[dict[str, Any]]:
        return self._rows("select attempt, result, reason, time from outcomes where incident = ? order by id", incident)

    def tried(self, incident: str, since: float = 0.0) -> set[str]:
        """Keys of the repairs that were carried out for an incident, whatever came of them, or could not be since a time.

        What could not be carried out (a disk was full) may be possible in a later session.
        """
        rows = self._rows(
            "select key from plans where incident = ? and (applied is not null or (state = 'failed' and created >= ?))", incident, since
        )
        return {row["key"] for row in rows}

    def tried_actions(self, incident: str) -> list[str]:
        rows = self._rows("select action from plans where incident = ? and applied is not null", incident)
        return [row["action"] for row in rows]

    def attempts_of_run(self, run: str) -> tuple[int, float]:
        """How many repairs were carried out for a run, and when the latest was."""
        row = self._rows(
            "select count(distinct incident || '/' || attempt) as n, max(applied) as latest from plans "
            "where run = ? and applied is not null",
            run,
        )[0]
        return int(row["n"] or 0), float(row["latest"] or 0.0)

    def last_attempt(self, incident: str) -> float:
        return float(self._rows("select max(applied) as latest from plans where incident = ?", incident)[0]["latest"] or 0.0)


class PlanJournal:
    """Intent before the act, result after it."""

    def __init__(self, store: Repairs, plan: int) -> None:
        self._store = store
        self._plan = plan

    def intend(self, plan: Plan, what: str, original: bytes | None, mode: int | None) -> int:
        store = self._store
        with store.batch():
            return store._insert(
                "journal",
                {"plan": self._plan, "what": what, "original": original, "mode": mode, "state": "intended",
                 "intended": store.clock(), "ended": None},
            )  # fmt: skip

    def done(self, entry: int) -> None:
        self._end(entry, "done")

    def undone(self, entry: int) -> None:
        self._end(entry, "undone")

    def _end(self, entry: int, state: str) -> None:
        store = self._store
        with store.batch():
            store._update("journal", entry, state=state, ended=store.clock())
