"""PegasusLite's standard error, sorted by stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.run.files import to_lines
from doctor.run.lite import LiteLog, parse_lite
from tests.recorded import Case, every

HEAD = """\
PegasusLite: version 5.1.3
2026-11-20 21:02:50: Executing on host node7.example.org
########################[Pegasus Lite] Setting up workdir ########################
2026-11-20 21:02:50: Not creating a new work directory as it is already set to /x
"""
STAGES = {
    "worker-package": "[Pegasus Lite] Figuring out the worker package to use",
    "container-image": "[Pegasus Lite] Staging in container",
    "stage-in": "[Pegasus Lite] Staging in input data and executables",
    "xbit": "[Pegasus Lite] Setting the xbit for executables staged",
    "integrity": "[Pegasus Lite] Checking file integrity for input files",
    "task": "[Pegasus Lite] Executing the user task",
    "container": "[Container] Now in pegasus lite container script",
    "stage-out": "[Pegasus Lite] Staging out output files",
}


def parse(text: str) -> LiteLog:
    return parse_lite(list(to_lines(text.encode())))


def banner(words: str) -> str:
    return f"\n##################### {words} #####################\n"


@pytest.mark.parametrize(("stage", "words"), STAGES.items())
def test_every_banner_names_its_stage(stage: str, words: str) -> None:
    log = parse(HEAD + banner(words) + "last line\n")
    assert (log.present, log.stage, log.host) == (True, stage, "node7.example.org")
    assert parse(HEAD + banner(words.replace("Pegasus Lite", "Container"))).stage == stage


def test_lines_go_where_they_belong() -> None:
    log = parse(
        "shell: warning before\n" + HEAD
        + banner(STAGES["stage-in"]) + "2026-11-20 21:02:51,123    INFO:  Reading URL pairs\ncp: cannot stat\n"
        + banner(STAGES["integrity"]) + "Integrity check: f.a: Expected checksum\n"
        + banner(STAGES["task"]) + "Killed by the container runtime\n"
        + "2026-11-20 21:02:59: User task failed with exitcode 3\n"
        + "PegasusLite: exitcode 71, tool originally exited with exitcode 3\n"
    )  # fmt: skip
    assert [line.text for line in log.before] == ["shell: warning before"]
    assert [line.text for line in log.transfers] == ["2026-11-20 21:02:51,123    INFO:  Reading URL pairs", "cp: cannot stat"]
    assert [line.text for line in log.integrity] == ["Integrity check: f.a: Expected checksum"]
    assert [line.text for line in log.task] == ["Killed by the container runtime"]
    assert (log.exit_code, log.tool_exit_code, log.task_exit_code, log.finished, log.stage) == (71, 3, 3, True, "task")
    assert log.step_failed


def test_a_task_that_failed_is_no_failed_step() -> None:
    log = parse(HEAD + banner(STAGES["task"]) + "PegasusLite: exitcode 1\n")
    assert (log.exit_code, log.tool_exit_code, log.step_failed) == (1, None, False)
    assert parse(HEAD + "PegasusLite: exitcode 71\n").step_failed
    assert not parse(HEAD + banner(STAGES["task"])).finished


def test_without_pegasus_lite_everything_stands_before_it() -> None:
    log = parse("one\n\ntwo\n")
    assert not log.present
    assert [(line.text, line.number) for line in log.before] == [("one", 1), ("two", 3)]


@given(st.text(max_size=400))
def test_any_text_is_sorted_completely(text: str) -> None:
    lines = list(to_lines((HEAD + text).encode("utf-8", "replace")))
    log = parse_lite(lines)
    sorted_lines = [*log.wrapper, *log.transfers, *log.integrity, *log.task, *log.before]
    numbers = [line.number for line in sorted_lines]
    assert len(numbers) == len(set(numbers))
    banners = sum(line.text.startswith("#") for line in lines)
    assert len(sorted_lines) >= sum(bool(line.text.strip()) for line in lines) - banners


@pytest.mark.parametrize("case", every(), ids=lambda case: case.name)
def test_recorded_standard_errors(case: Case) -> None:
    for path in sorted((case.folder / case.run).rglob("*.err.[0-9][0-9][0-9]")):
        data = path.read_bytes()
        log = parse_lite(list(to_lines(data)))
        assert log.present == (b"PegasusLite: version" in data or b"[Pegasus Lite]" in data), path.name
        assert log.finished == (b"PegasusLite: exitcode" in data), path.name
        if b"Staging out output files" in data:
            assert log.stage == "stage-out"
