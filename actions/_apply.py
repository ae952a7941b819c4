"""The one wrapper that changes anything: confined, checked, journaled, atomic, repeatable, undoable."""

from __future__ import annotations

import errno
from dataclasses import replace

from actions import _files
from actions._paths import Refused
from doctor.errors import DoctorError
from doctor.repair import Applied, Edit, Failed, Plan, Queue, QueueEdit, Runner

COMMAND_SECONDS = 3600.0
_PERSON = (1, 15)  # hold codes: by a person, and submitted on hold
HELD = 5


def apply(plan: Plan, runner: Runner) -> Applied | Failed:
    """Carry out the plan. Everything is checked before the first step; an error takes back what was done.

    What is already as the plan wants it is left alone, so that a second time changes nothing more. A
    crash (an exception of another kind, a kill) leaves an open intent in the journal.
    """
    return _Work(plan, runner).do()


def inverse(plan: Plan) -> Plan:
    """The plan that takes this one back. A release from hold and a command that ran stay as they are."""
    edits = tuple(
        Edit(one.path, one.after, one.before, one.mode_before, one.mode if one.mode_before is not None else None, one.directory)
        for one in reversed(plan.edits)
    )
    queue = tuple(QueueEdit(one.job_id, one.before, "", one.attributes) for one in reversed(plan.queue) if one.before)
    return replace(plan, summary=f"Undo: {plan.summary}", edits=edits, queue=queue, argv=(), manual="", rescue=False)


def undo(applied: Applied, runner: Runner) -> Applied | Failed:
    """Put everything back; refused (with the reason) where somebody changed a file since."""
    back = _Work(inverse(applied.plan), runner, lenient=True).do()
    if isinstance(back, Applied):
        for entry in applied.entries:
            runner.journal.undone(entry)
    return back


