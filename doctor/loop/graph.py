"""The loop as a LangGraph state graph with a SQLite checkpointer. LangGraph is imported here only.

The graph carries no facts, only the way: which step comes next is read from the incidents' states in
the store. Approvals and waiting for evidence are interrupts, so that no step ever sleeps; ``heal``
sleeps between two looks, the daemon goes on when something happens.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from doctor.loop import deeds, steps
from doctor.loop.stages import Stage
from doctor.loop.steps import Context
from doctor.statedir import StoreError


class Way(TypedDict, total=False):
    """The graph's state. ``again_at``: when to look again at the latest, 0 when nothing is awaited."""

    again_at: float
    follow: bool  # stay until the workflow has ended, and take care of what comes
    postponed: bool  # a repair waits for DAGMan's end
    new: bool  # something new is wrong
    open: bool  # a repair still lacks its evidence
    waited: bool  # time has passed while a person was asked


class Graph:
    """The loop for one session of one run."""

    def __init__(self, ctx: Context, follow: bool) -> None:
        self._ctx = ctx
        self._follow = follow
        self._thread = f"{ctx.key}/{ctx.session}"
        self._open()

    def _open(self) -> None:
        self._saver = SqliteSaver(self._ctx.seams.store.checkpoints())
        self._app = self._build().compile(checkpointer=self._saver)

    def _build(self) -> StateGraph[Way, None, Way, Way]:
        graph: StateGraph[Way, None, Way, Way] = StateGraph(Way)
        for name, step in (
            ("diagnose", self._diagnose), ("plan", self._plan), ("wait", self._wait), ("act", self._act), ("rescue", self._rescue),
            ("verify", self._verify), ("watch", self._watch),
        ):  # fmt: skip
            graph.add_node(name, step)  # type: ignore[call-overload]
        targets: list[str] = ["diagnose", "plan", "wait", "act", "rescue", "verify", "watch", END]
        graph.add_conditional_edges(START, self._begin, targets)
        for name in ("diagnose", "plan", "wait", "act", "rescue", "verify", "watch"):
            graph.add_conditional_edges(name, self._after(name), targets)
        return graph

    # -- steps --------------------------------------------------------------------------------------

    def _diagnose(self, way: Way) -> Way:
        steps.diagnose(self._ctx)
        return {"new": False, "waited": False}

    def _plan(self, way: Way) -> Way:
        return {"postponed": steps.plan(self._ctx)}

    def _wait(self, way: Way) -> Way:
        open_ones = steps.unanswered(self._ctx)
        if open_ones:
            interrupt({"kind": "approval", "incidents": [row.id for row in open_ones]})
        steps.take_answers(self._ctx)
        return {"waited": bool(open_ones)}

    def _act(self, way: Way) -> Way:
        deeds.act(self._ctx)
        return {}

    def _rescue(self, way: Way) -> Way:
        return {"again_at": deeds.submit_rescue(self._ctx)}

    def _verify(self, way: Way) -> Way:
        still_open, new = deeds.verify_all(self._ctx)
        return {"open": still_open, "new": new, "again_at": 0.0}

    def _watch(self, way: Way) -> Way:
        interrupt({"kind": "evidence", "again_at": way.get("again_at", 0.0)})
        return {"again_at": 0.0}

    # -- the way ------------------------------------------------------------------------------------

    def _has(self, *stages: Stage) -> bool:
        return bool(self._ctx.rows(*stages))

    def _begin(self, way: Way) -> str:
        """A new session diagnoses first; what an earlier one left in the middle is looked at before that."""
        return self._forward() if self._has(Stage.ACTING, Stage.RESCUING, Stage.VERIFYING, Stage.WAITING) else "diagnose"

    def _forward(self) -> str:
        """The most urgent step for what is in the store."""
        if self._has(Stage.ACTING):
            return "act"
        if self._has(Stage.OPEN):
            return "diagnose"
        if self._has(Stage.PLANNED):
            return "act"  # what is allowed does not wait for what a person is asked
        if self._has(Stage.WAITING):
            return "wait"
        if self._has(Stage.RESCUING):
            return "rescue"
        if self._has(Stage.VERIFYING):
            return "verify"
        return END

    def _after(self, name: str) -> Callable[[Way], str]:
        def chosen(way: Way) -> str:
            return self._next(name, way)

        chosen.__name__ = f"after_{name}"
        return chosen

    def _next(self, name: str, way: Way) -> str:
        if name == "rescue" and way.get("again_at"):
            return "watch"
        if name == "wait" and way.get("waited") and self._has(Stage.WAITING):
            return "diagnose"  # more may be wrong by now
        if name == "watch":
            if self._has(Stage.RESCUING):
                return "rescue"
            return "plan" if self._has(Stage.DIAGNOSED) and not self._has(Stage.VERIFYING) else "verify"
        if name == "verify":
            return self._after_verify(way)
        if name in ("diagnose", "wait", "act") and self._has(Stage.DIAGNOSED) and not self._has(Stage.ACTING):
            return "plan"
        if name == "plan":
            way_on = self._forward()
            if way_on == END or (way_on == "verify" and way.get("postponed")):
                return "watch" if way.get("postponed") or self._followed() else END
            return way_on
        way_on = self._forward()
        return "verify" if way_on == END and self._followed() else way_on

    def _after_verify(self, way: Way) -> str:
        if way.get("new"):
            return "diagnose"
        if self._has(Stage.DIAGNOSED) and not way.get("postponed"):
            return "plan"  # before a rescue, so that one is enough for all repairs
        if self._has(Stage.RESCUING):
            return "rescue"
        if way.get("open") or self._has(Stage.VERIFYING):
            return "watch" if way.get("open") else END
        if self._has(Stage.DIAGNOSED):
            return "plan"
        return "watch" if self._followed() else END

    def _followed(self) -> bool:
        """Whether to stay: asked to, something was repaired, and the workflow goes on."""
        if not self._follow or not self._ctx.acted():
            return False
        return steps.still_running(steps.look(self._ctx.seams, self._ctx.place))

    # -- driving ------------------------------------------------------------------------------------

    def go(self) -> dict[str, Any] | None:
        """Run until an interrupt or the end: the interrupt's payload, or None at the end.

        Called again after an interrupt it goes on from there; called in a new process after a crash it
        repeats the step that was cut off.
        """
        limits = self._ctx.seams.policy.limits
        config: Any = {
            "configurable": {"thread_id": self._thread},
            "recursion_limit": 100 + 20 * (limits.attempts_per_run + limits.attempts_per_incident),
        }
        try:
            return self._go(config)
        except sqlite3.OperationalError as problem:
            file = str(self._ctx.seams.store.folder / "checkpoints.db")
            raise StoreError(f"the checkpoints cannot be used ({problem}); the incidents are kept elsewhere", file=file) from problem
        except sqlite3.Error:  # damaged: the way is found again from the incidents' states
            self.close()
            self._ctx.seams.store.renew_checkpoints()
            self._open()
            return self._go(config)

    def _go(self, config: Any) -> dict[str, Any] | None:
        before = self._app.get_state(config)
        given: Any = {"follow": self._follow}
        if before.interrupts:
            given = Command(resume="look")
        elif before.next:
            given = None
        self._app.invoke(given, config, durability="sync")
        after = self._app.get_state(config)
        return dict(after.interrupts[0].value) if after.interrupts else None

    def forget(self) -> None:
        """Drop the checkpoints of a session that is over."""
        self._saver.delete_thread(self._thread)

    def close(self) -> None:
        self._saver.conn.close()
