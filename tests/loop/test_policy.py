"""The policy file: the default is whole, mistakes are told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.errors import DoctorError
from doctor.loop.policy import default_policy_file, load_policy, workflow_dir
from doctor.run.files import Ledger
from doctor.run.paths import PathMap
from doctor.run.reader import open_run
from doctor.settings import SettingsError
from tests.builder import Builder, braindump


def test_the_default_is_whole_and_asks() -> None:
    policy = load_policy()
    assert policy.mode == "ask" and policy.caps.growth == 2.0
    assert policy.mode_of("raise-memory") == "ask"
    assert default_policy_file().read_text().count("#") > 20, "documented"


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('mode = "act"\n[caps]\nmemory_mb = 512\n[actions.retry]\nmode = "ask"\nconfidence = 0.9\n')
    policy = load_policy(file)
    assert policy.mode_of("raise-memory") == "act" and policy.mode_of("retry") == "ask"
    assert policy.caps.memory_mb == 512 and policy.caps.disk_mb == load_policy().caps.disk_mb
    assert policy.confidence_of("retry") == 0.9 and policy.attempts_of("retry") == 3
    assert policy.mode_of("lower-request") == "ask"


def test_observe_is_loosened_by_nothing(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('mode = "observe"\n[actions.retry]\nmode = "act"\n')
    assert load_policy(file).mode_of("retry") == "observe"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('mode = "act"\nmood = "x"\n', 2, "mood: unknown key"),
        ('mode = "act"\n\n[caps]\nmemory_mb = 1\nmemory = 2\n', 5, "caps.memory: unknown key"),
        ('mode = "go"\n', 1, "mode"),
        ("[limits]\nconfidence = 7\n", 2, "limits.confidence"),
        ('[caps]\nmemory_mb = "much"\n', 2, "caps.memory_mb"),
        ('[actions.fly]\nmode = "act"\n', 1, "no such action"),
        ("[actions.retry]\nattempt = 1\n", 2, "unknown key"),
        ('[paths]\nroots = ["relative"]\n', 2, "absolute"),
        ('mode = "act"\n[caps\n', 2, "not valid TOML"),
        ("limits = 3\n", 1, "limits"),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_policy(file)
    assert any(row.startswith(f"{file}:{line}:") and words in row for row in caught.value.problems), caught.value.problems


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('mode = "go"\nmood = 1\n[caps]\ngrowth = 0.5\n')
    with pytest.raises(SettingsError) as caught:
        load_policy(file)
    assert len(caught.value.problems) == 3


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DoctorError, match="No such file"):
        load_policy(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DoctorError, match="UTF-8"):
        load_policy(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("dax", "allowed"),
    [
        ("{flow}/workflow.yml", True),
        ("/workflow.yml", False),
        ("/etc/workflow.yml", False),
        ("{flow}/../workflow.yml", True),
        ("w.yml", False),
    ],
)
def test_the_workflow_folder_must_be_above_the_run(tmp_path: Path, dax: str, allowed: bool) -> None:
    flow = tmp_path / "x" / "flow"
    builder = Builder(flow / "run0001")
    builder.files["braindump.yml"] = braindump().replace("/data/flows/demo/workflow.yml", dax.format(flow=flow))
    run = open_run(builder.write(), Ledger(), PathMap())
    assert (workflow_dir(run) is not None) is allowed
    roots = load_policy().roots(run)
    assert run.directory in roots and Path("/") not in roots
