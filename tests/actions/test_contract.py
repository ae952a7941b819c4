"""The contract that every action keeps. A new action fails here until it has a situation in ``cases.py``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import actions
from doctor.errors import DoctorError
from doctor.loop.records import plain, plan_from
from doctor.repair import Applied, Edit, Evidence, Failed, Plan, Risk, Skipped, Verification

from .cases import CASES
from .world import CAPS, Book, Entry, NoProcesses, Recorder, World, tree

ROOT = Path(__file__).resolve().parents[2]
NAMES = [action.name for action in actions.ACTIONS]


def planned(name: str, folder: Path) -> tuple[World, Plan]:
    world, about, params = CASES[name](folder)
    plan = actions.get(name).plan(about, params, world.view(), CAPS)
    assert isinstance(plan, Plan), plan
    return world, plan


def processes(plan: Plan) -> Any:
    return Recorder() if plan.argv else NoProcesses()


def test_every_action_is_listed_once_and_known_to_the_rules() -> None:
    listed = yaml.safe_load((ROOT / "patterns" / "actions.yaml").read_text("utf-8"))
    assert {action.name: (action.risk.value, action.summary) for action in actions.ACTIONS} == {
        name: (entry["risk"], entry["summary"]) for name, entry in listed.items()
    }
    assert len(set(NAMES)) == len(NAMES) and set(CASES) == set(NAMES)


def test_an_unknown_action_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(DoctorError, match=r"no action is called 'reboot'.*raise-memory"):
        actions.get("reboot")


@pytest.mark.parametrize("name", NAMES)
def test_planning_changes_nothing_and_says_what_it_would_do(name: str, tmp_path: Path) -> None:
    world, about, params = CASES[name](tmp_path)
    view, before = world.view(), tree(tmp_path)
    plan = actions.get(name).plan(about, params, view, CAPS)
    assert isinstance(plan, Plan), plan
    assert tree(tmp_path) == before
    assert world.queue is None or not world.queue.log
    assert plan.summary and plan.effect and plan.undo and plan.risk is actions.get(name).risk
    assert actions.diff(plan) or plan.delay_s
    assert plan_from(plain(plan)) == plan  # the store keeps all of it
    assert actions.get(name).plan(about, params, view, CAPS) == plan


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_starts_no_process(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, about, params = CASES[name](tmp_path)
    view = world.view()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "posix_spawn", refuse)
    monkeypatch.setattr(os, "system", refuse)
    plan = actions.get(name).plan(about, params, view, CAPS)
    assert isinstance(plan, Plan) and actions.diff(plan) is not None


@pytest.mark.parametrize("name", NAMES)
def test_twice_equals_once(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    book, started = Book(), processes(plan)
    first = actions.get(name).apply(plan, world.runner(book, processes=started))
    assert isinstance(first, Applied), first
    after, entries = tree(tmp_path), len(book.entries)
    changes = list(world.queue.log) if world.queue else []
    assert set(book.states()) <= {"done"}
    assert entries == len(plan.edits) + len(plan.argv) + sum(len(one.attributes) + bool(one.act) for one in plan.queue)
    second = actions.get(name).apply(plan, world.runner(book, processes=started))
    assert isinstance(second, Applied), second
    assert tree(tmp_path) == after and len(book.entries) == entries and second.entries == ()
    assert (list(world.queue.log) if world.queue else []) == changes
    assert not plan.argv or len(started.calls) == len(plan.argv)


@pytest.mark.parametrize("name", NAMES)
def test_undo_restores_every_byte_and_mode(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    before, book = tree(tmp_path), Book()
    applied = actions.get(name).apply(plan, world.runner(book, processes=processes(plan)))
    assert isinstance(applied, Applied), applied
    assert (tree(tmp_path) != before) == bool(plan.edits)
    again = replace(applied, plan=plan_from(plain(applied.plan)))  # as the store gives it back
    back = actions.get(name).undo(again, world.runner(book))
    assert isinstance(back, Applied), back
    assert tree(tmp_path) == before
    assert all(book.entries[entry].state == "undone" for entry in applied.entries)
    if world.queue:
        for change in applied.plan.queue:
            assert all(world.queue.ads[change.job_id][name] == value for name, value in change.before)
    assert isinstance(actions.get(name).undo(again, world.runner(book)), Applied)
    assert tree(tmp_path) == before


EDITING = [name for name in NAMES if name not in ("release-held", "retry")]


@pytest.mark.parametrize("name", EDITING)
def test_a_crash_between_intent_and_result_leaves_an_open_intent(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    before, book = tree(tmp_path), Book(crash_after=0)
    with pytest.raises(KeyboardInterrupt):
        actions.get(name).apply(plan, world.runner(book, processes=processes(plan)))
    assert book.states() == ["open"]
    assert Entry(book.entries[0].what, _original(plan), book.entries[0].mode, "open") == book.entries[0]
    fresh = Book()  # what was begun can be completed, and all of it taken back
    applied = actions.get(name).apply(plan, world.runner(fresh, processes=processes(plan)))
    assert isinstance(applied, Applied)
    assert isinstance(actions.get(name).undo(applied, world.runner(fresh)), Applied)
    assert tree(tmp_path) == before


def _original(plan: Plan) -> bytes | None:
    return plan.edits[0].before if not plan.edits[0].directory else None


_KILL = """
import os, pickle, signal, sys
sys.path.insert(0, {root!r})
import actions
from doctor.repair import Runner
from pathlib import Path
from tests.actions.world import NoProcesses, Recorder

