"""A plan as a person reads it: unified diffs of text, sizes of the rest, queue edits and commands."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator

from doctor.repair import Edit, Plan

_MAX_LINES = 400


def diff(plan: Plan) -> str:
    """Everything that the plan would change, in the order in which it would."""
    return "".join(line + "\n" for line in _lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    for edit in plan.edits:
        yield from edit_lines(edit)
    for change in plan.queue:
        for name, value in change.attributes:
            before = dict(change.before).get(name)
            yield f"queue {change.job_id}: {name} {before + ' -> ' if before is not None else '= '}{value}"
        if change.act:
            yield f"queue {change.job_id}: {change.act}"
    for argv in plan.argv:
        yield f"run: {shlex.join(argv)}"
    if plan.manual:
        yield f"to be run by a person: {plan.manual}"


def edit_lines(edit: Edit) -> Iterator[str]:
    """One edit as unified diff."""
    if edit.directory:
        yield f"{'remove' if edit.after is None and edit.before is not None else 'make'} directory {edit.path}"
        return
    if edit.before is None and edit.after is None:
        yield f"mode {_mode(edit.mode_before)} -> {_mode(edit.mode)} {edit.path}"
        return
    if edit.mode is not None and edit.mode_before is not None and edit.mode != edit.mode_before:
        yield f"mode {_mode(edit.mode_before)} -> {_mode(edit.mode)} {edit.path}"
    if edit.before == edit.after:
        return
    old = "/dev/null" if edit.before is None else edit.path
    new = "/dev/null" if edit.after is None else edit.path
    before, after = _text(edit.before), _text(edit.after)
    if before is None or after is None:
        yield f"--- {old}"
        yield f"+++ {new}"
        yield f"binary, {len(edit.before or b'')} bytes -> {len(edit.after or b'')} bytes"
        return
    rows = list(difflib.unified_diff(before, after, old, new, lineterm="", n=1))
    if not rows:  # an empty file appears or goes
        rows = [f"--- {old}", f"+++ {new}"]
    yield from rows[:_MAX_LINES]
    if len(rows) > _MAX_LINES:
        yield f"... {len(rows) - _MAX_LINES} more lines"


def _text(data: bytes | None) -> list[str] | None:
    """Lines with control characters made visible, or None for binary data."""
    if not data:
        return []
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    rows = text.split("\n")
    if rows[-1] == "":
        rows.pop()
    else:
        rows[-1] += "  (no newline at the end)"
    return ["".join(char if char.isprintable() or char == "\t" else _visible(char) for char in row) for row in rows]


def _visible(char: str) -> str:
    return f"^{chr(ord(char) + 64)}" if ord(char) < 32 else f"<{ord(char):04x}>"


def _mode(mode: int | None) -> str:
    return "?" if mode is None else f"{mode:04o}"
