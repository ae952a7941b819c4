"""The README states only what is true: its demo output is the real one, and its commands exist and run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from doctor.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DEMO = "fixtures/failed_runs/undeclared-helper-condorio"
RUN = f"{DEMO}/runs/sci/pegasus/wave/run0001"


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line[2:].split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line for line in lines if line.startswith("pegasus-doctor ")]


def test_demo_output_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, ["analyze", "--map", f"/data/flows/b03={DEMO}", RUN])
    block = re.search(r"<!-- demo: .*? -->\n```text\n(.*?)```", README, re.DOTALL)
    assert block is not None
    assert result.output.strip() == block[1].strip()
    assert result.exit_code == 1


def test_makefile_runs_the_same_demo() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"DEMO := {DEMO}" in makefile
    assert "runs/sci/pegasus/wave/run0001" in makefile


#: Exit codes that a command may end with on the demo's run (on a host without HTCondor, and on one with it).
EXPECTED = {"analyze": {1}, "analyzer": {2}, "heal": {1, 3}, "undo": {2}}


@pytest.mark.parametrize("line", _commands())
def test_every_command_of_the_readme_runs(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "flow"
    shutil.copytree(ROOT / DEMO, copy, symlinks=True)
    run = str(copy / RUN.removeprefix(f"{DEMO}/"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    message = tmp_path / "message.txt"
    message.write_text("Error from slot1@node: memory usage exceeded request_memory\n")
    words = shlex.split(line)[1:]
    words = [{"RUN": run, "message.txt": str(message), "ID": "none"}.get(word, word) for word in words]
    words = [word.replace("/data=/mnt/copy", f"/data/flows/b03={copy}").replace("/mnt/copy/blast/run0001", run) for word in words]
    result = CliRunner().invoke(main, words)
    assert isinstance(result.exception, SystemExit) or result.exception is None, result.output
    assert result.exit_code in EXPECTED.get(words[0], {0}), result.output
    assert result.output.strip()


def test_there_are_commands_to_check() -> None:
    assert len(_commands()) >= 6
