"""The command line: exit codes, schema, errors without tracebacks, and real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from doctor import __version__
from doctor.cli import main
from tests.builder import Builder, record
from tests.diagnose.test_library import RULE, changed, write
from tests.recorded import Case, fixtures
from tests.report.test_reports import check_schema


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=text)


def process(*arguments: str, env: dict[str, str] | None = None, text: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "doctor", *arguments], capture_output=True, input=text, env={**os.environ, **(env or {})}, check=False
    )


def user_mistake(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "internal error" not in result.output
    for word in words:
        assert word in result.output, result.output


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    build = Builder(tmp_path / "run0001")
    build.job("a", outputs={".out.000": record(raw=256, stderr="ValueError: could not convert string to float: 'x'", condor="101.0")})
    build.fail("a", condor="101.0")
    build.finish(1)
    return build.write()


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    build = Builder(tmp_path / "run0002")
    build.job("a", outputs={".out.000": record()})
    build.succeed("a")
    build.finish(0)
    return build.write()


def commands(group: click.Group = main, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield prefix
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name)


# ---- analyze


def test_exit_codes_of_analyze(failed: Path, healthy: Path, tmp_path: Path) -> None:
    assert run("analyze", str(failed)).exit_code == 1
    assert run("analyze", str(healthy)).exit_code == 0
    assert run("analyze", str(tmp_path / "nowhere")).exit_code == 2
    assert run("analyze").exit_code == 2
    assert run("analyze", "--no-such-option", str(failed)).exit_code == 2


def test_an_internal_error_exits_with_three_and_asks_for_a_report(failed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import doctor.diagnose.engine as engine

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(engine, "analyze", broken)
    result = run("analyze", str(failed))
    assert (result.exit_code, "internal error" in result.output, "Traceback" in result.output) == (3, True, False)
    assert isinstance(run("--debug", "analyze", str(failed)).exception, KeyError)


@pytest.mark.parametrize("case", fixtures(), ids=lambda case: case.name)
def test_json_of_recorded_runs(case: Case) -> None:
    result = run("analyze", "--json", "--map", f"{case.old}={case.folder}", str(case.folder / case.run))
    plain = json.loads(result.output)
    check_schema(plain)
    assert result.exit_code == (1 if plain["incidents"] else 0)


def test_text_for_people(failed: Path) -> None:
    result = run("analyze", str(failed))
    assert "demo  failed" in result.output
    assert "could not convert string to float" in result.output
    assert "00/00/a.out.000:" in result.output
    assert "\x1b" not in result.output
    assert len(run("analyze", "--verbose", str(failed)).output) >= len(result.output)


def test_a_run_that_is_none(tmp_path: Path) -> None:
    user_mistake(run("analyze", str(tmp_path)), "not a Pegasus submit directory")
    (tmp_path / "file").write_text("")
    user_mistake(run("analyze", str(tmp_path / "file")), "not a directory")
    user_mistake(run("analyze", "x" * 5000))
    user_mistake(run("analyze", "--json", str(tmp_path)))


@pytest.mark.parametrize("option", ["nonsense", "relative=/tmp", "/data=/does/not/exist", "=/tmp", "/data="])
@pytest.mark.parametrize("command", ["analyze", "analyzer", "enrich"])
def test_wrong_maps(failed: Path, option: str, command: str) -> None:
    text = f" Submit Directory   : {failed}\n"
    arguments = [str(failed)] if command != "enrich" else []
    if command == "analyzer":
        pytest.importorskip("Pegasus.cli")
        result = run("analyzer", "--files", "--map", option, *arguments)
        assert "Traceback" not in result.output
        assert "--map" in result.output
        return
    user_mistake(run(command, "--map", option, *arguments, text=text), "--map")


def test_silent_options_exclude_each_other(failed: Path) -> None:
    user_mistake(run("analyze", "--silent", "--no-silent", str(failed)), "exclude each other")


def test_nothing_in_the_run_is_changed(failed: Path) -> None:
    before = {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in failed.rglob("*")}
    run("analyze", "--silent", str(failed))
    assert {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in failed.rglob("*")} == before


# ---- help


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_of_every_command(words: tuple[str, ...]) -> None:
    if words == ("analyzer",):
        pytest.importorskip("Pegasus.cli")
        result = run(*words, "--help")
        assert "pegasus-analyzer" in result.output.lower()
        return
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert len(result.output.split("\n")) > 4
    assert run(*words, "-h").output == result.output


def test_unknown_commands_are_user_mistakes() -> None:
    user_mistake(run("no-such-command"), "No such command")
    user_mistake(run("rules", "no-such-command"), "No such command")


# ---- explain


MESSAGE = "ModuleNotFoundError: No module named 'numpy'\n"


def matches(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    plain = json.loads(result.output)
    assert plain["schema"] == 1
    assert all(match.keys() >= {"category", "cause", "confidence", "decided_by", "advice"} for match in plain["matches"])
    confidences = [match["confidence"] for match in plain["matches"]]
    assert confidences == sorted(confidences, reverse=True)
    return list(plain["matches"])


@pytest.mark.parametrize("source", ["stdin", "dash", "file"])
def test_explain_from_anywhere(tmp_path: Path, source: str) -> None:
    (tmp_path / "message").write_text(MESSAGE)
    if source == "file":
        result = run("explain", "--json", str(tmp_path / "message"))
    else:
        result = run("explain", "--json", *(["-"] if source == "dash" else []), text=MESSAGE)
    assert (matches(result)[0]["category"], matches(result)[0]["cause"]) == ("dependency", "python-package-missing")


def test_explain_for_people() -> None:
    result = run("explain", text=MESSAGE)
    assert "dependency/python-package-missing" in result.output
    assert "\x1b" not in result.output
    assert "unknown" in run("explain", text="all is well\n").output


def test_explain_of_harmless_unknown_or_no_text() -> None:
    assert matches(run("explain", "--json", text="everything is fine\n")) == []
    assert matches(run("explain", "--json", text="")) == []
    assert matches(run("explain", "--json", text=b"\xff\xfe\x00\x01" * 1000)) == []


@pytest.mark.parametrize(
    "kind",
    ["job-stderr", "hold-reason", "pegasus-transfer", "pegasuslite-err", "dagman-out", "planner", "condor-daemon", "kickstart"],
)
def test_explain_knows_every_kind(kind: str) -> None:
    assert matches(run("explain", "--json", "--kind", kind, text="No space left on device\n"))[0]["category"] == "disk"


def test_explain_of_wrong_kinds_and_files(tmp_path: Path) -> None:
    user_mistake(run("explain", "--kind", "tea-leaves", text="x"), "tea-leaves")
    user_mistake(run("explain", str(tmp_path / "nowhere")), "no such file")
    user_mistake(run("explain", str(tmp_path)), "not a regular file")
    os.mkfifo(tmp_path / "fifo")
    user_mistake(run("explain", str(tmp_path / "fifo")), "not a regular file")


def test_explain_reads_a_whole_kickstart_record() -> None:
    found = matches(run("explain", "--json", "--kind", "kickstart", text=record(raw=256, stderr=MESSAGE.strip())))
    assert found[0]["cause"] == "python-package-missing"


# ---- rules


def test_rules_list_show_check_test() -> None:
    listed = run("rules", "list")
    plain = json.loads(run("rules", "list", "--json").output)
    assert listed.output.splitlines()[-1] == f"{len(plain['rules'])} rules"
    assert all(entry["id"] in listed.output for entry in plain["rules"])
    only = json.loads(run("rules", "list", "--json", "--cause", "disk").output)["rules"]
    assert only and all(entry["cause"].startswith("disk/") for entry in only)
    shown = run("rules", "show", "python-module-not-found")
    assert "id: python-module-not-found" in shown.output
    assert "all well formed" in run("rules", "check").output
    tested = run("rules", "test")
    assert (tested.exit_code, tested.output) == (0, "all samples behave\n")


def test_rules_mistakes(tmp_path: Path) -> None:
    user_mistake(run("rules", "show", "no-such-rule"), "no-such-rule")
    user_mistake(run("rules", "show", "../causes"), "../causes")
    user_mistake(run("rules", "list", "--cause", "nonsense"), "nonsense")
    user_mistake(run("rules", "check", "--patterns", str(tmp_path / "nowhere")))


def test_rules_of_another_folder(tmp_path: Path) -> None:
    assert run("rules", "check", "--patterns", str(write(tmp_path / "good", [RULE]))).exit_code == 0
    bad = write(tmp_path / "bad", [changed(status="golden"), changed(id="other", colour="red")])
    user_mistake(run("rules", "check", "--patterns", str(bad)), "disk-full.yaml:", "other.yaml:", "2 problem(s)")
    wrong = write(tmp_path / "wrong", [changed(samples__no_match__0__text="No space left on device")])
    assert run("rules", "check", "--patterns", str(wrong)).exit_code == 0
    tested = run("rules", "test", "--patterns", str(wrong))
    assert (tested.exit_code, "fires on its negative" in tested.output) == (1, True)


# ---- pegasus-analyzer


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Case, Path]:
    """A failed fixture, copied (pegasus-analyzer may write beside its databases), and no host Pegasus on PATH."""
    pytest.importorskip("Pegasus.cli")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if shutil.which("pegasus-analyzer"):
        pytest.skip("pegasus-analyzer is in the system's own folders")
    case = next(case for case in fixtures() if case.state == "failed" and case.category in ("user-code", "dependency"))
    folder = tmp_path / case.name
    shutil.copytree(case.folder, folder, symlinks=True)
    return case, folder


STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+")


def test_the_real_pegasus_analyzer_enriched(copied: tuple[Case, Path]) -> None:
    from doctor.report.enrich import run_analyzer

    case, folder = copied
    place = str(folder / case.run)
    alone = run_analyzer(["--files", place])
    result = run("analyzer", "--files", "--map", f"{case.old}={folder}", place)
    assert result.exit_code == alone.code == 2
    theirs = alone.stdout.splitlines()
    ours = result.stdout.splitlines()
    remaining = iter(ours)
    assert all(any(row == line for line in remaining) for row in theirs), "a line of pegasus-analyzer's is gone or changed"
    added = "\n".join(row for row in ours if row not in theirs)
    assert f"pegasus-doctor: {case.truth}" in added
    assert f"{case.truth}  confidence" in added
    assert STAMP.sub("", result.stderr) == STAMP.sub("", alone.stderr)


def test_enrich_of_text_that_is_already_there(copied: tuple[Case, Path]) -> None:
    from doctor.report.enrich import run_analyzer

    case, folder = copied
    place = str(folder / case.run)
    text = run_analyzer(["--files", place]).stdout
    piped = run("enrich", "--map", f"{case.old}={folder}", text=text)
    assert piped.exit_code == 0
    assert f"pegasus-doctor: {case.truth}" in piped.output
    assert run("enrich", "--run", place, "--map", f"{case.old}={folder}", text=text).output == piped.output
    (folder / "text").write_text(text)
    assert run("enrich", "--map", f"{case.old}={folder}", str(folder / "text")).output == piped.output


def test_analyzer_passes_on_what_it_does_not_know(copied: tuple[Case, Path]) -> None:
    result = run("analyzer", "--no-such-option")
    assert result.exit_code == 2
    assert "no-such-option" in result.output


def test_analyzer_of_a_place_that_is_no_run(copied: tuple[Case, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("analyzer", "--files", str(tmp_path / "empty"))
    assert result.exit_code not in (0, 3)
    assert "internal error" not in result.output


def test_analyzer_uses_the_hosts_own_when_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: Path) -> None:
    tool = tmp_path / "bin" / "pegasus-analyzer"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho ' Submit Directory   : {failed}'\nprintf 'progress\\r\\f%s\\n' \"$*\"\necho oops >&2\nexit 7\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    result = run("analyzer", "-q", str(failed))
    assert result.exit_code == 7
    assert f"progress\r\x0c-q {failed}\n" in result.stdout_bytes.decode()
    assert result.stderr == "oops\n"
    assert "pegasus-doctor" in result.stdout


def test_enrich_mistakes(tmp_path: Path) -> None:
    result = run("enrich", text="hello\n")
    user_mistake(result, "hello\n", "names no submit directory")
    user_mistake(run("enrich", str(tmp_path / "nowhere")), "nowhere")


# ---- real processes


def test_version_is_light() -> None:
    code = (
        "import sys\nsys.argv = ['pegasus-doctor', '--version']\nfrom doctor.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'langgraph', 'anthropic', 'htcondor2', 're2', 'pydantic', 'yaml', 'rich', 'Pegasus'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"pegasus-doctor, version {__version__}\n[]\n"


def test_analyze_imports_nothing_of_the_loop(failed: Path) -> None:
    code = (
        f"import sys\nsys.argv = ['pegasus-doctor', 'analyze', '--json', {str(failed)!r}]\nfrom doctor.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 1\n"
        "print(sorted({'langgraph', 'anthropic', 'langchain_core'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_plain_output_when_not_a_terminal(failed: Path) -> None:
    done = process("analyze", str(failed), env={"TERM": "xterm-256color", "COLUMNS": "40"})
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stderr == b""
    assert max(map(len, done.stdout.split(b"\n"))) > 40  # lines are not broken for a width that nobody has


def test_a_reader_that_goes_away_is_no_error(failed: Path) -> None:
    for arguments in (["rules", "list"], ["analyze", str(failed)]):
        command = [sys.executable, "-m", "doctor", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stderr is not None
            child.stdout.close()
            error = child.stderr.read()
        assert b"Traceback" not in error and b"internal error" not in error, error


def test_users_mistakes_in_a_real_process(tmp_path: Path) -> None:
    done = process("analyze", str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"pegasus-doctor: ") and done.stderr.count(b"\n") == 1


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    done = process("analyze", os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr and b"internal error" not in done.stderr


def test_explain_in_a_real_pipe() -> None:
    done = process("explain", "--json", text=MESSAGE.encode())
    assert done.returncode == 0
    assert json.loads(done.stdout)["matches"][0]["cause"] == "python-package-missing"


def test_without_a_home_to_write_in(failed: Path) -> None:
    done = process("analyze", "--json", str(failed), env={"XDG_CACHE_HOME": "/proc/nowhere", "HOME": "/proc/nowhere"})
    assert done.returncode == 1
    assert json.loads(done.stdout)["schema"] == 1
