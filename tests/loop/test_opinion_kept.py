"""What a model made of a failure is not lost when the rules see the same failure again, nor does it act by way of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.loop import heal as loop
from doctor.loop.steps import look
from doctor.model import Incident, Remedy, Report
from doctor.run.reader import Run
from doctor.statedir import incident_key, run_key
from tests.loop.world import World

ODD = "frobnicate: gronk level exceeded"  # no rule knows it
MODEL = "llm:some-model"


def opinion(report: Report, run: Run) -> Report:
    """A model that is surer than the rules."""
    made = []
    for one in report.incidents:
        remedy = Remedy("raise-memory", {"job": one.diagnosis.culprit.job}, "costly", "Ask for more memory.")
        sure = replace(one.diagnosis, cause="resources/memory-exhausted", confidence=0.8, decided_by=MODEL, remedies=(remedy,))
        made.append(replace(one, diagnosis=sure))
    return replace(report, incidents=tuple(made))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).build({"a1": (ODD, "200")})


def running(world: World, yes: bool) -> None:
    """Whether DAGMan is in the queue: a repair that needs a rescue waits for its end."""
    rows = [{"ClusterId": 1, "ProcId": 0, "JobUniverse": 7, "JobStatus": 2}] if yes else []
    (world.folder / "queue.json").write_text(json.dumps({"jobs": rows}))


def test_between_diagnosis_and_plan(world: World, matcher: Matcher) -> None:
    """The daemon's reader sees the failure once more while the repair is put off."""
    running(world, True)
    seams = world.seams(matcher=matcher, opinion=opinion)
    loop.heal(seams, world.run, timeout=0)
    store, key = seams.store, run_key(str(world.run))
    (row,) = store.incidents(key)
    assert (row.stage.value, row.incident.diagnosis.decided_by) == ("diagnosed", MODEL)
    again = replace(by_rules(world, matcher), jobs=("a1", "b2"))
    assert again.id == row.incident.id and again.diagnosis.cause != row.incident.diagnosis.cause
    store.observe(key, again)
    (row,) = store.incidents(key)
    assert (row.incident.diagnosis.decided_by, row.incident.jobs) == (MODEL, ("a1", "b2"))
    assert store.overview()[0]["cause"] == "memory-exhausted", "the list says what the incident says"
    running(world, False)
    healed = loop.heal(replace(seams, opinion=None), world.run, timeout=0)  # the model is out of reach by now
    assert healed.outcome == "waiting" and world.commands == [], "a model's opinion is asked about, whatever the policy"
    (plan,) = store.plans(row.id)
    assert (plan.plan.action, plan.state) == ("raise-memory", "proposed")


def test_after_it_was_handed_to_a_person(world: World, matcher: Matcher) -> None:
    """Seen again with the rules' words only, it is neither opened again nor told of again; a later attempt is news."""
    seams = world.seams("observe", matcher=matcher, opinion=opinion)
    loop.heal(seams, world.run, timeout=0)
    store, key = seams.store, run_key(str(world.run))
    assert [(row.stage.value, row.incident.diagnosis.decided_by) for row in store.incidents(key)] == [("escalated", MODEL)]
    seen = by_rules(world, matcher)
    assert store.observe(key, seen) is False
    (row,) = store.incidents(key)
    assert (row.stage.value, row.incident.diagnosis.decided_by, row.id) == ("escalated", MODEL, incident_key(key, seen.id))
    culprit = replace(seen.diagnosis.culprit, attempt=seen.diagnosis.culprit.attempt + 1)
    assert store.observe(key, replace(seen, diagnosis=replace(seen.diagnosis, culprit=culprit))) is True


def test_rules_that_became_surer_win(world: World, matcher: Matcher) -> None:
    running(world, True)
    seams = world.seams(matcher=matcher, opinion=opinion)
    loop.heal(seams, world.run, timeout=0)
    store, key = seams.store, run_key(str(world.run))
    seen = by_rules(world, matcher)
    store.observe(key, replace(seen, diagnosis=replace(seen.diagnosis, confidence=0.9)))
    assert [row.incident.diagnosis.decided_by for row in store.incidents(key)] == [seen.diagnosis.decided_by]


def by_rules(world: World, matcher: Matcher) -> Incident:
    """The failure as the rules see it."""
    (found,) = look(world.seams(matcher=matcher), world.run).report.incidents
    return found
