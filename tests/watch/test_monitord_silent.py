"""monitord dies while DAGMan goes on: the job states then come from dagman.out, until jobstate.log is written again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.model import Incident
from doctor.watch.dagman import LAG_S
from doctor.watch.follow import Follower
from doctor.watch.tail import Mark
from tests.builder import EPOCH, Builder, record
from tests.recorded import Case, fixtures
from tests.watch.flows import until
from tests.watch.test_follow import WHOLE

ERROR = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'wavelets'"
CASES = [case for case in fixtures() if case.truth not in WHOLE and "subworkflow" not in case.name]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Story:
    """A run whose one job fails; DAGMan and monitord write when they are told to."""

    def __init__(self, folder: Path, matcher: Matcher) -> None:
        builder = Builder(folder)
        builder.job("step_1", outputs={".out.000": record(raw=256, stderr=ERROR)})
        builder.job("step_2")
        builder.attempt("step_1", "SUBMIT", "EXECUTE", condor="101.0")
        builder.write()
        self.folder = folder
        self.clock = Clock()
        self.matcher = matcher
        self.dagman(
            "** condor_scheduniv_exec.100.0 (CONDOR_DAGMAN) STARTING UP", "Event: ULOG_SUBMIT for HTCondor Node step_1 (101.0.0) {}"
        )
        self.follower = Follower(folder, matcher, clock=self.clock)
        self.found: dict[str, Incident] = {}
        self.diagnosed = 0
        self.marks: dict[str, Mark] = {}
        self.seen: dict[str, tuple[int, str]] = {}

    def dagman(self, *lines: str) -> None:
        with (self.folder / "demo-0.dag.dagman.out").open("a") as log:
            log.writelines(f"11/20/26 21:22:50 {line}\n" for line in lines)

    def fail(self) -> None:
        self.dagman("Node step_1 job proc (101.0.0) failed with status 1.", "POST Script of node step_1 failed with status 1")

    def monitord(self, *states: str) -> None:
        with (self.folder / "jobstate.log").open("a") as log:
            log.writelines(f"{EPOCH + 9} step_1 {state} condorpool - 1\n" for state in states)

    def follow(self, later: float = 0.0) -> list[str]:
        """The causes of the incidents so far."""
        self.clock.now += later
        more = True
        while more:
            turn = self.follower.turn()
            self.found.update({one.id: one for one in turn.incidents})
            self.diagnosed += turn.diagnosed
            self.marks.update(turn.marks)
            self.seen.update({one.job: (one.seq, one.incident) for one in turn.seen})
            more = turn.more
        return [one.diagnosis.cause for one in self.found.values()]

    def again(self) -> None:
        """Another process goes on."""
        self.follower = Follower(self.folder, self.matcher, self.marks, self.seen, clock=self.clock)


@pytest.fixture
def story(tmp_path: Path, matcher: Matcher) -> Story:
    return Story(tmp_path / "run", matcher)


def test_what_dagman_tells_is_diagnosed_when_monitord_does_not(story: Story) -> None:
    assert story.follow() == []
    story.fail()
    assert story.follow(1) == [], "monitord may be a little behind"
    assert not story.follower.changed()
    story.clock.now += LAG_S
    assert story.follower.changed()
    assert story.follow() == ["dependency/python-package-missing"]
    assert story.follower.parts[""].silent is not None
    story.dagman("**** condor_scheduniv_exec.100.0 (condor_DAGMAN) pid 77 EXITING WITH STATUS 1")
    story.follow()
    assert story.follower.ended == 1


def test_a_monitord_that_is_a_little_behind_is_waited_for(story: Story) -> None:
    story.follow()
    story.fail()
    assert story.follow(LAG_S - 1) == []
    story.monitord("JOB_FAILURE 1", "POST_SCRIPT_FAILURE 1")
    assert story.follow(2) == ["dependency/python-package-missing"]
    assert story.follow(10 * LAG_S) and story.follower.parts[""].silent is None
    assert story.diagnosed == 1


def test_a_monitord_that_writes_knows_better(story: Story) -> None:
    """One job of which the two logs differ is no reason to leave the log that is being written."""
    story.follow()
    story.dagman("POST Script of node step_2 completed successfully.")
    story.follow(1)
    for _ in range(6):
        story.monitord("IMAGE_SIZE -")
        story.follow(LAG_S / 2)
    assert story.follower.parts[""].silent is None and not story.follower.changed()


@pytest.fixture
def living(story: Story) -> Iterator[None]:
    """A process that calls itself monitord, as monitord.pid says."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "pegasus-monitord"])
    (story.folder / "monitord.pid").write_text(f"pid {process.pid}\ntimestamp 2026-11-20T21:22:40\n")
    assert until(lambda: b"monitord" in Path("/proc", str(process.pid), "cmdline").read_bytes(), 10)
    yield
    process.kill()
    process.wait()


@pytest.mark.usefixtures("living")
def test_a_living_monitord_gets_minutes(story: Story) -> None:
    story.follow()
    story.fail()
    assert story.follow(1) == []
    assert story.follow(4 * LAG_S) == [] and story.follower.parts[""].silent is None
    assert story.follow(300) == ["dependency/python-package-missing"]


def test_monitord_comes_back_and_nothing_is_told_twice(story: Story) -> None:
    story.follow()
    story.fail()
    story.follow(1)
    assert story.follow(LAG_S) == ["dependency/python-package-missing"]
    shutil.copy(story.folder / "jobstate.log", story.folder / "jobstate.log.000")
    text = (story.folder / "jobstate.log").read_text()
    (story.folder / "new").write_text(
        f"{text}{EPOCH + 9} step_1 JOB_FAILURE 1 condorpool - 1\n{EPOCH + 9} step_1 POST_SCRIPT_FAILURE 1 condorpool - 1\n"
    )
    os.replace(story.folder / "new", story.folder / "jobstate.log")
    assert story.follower.changed()
    story.follow()
    assert story.follower.parts[""].silent is None and story.diagnosed == 1
    story.monitord("SUBMIT 102.0", "JOB_SUCCESS 0", "POST_SCRIPT_SUCCESS 0")
    story.follow()
    assert story.follower.names == {}, "what monitord writes now is read"


def test_another_process_goes_on(story: Story) -> None:
    story.follow()
    story.fail()
    story.follow(1)
    assert story.follow(LAG_S) == ["dependency/python-package-missing"]
    story.again()
    story.follow(1)
    story.follow(LAG_S)
    assert story.follower.parts[""].silent is not None
    assert story.diagnosed == 1 and list(story.follower.names.values()) == [{"step_1": None}]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_run_without_jobstate_log(case: Case, matcher: Matcher, tmp_path: Path) -> None:
    """As if monitord had never started: the same causes as afterwards."""
    shutil.copytree(case.folder, tmp_path / "case", symlinks=True)
    run = tmp_path / "case" / case.run
    (run / "jobstate.log").unlink(missing_ok=True)
    clock = Clock()
    follower = Follower(run, matcher, clock=clock)
    found: dict[str, Incident] = {}
    for _ in range(3):
        more = True
        while more:
            turn = follower.turn()
            found.update({one.id: one for one in turn.incidents})
            for mark in turn.resolved:
                found.pop(mark, None)
            more = turn.more
        clock.now += LAG_S
    expected = (
        {one.diagnosis.cause for one in case.analyze(matcher, tmp_path / "case").incidents} - WHOLE - {"infrastructure/monitord-failed"}
    )
    assert {one.diagnosis.cause for one in found.values()} == expected