class Book:
    def intend(self, plan, what, original, mode):
        with open({log!r}, "a") as log:
            log.write("intend " + what + chr(10)); log.flush(); os.fsync(log.fileno())
        return 0
    def done(self, entry):
        os.kill(os.getpid(), signal.SIGKILL)
    def undone(self, entry): pass

plan, queue = pickle.loads(open({plan!r}, "rb").read())
actions.get(plan.action).apply(plan, Runner((Path({place!r}),), Book(), Recorder(), queue, 1.0))
"""


@pytest.mark.parametrize("name", ["raise-memory", "create-output-directory", "make-executable", "halt-workflow"])
def test_a_kill_leaves_whole_files_and_the_intent(name: str, tmp_path: Path) -> None:
    import pickle

    world, plan = planned(name, tmp_path)
    before = tree(tmp_path)
    saved, log = tmp_path.parent / f"{tmp_path.name}.plan", tmp_path.parent / f"{tmp_path.name}.log"
    saved.write_bytes(pickle.dumps((plan, world.queue)))
    script = _KILL.format(root=str(ROOT), log=str(log), plan=str(saved), place=str(world.root))
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert log.read_text().count("intend") == 1
    applied = actions.get(name).apply(plan, world.runner())
    assert isinstance(applied, Applied), applied
    assert isinstance(actions.get(name).undo(replace(applied, entries=()), world.runner()), Applied)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", EDITING)
def test_refused_outside_the_roots(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    other = tmp_path / "elsewhere"
    other.mkdir()
    before, book = tree(tmp_path), Book()
    for roots in ((), (other,), (world.root / "inputs",)):
        failed = actions.get(name).apply(plan, world.runner(book, roots=roots))
        assert isinstance(failed, Failed) and failed.undone and "outside the allowed places" in failed.reason, failed
    assert tree(tmp_path) == before and not book.entries


@pytest.mark.parametrize("name", EDITING)
def test_refused_when_a_file_changed_meanwhile(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    last = plan.edits[-1]
    _disturb(last)
    before, book = tree(tmp_path), Book()
    failed = actions.get(name).apply(plan, world.runner(book, processes=processes(plan)))
    assert isinstance(failed, Failed) and failed.undone, failed
    assert tree(tmp_path) == before and not book.entries


def _disturb(edit: Edit) -> None:
    path = Path(edit.path)
    if edit.directory:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("a file")
    elif edit.before is None and edit.after is None:
        path.chmod(0o600)
    else:
        path.write_bytes((edit.before or b"") + b"# a person was here\n")


@pytest.mark.parametrize("name", [name for name in EDITING if name not in ("create-output-directory",)])
def test_a_link_in_place_of_a_file_is_never_followed(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    edit = plan.edits[0]
    path, outside = Path(edit.path), tmp_path / "outside"
    if path.exists():
        outside.write_bytes(path.read_bytes())
        outside.chmod(path.stat().st_mode & 0o777)
        path.unlink()
    path.symlink_to(outside)
    before = tree(tmp_path)
    failed = actions.get(name).apply(plan, world.runner(processes=processes(plan)))
    assert isinstance(failed, Failed) and "symbolic link" in failed.reason, failed
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", EDITING)
def test_a_link_in_place_of_a_folder_does_not_lead_out(name: str, tmp_path: Path) -> None:
    world, plan = planned(name, tmp_path)
    folder = Path(plan.edits[0].path).parent
    while not folder.is_dir():
        folder = folder.parent
    moved = tmp_path / "outside"
    folder.rename(moved)
    folder.symlink_to(moved)
    before = tree(tmp_path)
    failed = actions.get(name).apply(plan, world.runner(roots=(world.root,), processes=processes(plan)))
    if folder == world.root:  # the root itself: what the policy lists is resolved once
        return
    assert isinstance(failed, Failed) and "outside the allowed places" in failed.reason, failed
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_checked(name: str, tmp_path: Path) -> None:
    world, about, params = CASES[name](tmp_path)
    view = world.view()
    for wrong in ({**params, "surprise": 1}, {**params, "job": 5}, {**params, "job": "x" * 1000}):
        answer = actions.get(name).plan(about, wrong, view, CAPS)
        assert isinstance(answer, Skipped) and "parameters" in answer.reason


HOSTILE = [
    "/etc/passwd",
    "../../../etc/passwd",
    "/flow/../etc/shadow",
    "a\0b",
    "$(reboot)",
    "; rm -rf /",
    "-rf",
    "/",
    "",
    "\n",
    "x" * 5000,
    "//etc//",
]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_parameters_change_nothing_outside(name: str, tmp_path: Path) -> None:
    world, about, params = CASES[name](tmp_path)
    view = world.view()
    before = tree(tmp_path)
    for key in (*params, "file", "path", "pfn", "lfn", "host", "directory"):
        for bad in HOSTILE:
            plan = actions.get(name).plan(about, {**params, key: bad}, view, CAPS)
            assert tree(tmp_path) == before
            if isinstance(plan, Skipped):
                continue
            book = Book()
            outcome = actions.get(name).apply(plan, world.runner(book, processes=Recorder()))
            if isinstance(outcome, Applied):
                assert all(edit.path.startswith(f"{world.root}/") for edit in plan.edits)
                assert all("\0" not in word for argv in plan.argv for word in argv)
                assert isinstance(actions.get(name).undo(outcome, world.runner(book)), Applied)
            assert tree(tmp_path) == before
            for ad in (world.queue.ads if world.queue else {}).values():
                ad["JobStatus"] = 5


WHOLE_RUN = {"retry", "halt-workflow", "clear-stale-lock", "enable-cleanup", "bypass-image-staging", "namespace-output"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WHOLE_RUN])
def test_a_job_that_is_not_of_this_run_is_skipped_with_a_reason(name: str, tmp_path: Path) -> None:
    world, about, params = CASES[name](tmp_path)
    stranger = replace(about, jobs=("nobody",), diagnosis=replace(about.diagnosis, culprit=replace(about.diagnosis.culprit, job="nobody")))
    answer = actions.get(name).plan(stranger, {**params, "job": "nobody"}, world.view(), CAPS)
    assert isinstance(answer, Skipped) and "not known in this run" in answer.reason


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("halt-workflow", "clear-stale-lock")])
def test_success_is_what_the_log_shows(name: str, tmp_path: Path) -> None:
    _, about, _ = CASES[name](tmp_path)
    action, plan = actions.get(name), Plan(name, about.id, "j", {}, "", "", "", Risk.OBSERVE)

    def result(*attempts: tuple[int, str, str]) -> Verification:
        return action.verify(plan, Evidence(attempts, about, "running")).result

    assert result() is Verification.NOT_YET
    assert result((2, "running", "")) is Verification.NOT_YET
    assert result((2, "succeeded", "")) is Verification.RECOVERED
    assert result((2, "failed", about.id)) is Verification.WORSE
    assert result((2, "held", "i-2")) is Verification.WORSE
    assert result((2, "failed", about.id), (3, "succeeded", "")) is Verification.RECOVERED
