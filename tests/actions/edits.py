"""What the tests of single edits share: plans, refusals and changed lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import actions
from doctor.repair import Caps, Plan, Skipped

from .world import CAPS, World


def plan_of(name: str, world: World, about: Any, params: dict[str, Any], caps: Caps = CAPS) -> Plan:
    plan = actions.get(name).plan(about, params, world.view(), caps)
    assert isinstance(plan, Plan), plan
    return plan


def skipped(name: str, world: World, about: Any, params: dict[str, Any], caps: Caps = CAPS) -> str:
    answer = actions.get(name).plan(about, params, world.view(), caps)
    assert isinstance(answer, Skipped), answer
    return answer.reason


def changed(plan: Plan, file: str) -> list[tuple[str, str]]:
    """(old, new) lines of one edit, by place; added lines have an empty old one."""
    edit = next(one for one in plan.edits if one.path.endswith(file))
    old, new = (edit.before or b"").decode().splitlines(), (edit.after or b"").decode().splitlines()
    if len(old) == len(new):
        return [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    return [("", line) for line in new if line not in old] + [(line, "") for line in old if line not in new]


def edit_submit(world: World, name: str, *pairs: tuple[str, str]) -> Path:
    path = world.submit / "00" / "00" / f"{name}.sub"
    text = path.read_text()
    for pattern, new in pairs:
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count, pattern
    path.write_text(text)
    return path
