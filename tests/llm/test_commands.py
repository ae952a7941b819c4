"""The commands: what they print, keep and refuse, with the scripted peer as the configured provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from doctor.cli import main
from doctor.llm import config
from doctor.llm.draft import draft, pattern_of
from doctor.llm.wiring import opinion_node
from doctor.model import Culprit, Diagnosis, Evidence, Kind
from doctor.store import Store
from tests.llm.conftest import ODD, Rig, odd_run
from tests.llm.peer import answer, says
from tests.report.test_reports import check_schema

Start = Callable[..., Rig]
UNBLAMED = says(answer("user-code/model-configuration", "E1"))  # a pasted message has no job to blame
GOOD = says(answer("user-code/model-configuration", "E1", culprit="J1", advice="Check the manifold's configuration."))


@pytest.fixture
def at(rig: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command whose provider is a peer with this script; the site has no say."""
    monkeypatch.setattr(config, "SITE_FILE", tmp_path / "none.toml")
    monkeypatch.setattr(config.load_settings, "__defaults__", (tmp_path / "none.toml",))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home-state"))
    made = rig(lambda body, number: GOOD if "\nJ1|" in body["messages"][0]["content"][0]["text"] else UNBLAMED)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789abcdef")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", made.peer.url)

    def run(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(one) for one in arguments], input=text)

    run.rig = made  # type: ignore[attr-defined]
    return run


def peer(at: Any) -> Any:
    return at.rig.peer


def test_analyze_llm(at: Callable[..., Result], tmp_path: Path) -> None:
    odd_run(tmp_path / "run")
    done = at("analyze", "--llm", tmp_path / "run")
    assert done.exit_code == 1, done.output
    assert "user-code/model-configuration" in done.output
    assert "decided by llm:claude-haiku-5-5" in done.output
    assert "1 call, 1,020 tokens, $" in done.output
    assert "never acts without a person" in done.output
    assert "Check the manifold's configuration." in done.output


def test_analyze_llm_json(at: Callable[..., Result], tmp_path: Path) -> None:
    odd_run(tmp_path / "run")
    data = json.loads(at("analyze", "--llm", "--json", tmp_path / "run").stdout)
    check_schema({key: value for key, value in data.items() if key != "llm"})
    assert data["incidents"][0]["decided_by"] == "llm:claude-haiku-5-5"
    assert data["llm"]["calls"] == 1 and data["llm"]["tokens"] == 1020 and data["llm"]["dollars"] > 0
    assert data["llm"]["opinions"][0]["outcome"] == "answered"
    again = json.loads(at("analyze", "--llm", "--json", tmp_path / "run").stdout)
    assert again["incidents"] == data["incidents"]
    assert again["llm"]["calls"] == 0 and again["llm"]["opinions"][0]["kept"] is True
    assert len(peer(at).requests) == 1


def test_without_llm_nothing_is_asked_and_nothing_kept(at: Callable[..., Result], tmp_path: Path) -> None:
    odd_run(tmp_path / "run")
    data = json.loads(at("analyze", "--json", tmp_path / "run").stdout)
    assert "llm" not in data
    assert peer(at).requests == []
    assert not (tmp_path / "home-state").exists()


