"""`pegasus-doctor heal` on real workflows on a real pool, as the user whose workflows they are."""

from __future__ import annotations

import re

import pytest

from tests.e2e.scenarios import ASKED_POINTS, CAP_MB, ESCALATED, HOSTILE, POINTS, RECOVERED
from tests.pool.fleet import Fleet, Outcome

#: What cures each; and the cause that must have been found.
CURES = {
    "memory-in-queue": ("resources/memory-exceeded-hold", "raise-memory"),
    "memory-after-the-end": ("resources/memory-exceeded-hold", "raise-memory"),
    "allowed-duration": ("resources/walltime-exceeded-hold", "raise-walltime"),
    "execute-bit": ("permissions/executable-not-executable", "make-executable"),
    "crlf": ("user-code/crlf-line-endings", "normalise-line-endings"),
    "helper-module": ("dependency/undeclared-helper-file", "add-input-file"),
    "transient-network": ("network/network-transient", "retry"),
    "moved-input": ("staging/input-moved", "update-replica"),
    "output-subdirectory": ("user-code/output-subdirectory-missing", "create-output-directory"),
}
IN_QUEUE = ("memory-in-queue", "allowed-duration")
REASONS = {
    "application-error": "user-code/application-error",
    "missing-package": "dependency/python-package-missing",
    "segfault": "user-code/segmentation-fault",
    "person-hold": "policy/held-by-user",
    "removed-workflow": "policy/workflow-removed",
    "memory-beyond-cap": "resources/memory-exceeded-hold",
    "memory-error": "resources/memory-exhausted",
    "output-storage-full": "disk/output-storage-full",
    "licence-server": "external/license-server",
    "corrupted-input": "integrity/checksum-mismatch",
}
#: Files that a run writes by itself; everything else below a workflow's folder is changed by nobody but the doctor.
_OWN = re.compile(
    r"/(scratch|pscratch|output)/|/inputs/tries$|\.(log|out|err|rescue\d+|metrics|lock|db)(\.\d+)?$|/monitord[.\w-]*$"
    r"|\.cache(\.meta)?$|-0\.dag\.lib\.\w+$|\.meta$|-(journal|shm|wal)$"
)


def causes(outcome: Outcome) -> list[str]:
    return [f"{one['category']}/{one['cause']}" for one in outcome.document["incidents"]]


def changed(outcome: Outcome) -> list[str]:
    """Files below the workflow's folder (and beside it) that differ and that the run does not write by itself."""
    keys = outcome.before.keys() | outcome.after.keys()
    return sorted(key for key in keys if outcome.before.get(key) != outcome.after.get(key) and not _OWN.search(f"/{key}"))


