"""Which incidents are asked about, how often, at what price, and that nothing of it can break an analysis."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doctor.diagnose.engine import Options, analyze
from doctor.diagnose.matcher import Matcher
from doctor.errors import DoctorError
from doctor.llm.budget import Spent, cost, estimate, exceeded, prices
from doctor.llm.config import LlmBudget
from doctor.llm.consult import Consultant
from doctor.loop.stages import Stage
from doctor.model import Report
from doctor.statedir import incident_key, run_key
from tests.llm.conftest import ODD, Rig, odd_run, settings
from tests.llm.peer import answer, call, in_turn, says

Start = Callable[..., Rig]
GOOD = says(answer("user-code/model-configuration", "E1", culprit="J1", chain=[{"line": "E1", "says": "the manifold stayed open"}]))


def test_the_diagnosis_says_who_decided_and_what_the_rules_had_thought(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    incident = made.ask(odd_run(tmp_path / "run")).incidents[0]
    found = incident.diagnosis
    assert found.decided_by == "llm:claude-haiku-5-5"
    assert found.culprit.job == "job"
    assert "Chain: the manifold stayed open." in found.explanation
    assert found.ruled_out[0].cause == "user-code/application-error"
    assert found.confidence == 0.65  # no rule knows the line
    assert found.advice  # that of the cause, where the model has none


def test_a_line_that_a_rule_reads_the_same_way_counts_more(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(answer("dependency/python-package-missing", "E1", confidence=0.95))))
    run = odd_run(tmp_path / "run", stderr="ModuleNotFoundError: No module named 'zorblax'")
    report = made.report(run)
    low = replace(report.incidents[0], diagnosis=replace(report.incidents[0].diagnosis, confidence=0.3))
    found = made.consultant()(replace(report, incidents=(low,)), run)
    assert found.incidents[0].diagnosis.confidence == 0.85
    assert "the same way" in found.opinions[0].reason


def test_only_what_the_rules_left_uncertain_is_asked(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run", stderr="ModuleNotFoundError: No module named 'numpy'")
    report = made.report(run)
    assert report.incidents[0].diagnosis.confidence >= 0.6
    assert made.consultant()(report, run) == report
    assert made.ask(odd_run(tmp_path / "odd"), confidence=0.0).opinions == ()
    assert made.peer.requests == []


def test_a_healthy_run_is_not_asked_about(rig: Start, tmp_path: Path) -> None:
    from tests.builder import Builder, record

    build = Builder(tmp_path / "run")
    build.job("a", outputs={".out.000": record(stderr=ODD)})
    build.succeed("a")
    build.finish(0)
    made = rig(in_turn(GOOD))
    assert made.ask(build.open()).opinions == ()
    assert made.peer.requests == []


def test_a_thousand_equal_failures_cost_one_call(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run", jobs=1000)
    found = made.ask(run)
    assert len(found.incidents) == 1
    assert len(found.incidents[0].jobs) == 1000
    assert len(made.peer.requests) == 1


def test_different_failures_cost_one_call_each(rig: Start, tmp_path: Path) -> None:
    from tests.builder import Builder, record

    build = Builder(tmp_path / "run")
    for number, word in enumerate(("alpha", "beta", "gamma")):
        for copy in range(4):
            name, condor = f"{word}{copy}", f"{100 + number * 10 + copy}.0"
            build.job(name, transformation=word, outputs={".out.000": record(raw=768, stderr=f"{word} gronk at {copy}", condor=condor)})
            build.fail(name, condor=condor, code=3)
    build.finish(1)
    made = rig(in_turn(GOOD))
    found = made.ask(build.open())
    assert len(found.incidents) == len(made.peer.requests) == 3


def test_a_warm_cache_makes_no_call(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run")
    first, second = made.ask(run), made.ask(run)
    assert len(made.peer.requests) == 1
    assert second.incidents == first.incidents
    assert second.opinions[0].kept and second.opinions[0].dollars == 0
    assert not first.opinions[0].kept


def test_more_jobs_of_the_same_failure_make_no_further_call(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    made.ask(odd_run(tmp_path / "run", jobs=2))
    made.ask(odd_run(tmp_path / "run", jobs=5))
    assert len(made.peer.requests) == 1


def test_an_abstention_is_kept_too(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(answer("abstain", explanation="Nothing proves a cause."))))
    run = odd_run(tmp_path / "run")
    assert made.ask(run).opinions[0].outcome == "abstained"
    again = made.ask(run).opinions[0]
    assert (again.outcome, again.kept, again.reason) == ("abstained", True, "Nothing proves a cause.")
    assert len(made.peer.requests) == 1


@pytest.mark.parametrize("change", [{"model": "claude-opus-4-8"}])
def test_another_model_is_asked_anew(rig: Start, tmp_path: Path, change: dict[str, Any]) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run")
    made.ask(run)
    made.ask(run, **change)
    assert len(made.peer.requests) == 2


def test_another_prompt_version_is_asked_anew(rig: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run")
    made.ask(run)
    monkeypatch.setattr("doctor.llm.cache.VERSION", "other")
    made.ask(run)
    assert len(made.peer.requests) == 2


def test_a_damaged_answer_is_asked_anew(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run")
    report = made.report(run)
    key = run_key(report.run.submit_dir)
    pack = made.consultant().pack(report.incidents[0], run, key)
    from doctor.llm.cache import pack_key

    for body in ("{", "[]", '{"incident": {"id": 1}, "reason": ""}', '{"incident": {"diagnosis": {}}, "reason": ""}'):
        made.store.save_llm_answer(pack_key("claude-haiku-5-5", pack.digest), "claude-haiku-5-5", "1", key, report.incidents[0].id, body)
        assert made.ask(run).opinions[0].kept is False
    assert len(made.peer.requests) == 4


def test_the_pack_is_the_same_for_the_same_incident(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    one, two = odd_run(tmp_path / "run"), odd_run(tmp_path / "run")
    packs = [made.consultant().pack(made.report(run).incidents[0], run, "key") for run in (one, two)]
    assert packs[0].text == packs[1].text
    assert packs[0].digest == packs[1].digest
    other = odd_run(tmp_path / "other", stderr=f"{ODD}!")
    assert made.consultant().pack(made.report(other).incidents[0], other, "key").digest != packs[0].digest


def test_two_people_with_the_same_redacted_text_do_not_share_answers(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    runs = [odd_run(tmp_path / name, stderr=f"{ODD} at /home/{name}/x") for name in ("carla", "dario")]
    packs = [made.consultant().pack(made.report(run).incidents[0], run, "key") for run in runs]
    assert packs[0].text == packs[1].text
    assert packs[0].digest != packs[1].digest


def test_history_of_the_site_is_told_and_changes_no_key(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(GOOD))
    other = odd_run(tmp_path / "other")
    report = made.report(other)
    key = made.store.see_run(report.run)
    made.store.open_incident(key, report.incidents[0], made.store.begin_session(key))
    row = incident_key(key, report.incidents[0].id)
    run = odd_run(tmp_path / "run")
    before = made.consultant().pack(made.report(run).incidents[0], run, "key")
    made.store.move(row, Stage.DIAGNOSED)
    made.store.move(row, Stage.ESCALATED, "a person replaced the manifold")
    after = made.consultant().pack(made.report(run).incidents[0], run, "key")
    assert "a person replaced the manifold" in "\n".join(after.tail)
    assert before.digest == after.digest
    assert "cannot be cited" in json.dumps(made.consultant().classifier.first_request(after))


# -- budgets ------------------------------------------------------------------------------------------

LIMITS = ("incident_tokens", "run_tokens", "day_tokens", "incident_dollars", "run_dollars", "day_dollars")


@pytest.mark.parametrize("name", LIMITS)
def test_no_call_beyond_a_limit(rig: Start, tmp_path: Path, name: str) -> None:
    made = rig(in_turn(GOOD))
    budget = settings().budget.model_copy(update={name: 10 if name.endswith("tokens") else 0.000001})
    run = odd_run(tmp_path / "run")
    found = made.ask(run, budget=budget)
    assert found.incidents == made.report(run).incidents
    assert found.opinions[0].outcome == "none"
    assert f"budget of this {name.split('_')[0]}" in found.opinions[0].reason
    assert made.peer.requests == []


def test_a_conversation_stops_where_its_budget_ends(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(call("list_folder", {"job": "J1"}), input_tokens=90_000)))
    found = made.ask(odd_run(tmp_path / "run"))
    assert found.opinions[0].outcome == "none"
    assert "budget of this incident" in found.opinions[0].reason
    assert len(made.peer.requests) == 2


def test_the_days_budget_comes_back(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(answer("abstain"), input_tokens=50_000)))
    budget = settings().budget.model_copy(update={"day_tokens": 60_000})
    runs = [odd_run(tmp_path / f"run{number}", stderr=f"gronk of sort {'abc'[number]}") for number in range(3)]
    assert made.ask(runs[0], budget=budget).opinions[0].outcome == "abstained"
    assert "budget of this day" in made.ask(runs[1], budget=budget).opinions[0].reason
    made.now += 90_000
    assert made.ask(runs[2], budget=budget).opinions[0].outcome == "abstained"


def test_a_runs_budget_is_its_own(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(answer("abstain"), input_tokens=50_000)))
    budget = settings().budget.model_copy(update={"run_tokens": 70_000})
    assert made.ask(odd_run(tmp_path / "one"), budget=budget).opinions[0].outcome == "abstained"
    assert made.ask(odd_run(tmp_path / "two", stderr="another gronk"), budget=budget).opinions[0].outcome == "abstained"


def test_sums_and_prices() -> None:
    limits = LlmBudget(incident_tokens=10, run_tokens=20, day_tokens=30, incident_dollars=1.0, run_dollars=2.0, day_dollars=3.0)
    none = Spent()
    assert exceeded(limits, none, none, none, Spent(1, 5, 5)) is None
    assert "incident" in (exceeded(limits, Spent(1, 6, 0), none, none, Spent(1, 5, 0)) or "")
    assert "run" in (exceeded(limits, none, Spent(1, 15, 0), none, Spent(1, 6, 0)) or "")
    assert "day" in (exceeded(limits, none, none, Spent(1, 0, 0, dollars=2.9), Spent(1, 1, 0, dollars=0.2)) or "")
    assert prices("claude-haiku-5-5", {})[0] < prices("claude-haiku-4-5", {})[0]
    assert prices("us.anthropic.claude-opus-5-5-v1", {}) == prices("claude-opus-5-5", {})
    assert prices("somebodys-model", {}) == prices("claude-fable-5", {})  # unknown: as dear as the dearest
    assert prices("somebodys-model", {"somebodys-model": [0.0, 0.0, 0.0, 0.0]}) == (0.0, 0.0, 0.0, 0.0)
    assert cost((1.0, 2.0, 3.0, 4.0), 10**6, 10**6, 10**6, 10**6) == 10.0
    assert estimate("x" * 250) == 100


# -- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["pack", "classifier", "store"])
@pytest.mark.parametrize("problem", [RuntimeError("boom"), DoctorError("locked"), RecursionError(), KeyError("x")])
def test_no_bug_of_ours_costs_the_analysis(
    rig: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, problem: Exception
) -> None:
    made = rig(in_turn(GOOD))
    run = odd_run(tmp_path / "run")
    before = made.report(run)
    ask = made.consultant()

    def fail(*_: Any, **__: Any) -> Any:
        raise problem

    target = {"pack": (Consultant, "pack"), "classifier": (type(ask.classifier), "classify"), "store": (type(made.store), "llm_spent")}[
        where
    ]
    monkeypatch.setattr(*target, fail)
    after = ask(before, run)
    assert after.incidents == before.incidents
    assert after.opinions[0].outcome == "none"


def test_less_sure_than_the_rules_changes_nothing(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(answer("user-code/model-configuration", "E1", confidence=0.2))))
    run = odd_run(tmp_path / "run")
    found = made.ask(run)
    assert found.incidents == made.report(run).incidents
    assert "less sure" in found.opinions[0].reason


def test_nothing_wrong_is_no_answer_to_a_failure(rig: Start, tmp_path: Path) -> None:
    made = rig(in_turn(says(answer("none/none", "E1"))))
    run = odd_run(tmp_path / "run")
    found = made.ask(run)
    assert found.incidents == made.report(run).incidents
    assert found.opinions[0].outcome == "abstained"


def test_actions_come_with_valid_parameters_from_the_evidence(rig: Start, tmp_path: Path) -> None:
    action = {"name": "raise-memory", "params": {"at_least_mb": 4096, "job": "somebody-elses"}}
    made = rig(in_turn(says(answer("resources/memory-exhausted", "E1", culprit="J1", action=action))))
    remedy = made.ask(odd_run(tmp_path / "run")).incidents[0].diagnosis.remedies[0]
    assert (remedy.action, remedy.params) == ("raise-memory", {"job": "job", "at_least_mb": 4096})
    assert remedy.risk == "costly"


def test_a_run_without_any_job_to_blame(rig: Start, tmp_path: Path) -> None:
    from tests.builder import Builder

    build = Builder(tmp_path / "run")
    build.job("a")
    build.finish(1)
    run = build.open()
    made = rig(in_turn(GOOD))
    report = made.report(run)
    found: Report = Consultant(made.classifier(), floor=1.1)(report, run)
    assert len(found.opinions) == len(report.incidents)


def test_rules_off_still_makes_packs(matcher: Matcher, rig: Start, tmp_path: Path) -> None:
    from doctor.diagnose.library import Library

    bare = Matcher(Library((), (), matcher.library.causes, matcher.library.actions))
    run = odd_run(tmp_path / "run", stderr="ModuleNotFoundError: No module named 'numpy'")
    report = analyze(run, bare, Options("off"))
    assert report.incidents[0].diagnosis.decided_by.startswith("structure:")
