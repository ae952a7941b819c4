"""Following a recorded run from its first line says the same as analysing it afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.model import Incident
from doctor.watch.follow import Follower
from doctor.watch.live import LiveEvents
from doctor.watch.queue import jobs_of
from doctor.watch.turn import Turn
from tests.builder import Builder, event
from tests.recorded import Case, fixtures

#: Known only from the run as a whole, after its end or in its queue; and a sub-workflow recorded elsewhere.
WHOLE = {"infrastructure/shadow-exception", "policy/workflow-removed", "resources/unmatchable-request"}
CASES = [case for case in fixtures() if case.truth not in WHOLE and "subworkflow" not in case.name]


def follow(follower: Follower) -> dict[str, Incident]:
    found: dict[str, Incident] = {}
    while True:
        turn: Turn = follower.turn()
        found.update({one.id: one for one in turn.incidents})
        for mark in turn.resolved:
            found.pop(mark, None)
        if not turn.more:
            return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_as_analyze_says(case: Case, matcher: Matcher) -> None:
    found = follow(Follower(case.folder / case.run, matcher))
    expected = {one.diagnosis.cause for one in case.analyze(matcher).incidents}
    assert {one.diagnosis.cause for one in found.values()} == expected - WHOLE


def test_a_hold_is_known_from_the_event_log_before_monitord_tells(tmp_path: Path, matcher: Matcher) -> None:
    builder = Builder(tmp_path)
    builder.job("step_1")
    builder.attempt("step_1", "SUBMIT", "EXECUTE", condor="101.0")
    follower = Follower(builder.write(), matcher)
    assert follow(follower) == {}
    with (tmp_path / "demo-0.log").open("a") as log:
        log.write(event(0, "101.0", "Job submitted from host: <127.0.0.1>", "DAG Node: step_1"))
        text = "Error from slot1@n1: memory usage exceeded request_memory"
        log.write(event(12, "101.0", "Job was held.", text, "Code 21 Subcode 102"))
    found = follow(follower)
    assert [one.diagnosis.cause for one in found.values()] == ["resources/memory-exceeded-hold"]


def test_half_an_event_waits_for_the_rest() -> None:
    one, two = event(0, "1.0", "Job submitted", "DAG Node: a"), event(12, "1.0", "Job was held.", "why", "Code 1 Subcode 0")
    data = (one + two[:30]).encode()
    assert LiveEvents.whole(data) == len(one)
    events = LiveEvents()
    events.feed(one.encode(), 1)
    assert [(node, held.kind, held.code) for node, held in events.feed(two.encode(), 4)] == [("a", "held", 1)]


def test_jobs_of_the_queue_know_their_run(tmp_path: Path) -> None:
    top = {"ClusterId": 10, "ProcId": 0, "JobUniverse": 7, "Iwd": str(tmp_path), "JobStatus": 2, "Cmd": "/usr/bin/pegasus-dagman"}
    inner = {
        **top,
        "ClusterId": 11,
        "DAGManJobId": 10,
        "Iwd": str(tmp_path / "sub"),
        "pegasus_job_class": 10,
        "DAGNodeName": "pegasus-plan_x",
    }
    job = {"ClusterId": 12, "ProcId": 0, "JobUniverse": 5, "Iwd": "/scratch", "JobStatus": 1, "DAGManJobId": 11, "DAGNodeName": "step_1"}
    other = {"ClusterId": 13, "ProcId": 0, "JobUniverse": 5, "Iwd": "/x", "JobStatus": 1, "DAGManJobId": 99}
    found = {one.id: one for one in jobs_of([top, inner, job, other])}
    assert found["10.0"].is_dagman and found["10.0"].workflow == found["10.0"].run == str(tmp_path)
    assert found["12.0"].run == str(tmp_path) and found["12.0"].workflow == str(tmp_path / "sub") and found["12.0"].node == "step_1"
    assert found["13.0"].run == "", "its DAGMan is not known"