@pytest.mark.parametrize("scenario", [one.name for one in RECOVERED])
def test_it_recovers_without_help(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    cause, action = CURES[scenario]
    assert (outcome.code, outcome.document["outcome"]) == (0, "recovered"), outcome.document
    assert cause in causes(outcome)
    assert action in outcome.applied
    assert outcome.live.ends()[-1] == 0
    assert (outcome.live.root / "output/out.txt").read_text() == "hello\n"
    assert outcome.document["rescues"] == (0 if scenario in IN_QUEUE else 1)
    assert outcome.live.jobstate().count("DAGMAN_STARTED") == (1 if scenario in IN_QUEUE else 2)


@pytest.mark.parametrize("scenario", [name for name in CURES if name != "transient-network"])
def test_the_edit_is_shown_and_nothing_else_is_edited(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    assert any(action["applied"] and action["diff"].strip() for action in outcome.actions)
    part = {
        "memory-in-queue": "step_one.sub",
        "memory-after-the-end": "step_one.sub",
        "allowed-duration": "step_one.sub",
        "execute-bit": "bin/step",
        "crlf": "bin/step",
        "helper-module": "step_one.sub",
        "moved-input": "stage_in_local_local_0_0.in",
        "output-subdirectory": "step_one.sh",
    }[scenario]
    edited = changed(outcome)
    assert any(name.endswith(part) for name in edited), edited
    further = [name for name in edited if not name.endswith((part, "replicas.yml"))]
    assert further == []


def test_memory_grows_at_most_to_the_cap(fleet: Fleet) -> None:
    for scenario in ("memory-in-queue", "memory-after-the-end"):
        outcome = fleet.outcome(scenario)
        asked = [row for row in outcome.actions if row["applied"]]
        sizes = [int(size) for row in asked for size in re.findall(r"^\+pegasus_memory_mb = (\d+)", row["diff"], re.MULTILINE)]
        assert sizes and max(sizes) <= CAP_MB


@pytest.mark.parametrize("scenario", [one.name for one in ESCALATED])
def test_it_hands_over_to_a_person(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    if scenario == "output-storage-full" and not outcome.notes["mounted"]:
        pytest.skip("a full file system takes the right to mount one")
    assert (outcome.code, outcome.document["outcome"]) == (1, "escalated"), outcome.document
    assert causes(outcome)[0] == REASONS[scenario]
    if scenario == "memory-error":  # more memory is worth one try
        assert outcome.applied == ["raise-memory"] and outcome.document["rescues"] == 1
        return
    assert outcome.applied == [] and outcome.document["rescues"] == 0
    assert outcome.live.jobstate().count("DAGMAN_STARTED") == 1
    assert changed(outcome) == []


def test_a_repair_that_did_not_help_is_never_tried_again(fleet: Fleet) -> None:
    outcome = fleet.outcome("memory-error")
    code, document = outcome.notes["again"]
    assert (code, document["outcome"]) == (1, "escalated")
    assert outcome.live.jobstate().count("DAGMAN_STARTED") == 2  # the run itself and the one rescue
    assert [name for name in outcome.notes["changed again"] if "/runs/" in name and not _OWN.search(f"/{name}")] == []


def test_a_hold_of_a_person_stays(fleet: Fleet) -> None:
    assert fleet.outcome("person-hold").notes["held"]


@pytest.mark.parametrize("scenario", ["healthy-run", "running-run"])
def test_nothing_is_done_where_nothing_is_wrong(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    assert (outcome.code, outcome.document["outcome"], outcome.document["rescues"]) == (0, "healthy", 0)
    assert outcome.document["incidents"] == [] and changed(outcome) == []
    assert outcome.live.jobstate().count("DAGMAN_STARTED") == 1


def test_nothing_is_done_to_a_recovered_run(fleet: Fleet) -> None:
    outcome = fleet.outcome("helper-module")
    code, document = outcome.notes["again"]
    assert (code, document["outcome"], document["rescues"]) == (0, "healthy", 0)
    assert [name for name in outcome.notes["changed again"] if not _OWN.search(f"/{name}")] == []


@pytest.mark.parametrize("scenario", [one.name for one in HOSTILE])
def test_nothing_outside_is_touched(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    away = {key for key in outcome.before.keys() | outcome.after.keys() if key.split("/")[0] == "elsewhere"}
    assert away and all(outcome.before.get(key) == outcome.after.get(key) for key in away)
    assert not (outcome.live.root / "pwned").exists()
    assert (outcome.code, outcome.document["outcome"]) == (1, "escalated"), outcome.document
    assert outcome.applied == [] and outcome.document["rescues"] == 0
    assert changed(outcome) == []


@pytest.mark.parametrize("scenario", ["memory-after-the-end", "execute-bit", "crlf", "helper-module", "moved-input", "output-subdirectory"])
def test_undo_restores_every_byte(fleet: Fleet, scenario: str) -> None:
    outcome = fleet.outcome(scenario)
    assert changed(outcome) != []
    assert all(code == 0 for code, _ in outcome.notes["undo"]), outcome.notes["undo"]
    undone = outcome.notes["undone"]
    keys = outcome.before.keys() | undone.keys()
    edited = {name for action in outcome.actions for name in _paths(outcome, action["diff"])}
    left = sorted(key for key in keys if outcome.before.get(key) != undone.get(key) and (key in edited or not _OWN.search(f"/{key}")))
    assert left == []


def _paths(outcome: Outcome, diff: str) -> list[str]:
    """Files named in a diff (staged copies in scratch among them), as `state_of` names them."""
    place = f"{outcome.live.root.parent}/"
    return [name.removeprefix(place) for name in re.findall(r"^(?:\+\+\+|---) (/\S+)", diff, re.MULTILINE)]


def test_a_dry_run_changes_and_starts_nothing(fleet: Fleet) -> None:
    outcome = fleet.outcome("crlf")
    code, document = outcome.notes["dry"]
    assert (code, document["outcome"]) == (3, "waiting")
    assert [action["action"] for incident in document["incidents"] for action in incident["actions"]] == ["normalise-line-endings"]
    assert not any(action["applied"] for incident in document["incidents"] for action in incident["actions"])
    assert outcome.notes["changed"] == []
    assert outcome.notes["state made"] is False
    assert outcome.notes["starts"] == 1


@pytest.mark.parametrize("scenario", ["killed-at-every-state"])
def test_a_doctor_that_is_killed_at_every_state_goes_on(fleet: Fleet, scenario: str) -> None:
    """One rescue in all, the edit made once, and the interruption between intent and result is on record."""
    outcome = fleet.outcome(scenario)
    killed = outcome.notes["killed"]
    assert {point: code for point, (code, _) in killed.items()} == dict.fromkeys((*ASKED_POINTS, *POINTS), -9), killed
    assert outcome.code == 0, outcome.document
    assert outcome.live.ends()[-1] == 0
    assert outcome.live.jobstate().count("DAGMAN_STARTED") == 2
    assert "\r" not in (outcome.live.root / "bin/step").read_text()
    assert "interrupt" in outcome.notes["history"]