def test_show_prompt_is_exactly_what_is_sent(at: Callable[..., Result], tmp_path: Path) -> None:
    odd_run(tmp_path / "run", stdout="password=hunter2 for carla@lab.example.org")
    done = at("analyze", "--show-prompt", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert peer(at).requests == []
    assert not (tmp_path / "home-state").exists()
    shown = json.loads(done.stdout)
    assert "hunter2" not in done.stdout and "carla@lab" not in done.stdout
    at("analyze", "--llm", tmp_path / "run")
    sent = dict(peer(at).requests[0])
    assert sent.pop("stream") is True
    assert sent == shown


def test_show_prompt_needs_no_key(at: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    odd_run(tmp_path / "run")
    assert json.loads(at("analyze", "--show-prompt", tmp_path / "run").stdout)["model"] == "claude-haiku-5-5"


def test_analyze_goes_on_without_a_key(at: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd_run(tmp_path / "run")
    plain = at("analyze", tmp_path / "run")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    done = at("analyze", "--llm", tmp_path / "run")
    assert done.exit_code == 1
    assert done.stdout == plain.stdout
    assert "the model is not asked: no key is configured" in done.stderr


def test_a_site_that_forbids_it(at: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text('llm = "off"\n')
    odd_run(tmp_path / "run")
    done = at("analyze", "--llm", tmp_path / "run")
    assert "forbids it" in done.stderr
    assert peer(at).requests == []


def test_explain_llm(at: Callable[..., Result]) -> None:
    done = at("explain", "--llm", "--kind", "job-stderr", text=f"{ODD}\n")
    assert done.exit_code == 0, done.output
    assert "user-code/model-configuration" in done.stdout
    assert "decided by llm:claude-haiku-5-5" in done.stdout
    assert "claude-haiku-5-5 decided" in done.stderr
    data = json.loads(at("explain", "--llm", "--json", "--kind", "job-stderr", text=f"{ODD}\n").stdout)
    assert data["matches"][0]["decided_by"] == "llm:claude-haiku-5-5"
    assert len(peer(at).requests) == 1


def test_explain_llm_leaves_alone_what_rules_know(at: Callable[..., Result]) -> None:
    done = at("explain", "--llm", text="ModuleNotFoundError: No module named 'numpy'\n")
    assert "decided by rule:" in done.stdout
    assert peer(at).requests == []


def test_explain_show_prompt(at: Callable[..., Result]) -> None:
    shown = json.loads(at("explain", "--show-prompt", text=f"{ODD} for bob@lab.example.org\n").stdout)
    text = shown["messages"][0]["content"][0]["text"]
    assert ODD in text and "bob@lab" not in text
    assert peer(at).requests == []


def test_usage(at: Callable[..., Result], tmp_path: Path) -> None:
    assert "Nothing was asked" in at("llm", "usage").stdout
    odd_run(tmp_path / "run")
    at("analyze", "--llm", tmp_path / "run")
    done = at("llm", "usage")
    assert done.exit_code == 0, done.output
    assert "1 calls" in done.stdout and "900 tokens sent" in done.stdout and "1 answered" in done.stdout
    data = json.loads(at("llm", "usage", "--json").stdout)
    assert data["days"][0]["received"] == 120
    assert data["last_24_h"]["tokens"] == 1020


# -- rules draft --------------------------------------------------------------------------------------


def test_a_draft_rule_from_a_kept_answer(at: Callable[..., Result], tmp_path: Path) -> None:
    odd_run(tmp_path / "run")
    incident = json.loads(at("analyze", "--llm", "--json", tmp_path / "run").stdout)["incidents"][0]["id"]
    done = at("rules", "draft", incident)
    assert done.exit_code == 0, done.output
    rule = yaml.safe_load(done.stdout)
    assert (rule["status"], rule["cause"]) == ("draft", "user-code/model-configuration")
    assert rule["samples"]["match"][0]["text"] == ODD
    target = tmp_path / "rule.yaml"
    assert at("rules", "draft", incident, "-o", target).exit_code == 0
    assert yaml.safe_load(target.read_text()) == rule
    again = at("rules", "draft", incident, "-o", target)
    assert again.exit_code == 2 and "already" in again.output


def test_a_drafted_rule_knows_the_failure_next_time(at: Callable[..., Result], tmp_path: Path) -> None:
    import shutil

    from doctor.diagnose.library import compile_library, patterns_dir
    from doctor.diagnose.matcher import Matcher
    from doctor.diagnose.ruletest import problems
    from doctor.model import Channel, Line

    odd_run(tmp_path / "run")
    incident = json.loads(at("analyze", "--llm", "--json", tmp_path / "run").stdout)["incidents"][0]["id"]
    root = tmp_path / "patterns"
    shutil.copytree(patterns_dir(), root)
    assert at("rules", "draft", incident, "-o", root / "user-code").exit_code == 0
    assert [text for text in problems(root) if "draft" in text] == []
    line = Line(ODD.replace("step 7", "step 12"), 1)
    found = Matcher(compile_library(root)).match(Channel(Kind.STDERR, "x", (line,)))
    assert [one.cause for one in found if one.rule.startswith("draft")] == ["user-code/model-configuration"]


def test_no_draft_of_what_a_rule_decided_or_of_nothing(at: Callable[..., Result]) -> None:
    done = at("rules", "draft", "ffffffff")
    assert done.exit_code == 2 and "no diagnosis of the model" in done.output


def _diagnosis(text: str, by: str = "llm:m", cause: str = "user-code/model-configuration") -> Diagnosis:
    return Diagnosis(cause, 0.6, by, Culprit("j"), "", "", (Evidence("a.out", 1, text, Kind.STDERR),))


@pytest.mark.parametrize(
    "text",
    [
        "frob: (weird) [chars] {here} + * ? ^ $ | \\ and . dots", "gronk failed at /home/carla/x/y.dat after 12.5 s on node7.example.org",
        "Gronk 'alpha beta' is not a manifold", "2026-11-21 05:12:29,162 gronk overflow in layer 0x7f3a", "quux   with   wide   gaps 99%",
        "the token=abcdef123456 of the gronk was eaten by a grue", "gronk: " + "very " * 60 + "long", "ünïcode gronk ünd grüße overall",
    ],
)  # fmt: skip
def test_drafts_hold_no_secret_and_pass_the_loader(text: str) -> None:
    made = draft(_diagnosis(text), "incident abcdef", [("USER", "carla")])
    assert "carla" not in made.text and "abcdef123456" not in made.text and "node7" not in made.text
    assert yaml.safe_load(made.text)["status"] == "draft"


@pytest.mark.parametrize(
    ("text", "by"), [("exit 1", "llm:m"), ("", "llm:m"), (ODD, "rule:x"), ("ModuleNotFoundError: No module named 'x'", "llm:m")]
)
def test_what_makes_no_rule_is_refused_with_a_reason(text: str, by: str) -> None:
    from doctor.errors import DoctorError

    with pytest.raises(DoctorError):
        draft(_diagnosis(text, by, "disk/scratch-full"), "incident abcdef")


def test_patterns_leave_open_what_differs() -> None:
    import re

    pattern = pattern_of("gronk 'a' at /x/y line 12")
    assert re.search(pattern, "gronk 'bcd' at /q/r/s line 9")
    assert not re.search(pattern, "gronk at line 9")


# -- the loop -----------------------------------------------------------------------------------------


def test_the_opinion_node_of_the_loop(at: Callable[..., Result], tmp_path: Path) -> None:
    import os

    (tmp_path / "config" / "pegasus-doctor").mkdir(parents=True)
    (tmp_path / "config" / "pegasus-doctor" / "config.toml").write_text('[llm]\nmode = "always"\n')
    run = odd_run(tmp_path / "run")
    made: Rig = at.rig  # type: ignore[attr-defined]
    store: Store = made.store
    node = opinion_node(store, made.matcher, dict(os.environ))
    assert node is not None
    after = node(made.report(run), run)
    assert after.incidents[0].diagnosis.decided_by == "llm:claude-haiku-5-5"
    assert node(made.report(run), run).opinions[0].kept
    assert len(made.peer.requests) == 1


def test_the_loop_takes_the_opinion_and_asks_a_person(at: Callable[..., Result], tmp_path: Path) -> None:
    """Through the loop's own diagnosing step: the incident is the model's, and no policy lets it act."""
    from doctor.loop.policy import load_policy
    from doctor.loop.steps import Context, diagnose
    from doctor.loop.wiring import assemble
    from doctor.statedir import run_key

    (tmp_path / "config" / "pegasus-doctor").mkdir(parents=True)
    (tmp_path / "config" / "pegasus-doctor" / "config.toml").write_text('[llm]\nmode = "always"\n')
    run = odd_run(tmp_path / "run")
    made: Rig = at.rig  # type: ignore[attr-defined]
    seams = assemble(made.store, load_policy(), made.matcher)
    key = run_key(str(run.directory))
    made.store.see_run(made.report(run).run)
    context = Context(seams, run.directory, key, made.store.begin_session(key))
    diagnose(context)
    diagnose(context)
    (row,) = context.rows()
    assert row.incident.diagnosis.decided_by == "llm:claude-haiku-5-5"
    assert len(made.peer.requests) == 1
    texts = [entry["text"] for entry in made.store.history(key)]
    assert any("decided by llm:claude-haiku-5-5" in text for text in texts)
    assert any("1 calls, 1020 tokens, $" in text for text in texts)
    drafted = CliRunner().invoke(main, ["rules", "draft", row.id, "--state", str(made.store.folder)])
    assert drafted.exit_code == 0, drafted.output
