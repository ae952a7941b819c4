"""Every guard alone, and all together: the strictest answer wins."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from doctor.loop import guards
from doctor.loop.guards import History
from doctor.loop.policy import Policy, load_policy
from doctor.model import Culprit, Diagnosis, Incident
from doctor.repair import Decision, Edit, GuardAnswer, Plan, QueueEdit, Risk

ALLOW, ASK, DENY = Decision.ALLOW, Decision.ASK, Decision.DENY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    return place


def policy(**changes: Any) -> Policy:
    """The default policy with changes such as ``mode="act"`` or ``limits__risk="reversible"``."""
    data = load_policy().model_dump()
    data["mode"] = "act"
    for name, value in changes.items():
        part, _, key = name.partition("__")
        if key:
            data[part][key] = value
        else:
            data[part] = value
    return Policy.model_validate(data)


def incident(cause: str = "resources/memory-exhausted", confidence: float = 0.9, by: str = "rule:x", jobs: int = 1) -> Incident:
    return Incident("f", Diagnosis(cause, confidence, by, Culprit("a1"), "s", "e", ()), tuple(f"a{n}" for n in range(jobs)))


def plan(**changes: Any) -> Plan:
    return replace(Plan("raise-memory", "f", "a1", {}, "s", "e", "u", Risk.COSTLY), **changes)


def history(root: Path = Path("/nowhere"), **changes: Any) -> History:
    return replace(History(1000.0, 0, 0, 0.0, frozenset(), (), "stable", (root,), frozenset({"7.0"}), False), **changes)


def edit(path: Path | str) -> Plan:
    return plan(edits=(Edit(str(path), b"a", b"b"),))


def answer(
    guard: guards.Guard, p: Plan | None = None, i: Incident | None = None, h: History | None = None, o: Policy | None = None
) -> Decision:
    found = guard(p or plan(), i or incident(), h or history(), o or policy())
    assert found.decision is ALLOW or found.reason, "every answer but allow has a reason"
    return found.decision


@pytest.mark.parametrize(("mode", "decision"), [("observe", DENY), ("ask", ASK), ("act", ALLOW)])
def test_mode(mode: str, decision: Decision) -> None:
    assert answer(guards.mode, o=policy(mode=mode)) is decision


@pytest.mark.parametrize(("maturity", "decision"), [("draft", DENY), ("test", ASK), ("stable", ALLOW)])
def test_maturity(maturity: str, decision: Decision) -> None:
    assert answer(guards.maturity, h=history(maturity=maturity)) is decision


def test_a_model_s_diagnosis_is_never_above_ask() -> None:
    assert answer(guards.maturity, i=incident(by="llm:some-model", confidence=1.0)) is ASK


@pytest.mark.parametrize(("ceiling", "risk"), list(product(("observe", "reversible", "costly", "destructive"), Risk)))
def test_risk(ceiling: str, risk: Risk) -> None:
    order = ["observe", "reversible", "costly", "destructive"]
    expected = DENY if order.index(risk.value) > order.index(ceiling) else ASK if risk is Risk.DESTRUCTIVE else ALLOW
    assert answer(guards.risk, plan(risk=risk), o=policy(limits__risk=ceiling)) is expected
    if expected is ALLOW:
        assert answer(guards.risk, plan(risk=risk), h=history(always_ask=True), o=policy(limits__risk=ceiling)) is ASK


def test_confidence() -> None:
    assert answer(guards.confidence, i=incident(confidence=0.59)) is DENY
    assert answer(guards.confidence, i=incident(confidence=0.6)) is ALLOW
    assert answer(guards.confidence, o=policy(actions={"raise-memory": {"confidence": 0.95}})) is DENY


def test_attempts() -> None:
    assert answer(guards.attempts, h=history(attempts=4)) is DENY
    assert answer(guards.attempts, h=history(run_attempts=20)) is DENY
    assert answer(guards.attempts, h=history(attempts=3, run_attempts=19)) is ALLOW
    own = policy(actions={"raise-memory": {"attempts": 1}})
    assert answer(guards.attempts, h=history(tried_actions=("raise-memory",)), o=own) is DENY
    assert answer(guards.attempts, h=history(tried_actions=("retry",)), o=own) is ALLOW


def test_cool_down() -> None:
    slow = policy(limits__cool_down_s=60)
    assert answer(guards.cool_down, h=history(last_attempt=950.0), o=slow) is DENY
    assert answer(guards.cool_down, h=history(last_attempt=930.0), o=slow) is ALLOW
    assert answer(guards.cool_down, h=history(), o=slow) is ALLOW


def test_the_same_repair_again() -> None:
    key = guards.repair_key(plan(), "resources/memory-exhausted")
    assert answer(guards.same_again, h=history(tried=frozenset({key}))) is DENY
    bigger = plan(edits=(Edit("/x", b"a", b"c"),), params={"memory_mb": 400})
    assert answer(guards.same_again, bigger, h=history(tried=frozenset({key}))) is DENY, "more of what did not help"
    assert answer(guards.same_again, plan(action="retry"), h=history(tried=frozenset({key}))) is ALLOW


def test_a_limit_that_htcondor_measured_may_grow_again() -> None:
    cause = "resources/memory-exceeded-hold"
    first, second = edit("/x"), plan(edits=(Edit("/x", b"b", b"c"),))
    tried = frozenset({guards.repair_key(first, cause)})
    assert answer(guards.same_again, first, incident(cause), history(tried=tried)) is DENY
    assert answer(guards.same_again, second, incident(cause), history(tried=tried)) is ALLOW


@pytest.mark.parametrize(
    ("params", "queue", "decision"),
    [
        ({"memory_mb": 512}, (), ALLOW),
        ({"memory_mb": 513}, (), DENY),
        ({"memory_mb": "513"}, (), DENY),
        ({}, (QueueEdit("7.0", (("RequestMemory", "513"),)),), DENY),
        ({"walltime_s": 10**9}, (), DENY),
        ({"disk_mb": 10**9}, (), DENY),
    ],
)
def test_caps(params: dict[str, object], queue: tuple[QueueEdit, ...], decision: Decision) -> None:
    assert answer(guards.caps, plan(params=params, queue=queue), o=policy(caps__memory_mb=512)) is decision


def test_paths_stay_inside(root: Path, tmp_path: Path) -> None:
    inside = root / "00" / "a.sub"
    inside.parent.mkdir()
    inside.write_text("x")
    outside = tmp_path / "victim"
    outside.write_text("x")
    (root / "link").symlink_to(outside)
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "in").symlink_to(inside)
    h = history(root)
    assert answer(guards.paths, edit(inside), h=h) is ALLOW
    assert answer(guards.paths, edit(root / "new.halt"), h=h) is ALLOW
    for bad in (
        outside,
        root / "link",
        root / "up" / "victim",
        f"{root}/../victim",
        "relative",
        "",
        f"{root}/a\x00b",
        "/etc/passwd",
        tmp_path / "in",
    ):
        assert answer(guards.paths, edit(bad), h=h) is DENY, bad
    assert answer(guards.paths, edit(str(root) + "-other/x"), h=h) is DENY
    assert answer(guards.paths, edit(inside), h=history(root, roots=())) is DENY
    assert answer(guards.paths, plan(edits=(Edit(str(inside), b"", b""), Edit(str(outside), b"", b""))), h=h) is DENY, "every edit counts"


def test_commands() -> None:
    assert answer(guards.commands, plan(argv=(("/usr/bin/pegasus-plan", "x"),))) is ALLOW
    assert answer(guards.commands, plan(argv=(("env", "-C", "/d", "/usr/bin/pegasus-plan"),))) is ALLOW
    for words in (("rm", "-rf", "/"), ("env", "-C", "/d", "sh"), ("env", "pegasus-plan"), ()):
        assert answer(guards.commands, plan(argv=(words,))) is DENY
    assert answer(guards.commands, plan(queue=(QueueEdit("7.0", (), "release"),))) is ALLOW
    assert answer(guards.commands, plan(queue=(QueueEdit("8.0", (), "release"),))) is DENY


def test_by_hand() -> None:
    assert answer(guards.by_hand, plan(manual="pegasus-plan ...")) is DENY
    assert answer(guards.by_hand, plan(manual="x", argv=(("pegasus-plan",),))) is ALLOW


def test_rescue() -> None:
    assert answer(guards.rescue, h=history(rescue_blocked="no")) is DENY
    assert answer(guards.rescue, plan(rescue=False), h=history(rescue_blocked="no")) is ALLOW


def test_quorum() -> None:
    many, few, halt = incident(jobs=25), incident(jobs=24), plan(action="halt-workflow")
    assert answer(guards.quorum, i=many, h=history(active=True)) is DENY
    assert answer(guards.quorum, i=many, h=history(active=True, tried_actions=("halt-workflow",))) is ALLOW
    assert answer(guards.quorum, i=many, h=history(active=False)) is ALLOW
    assert answer(guards.quorum, i=few, h=history(active=True)) is ALLOW
    assert answer(guards.quorum, halt, many, history(active=True)) is ALLOW
    assert answer(guards.quorum, halt, few, history(active=True)) is DENY


@pytest.mark.parametrize("given", list(product(Decision, repeat=3)))
def test_the_strictest_wins(given: tuple[Decision, ...]) -> None:
    answers = [GuardAnswer(str(number), one) for number, one in enumerate(given)]
    expected = DENY if DENY in given else ASK if ASK in given else ALLOW
    assert guards.strictest(answers) is expected


def test_all_guards_are_asked(root: Path) -> None:
    answers = guards.ask_all(plan(), incident(), history(root), policy())
    assert [one.guard for one in answers] == [
        "mode", "maturity", "risk", "confidence", "attempts", "cool-down", "same-again", "caps", "paths", "commands", "by-hand", "rescue",
        "quorum",
    ]  # fmt: skip
    assert guards.strictest(answers) is ALLOW