class _Work:
    """One plan being carried out."""

    def __init__(self, plan: Plan, runner: Runner, lenient: bool = False) -> None:
        self.plan = plan
        self.runner = runner
        self.lenient = lenient  # jobs that left the queue are no error
        self.entries: list[int] = []
        self.made: list[tuple[Edit, int]] = []
        self.set: list[tuple[str, str, str | None, int]] = []

    def do(self) -> Applied | Failed:
        try:
            todo = self._preflight()
        except (Refused, DoctorError, OSError) as problem:
            return Failed(self.plan, _words(problem), True)
        try:
            for edit in todo:
                self._edit(edit)
            queue = tuple(self._queue_edit(change) for change in self.plan.queue)
            if todo or not self.plan.edits:  # the edits mark a command as run: it is not run twice
                for argv in self.plan.argv:
                    self._command(argv)
        except (Refused, DoctorError, OSError) as problem:
            return Failed(self.plan, _words(problem), self._roll_back())
        return Applied(replace(self.plan, queue=queue), tuple(self.entries), self.runner.now)

    def _preflight(self) -> list[Edit]:
        """Edits that remain to be made; raises before anything is changed."""
        planned: set[str] = set()
        todo = []
        for edit in self.plan.edits:
            if not _files.satisfied(edit, self.runner.roots, planned):
                todo.append(edit)
            if edit.directory and edit.before is None:
                planned.add(edit.path)
        for change in self.plan.queue:
            self._present(change)
        return todo

    def _edit(self, edit: Edit) -> None:
        original, mode = _files.original(edit, self.runner.roots)
        entry = self.runner.journal.intend(self.plan, f"{_verb(edit)} {edit.path}", original, mode)
        self.entries.append(entry)
        made = edit if edit.mode_before is not None or mode is None else replace(edit, mode_before=mode)
        try:
            _files.write(edit, self.runner.roots)
        except BaseException as problem:
            if self.lenient and isinstance(problem, OSError) and problem.errno == errno.ENOTEMPTY:
                self.runner.journal.undone(entry)  # a directory that jobs have written into meanwhile stays
                return
            if _files.untouched(edit, self.runner.roots):
                self.runner.journal.undone(entry)
            raise
        self.made.append((made, entry))
        self.runner.journal.done(entry)

    def _present(self, change: QueueEdit) -> dict[str, object] | None:
        """The job's ad, None when it is gone (or out of reach) and that does not matter."""
        if self.runner.queue is None and self.lenient:
            return None
        queue = self._queue()
        cluster, _, proc = change.job_id.partition(".")
        if not (cluster.isdigit() and proc.isdigit()):
            raise Refused(f"{change.job_id!r} is no job id")
        ads = queue.present(f"ClusterId == {cluster} && ProcId == {proc}")
        if not ads:
            if self.lenient:
                return None
            raise Refused(f"job {change.job_id} has left the queue")
        if change.act == "release" and ads[0].get("JobStatus") == HELD and ads[0].get("HoldReasonCode") in _PERSON:
            raise Refused(f"job {change.job_id} was put on hold by a person; it is not released")
        return ads[0]

    def _queue(self) -> Queue:
        if self.runner.queue is None:
            raise DoctorError("there is no connection to HTCondor's queue")
        return self.runner.queue

    def _queue_edit(self, change: QueueEdit) -> QueueEdit:
        ad = self._present(change)
        if ad is None:
            return change
        queue, before = self._queue(), []
        for name, value in change.attributes:
            current = queue.get(change.job_id, name)
            if current is not None:
                before.append((name, current))
            if current == value:
                continue
            what = f"queue {change.job_id}: {name} = {value}"
            entry = self.runner.journal.intend(self.plan, what, None if current is None else current.encode(), None)
            self.entries.append(entry)
            self.set.append((change.job_id, name, current, entry))
            queue.edit(change.job_id, name, value)
            self.runner.journal.done(entry)
        self._act(change, ad, queue)
        return replace(change, before=tuple(before))

    def _act(self, change: QueueEdit, ad: dict[str, object], queue: Queue) -> None:
        held = ad.get("JobStatus") == HELD
        if not change.act or held == (change.act == "hold"):
            return
        reason = f"pegasus-doctor: {self.plan.summary}"[:200]
        entry = self.runner.journal.intend(self.plan, f"queue {change.job_id}: {change.act}", None, None)
        self.entries.append(entry)
        if change.act == "release":
            queue.release(change.job_id, reason)
        elif change.act == "hold":
            queue.hold(change.job_id, reason)
        else:
            raise Refused(f"{change.act!r} is nothing that is done to jobs")
        self.runner.journal.done(entry)

    def _command(self, argv: tuple[str, ...]) -> None:
        entry = self.runner.journal.intend(self.plan, f"run {argv[0]}", None, None)
        self.entries.append(entry)
        done = self.runner.processes.run(argv, COMMAND_SECONDS)
        if done.code != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-400:]
            raise DoctorError(f"{argv[0]} ended with exit code {done.code}: {said}")
        self.runner.journal.done(entry)

    def _roll_back(self) -> bool:
        """Take back what was done, newest first; whether all of it could be."""
        whole = True
        for job_id, name, current, entry in reversed(self.set):
            try:
                self._queue().edit(job_id, name, "undefined" if current is None else current)
                self.runner.journal.undone(entry)
            except DoctorError:
                whole = False
        for edit, entry in reversed(self.made):
            back = inverse(replace(self.plan, edits=(edit,), queue=())).edits[0]
            try:
                _files.write(back, self.runner.roots)
                self.runner.journal.undone(entry)
            except (Refused, DoctorError, OSError):
                whole = False
        return whole


def _verb(edit: Edit) -> str:
    if edit.directory:
        return "make directory" if edit.before is None else "remove directory"
    if edit.before is None:
        return "mode of" if edit.after is None else "create"
    return "remove" if edit.after is None else "edit"


def _words(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename or 'a file'}: {problem.strerror}"
    return str(problem)
