"""A bad node is blamed for what others finish, and for nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doctor.diagnose import hosts
from doctor.diagnose.matcher import Matcher
from doctor.model import Culprit, Diagnosis, Evidence, Incident, Kind
from doctor.run.events import slot_host

DISK, TOOL, OWN = "disk/execute-disk-full", "dependency/command-not-found", "user-code/application-error"
GOOD = [(f"fine_{n}", f"n{n % 2}") for n in range(4)]


def incident(cause: str, *jobs: str, confidence: float = 0.9, program: str = "solve") -> Incident:
    by = Diagnosis(
        cause, confidence, "rule:x", Culprit(jobs[0], transformation=program), "it failed", "so it says",
        (Evidence("a.err", 1, "the line", Kind.STDERR),), message=cause,
    )  # fmt: skip
    return Incident(f"id of {cause} {jobs[0]}", by, jobs)


def blamed(
    matcher: Matcher, *incidents: Incident, at: dict[str, str], good: list[tuple[str, str]] = GOOD, program: str = "solve"
) -> list[str]:
    ran = hosts.Ran(at, good, lambda names: [program] * len(names), "x.log")
    return [f"{one.diagnosis.cause} {one.diagnosis.culprit.host}" for one in hosts.blame(incidents, ran, matcher.library).values()]


def test_a_node_that_fails_what_others_finish(matcher: Matcher) -> None:
    failed = incident(TOOL, "a", "b", "c")
    assert blamed(matcher, failed, at=dict.fromkeys("abc", "n9")) == ["infrastructure/bad-node n9"]


@pytest.mark.parametrize(
    ("at", "good", "why"),
    [
        ({"a": "n9", "b": "n9", "c": "n1"}, GOOD, "it fails on two nodes"),
        ({"a": "n9", "b": "n9"}, GOOD, "it is not known where the third one ran"),
        (dict.fromkeys("abc", "n9"), [*GOOD, ("x", "n9")], "something succeeded there"),
        (dict.fromkeys("abc", "n9"), GOOD[:2], "hardly anything succeeded elsewhere"),
    ],
)
def test_a_node_is_not_blamed(matcher: Matcher, at: dict[str, str], good: list[tuple[str, str]], why: str) -> None:
    assert blamed(matcher, incident(TOOL, "a", "b", "c"), at=at, good=good) == [], why


def test_a_program_that_no_node_finishes_is_at_fault_itself_wherever_its_jobs_landed(matcher: Matcher) -> None:
    at = dict.fromkeys("abc", "n9")
    assert blamed(matcher, incident(TOOL, "a", "b", "c"), at=at, program="another") == []
    assert blamed(matcher, incident(DISK, "a", "b", "c"), at=at, program="another") == ["infrastructure/bad-node n9"], (
        "a full disk hits all"
    )
    assert blamed(matcher, incident("user-code/segmentation-fault", "a", "b", "c"), at=at) == []


def test_several_kinds_of_failure_on_one_node_count_together(matcher: Matcher) -> None:
    at = dict.fromkeys("abc", "n9")
    vague = incident(OWN, "c", confidence=0.4)
    assert len(blamed(matcher, incident(DISK, "a", "b"), vague, at=at)) == 2
    assert blamed(matcher, incident(DISK, "a"), vague, at=at) == [], "two are not enough"
    assert blamed(matcher, incident(OWN, "a", "b", "c", confidence=0.4), at=at) == [], "nothing well founded points at the node"
    assert blamed(matcher, incident(DISK, "a", "b"), replace(vague, diagnosis=incident(OWN, "c").diagnosis), at=at) == []


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("\tSlotName: slot1_3@node7.example.org\n", "node7.example.org"),
        ("\tSlotName: slot1_2@glidein_3921_55@node7.example.org\n", "node7.example.org"),
        ("021 (003.000.000) 2026-11-21 08:19:47 Error from starter on slot1_1@n2.local:\n", "n2.local"),
        ("Transfer input files failure at execution point slot1_1@n2.local while receiving files", "n2.local"),
        ("Error from slot1_1@vm: memory usage exceeded request_memory", "vm"),
        ("005 (003.000.000) Job terminated.", ""),
    ],
)
def test_the_host_of_a_slot(text: str, host: str) -> None:
    assert slot_host(text.encode()) == host
