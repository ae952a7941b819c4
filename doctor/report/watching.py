"""The daemon's state for people: one screen for ``status`` and ``top``, trouble first, at any width."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from doctor.watch.words import duration

_COLOURS = {
    "failed": "red", "escalated": "red", "held": "yellow", "waiting": "yellow", "running": "cyan", "succeeded": "green",
    "recovered": "green", "finished": "green", "removed": "magenta", "open": "red", "verifying": "cyan", "rescuing": "cyan",
}  # fmt: skip
_GONE = ("finished", "vanished")
_PROBLEMS = 3
_LABEL = 20
_LATE_S = 60.0  # a daemon that lives makes a sign every few seconds
_URGENCY = ("waiting", "escalated", "open", "diagnosed", "planned", "acting", "rescuing", "verifying")


def age(seconds: float | None) -> str:
    """A duration in its largest unit; ``never`` for what never was."""
    if seconds is None or seconds > 10 * 365 * 86_400:
        return "never"
    return duration(seconds, least=1)


def shown_runs(facts: dict[str, Any], everything: bool) -> list[dict[str, Any]]:
    """The runs to show, those with trouble first, then those that moved last."""

    def rank(run: dict[str, Any]) -> tuple[Any, ...]:
        jobs = run["jobs"]
        handed = sum(one["state"] == "escalated" for one in run["incidents"])
        trouble = jobs.get("failed", 0) + jobs.get("held", 0)
        return (-run["open"], -handed, not run["problem"], run["state"] != "failed", -trouble, -(run["moved"] or 0), run["run"])

    chosen = [run for run in facts["runs"] if everything or run["state"] not in _GONE or run["open"]]
    return sorted(chosen, key=rank)


def screen(facts: dict[str, Any], width: int, height: int, everything: bool = False) -> RenderableType:
    """At most ``height`` lines (a few more where that is less than ten); nothing is wrapped or exceeds ``width``."""
    runs = shown_runs(facts, everything)
    found = [(run, one) for run in runs for one in run["incidents"] if one["state"] != "recovered"]
    found.sort(key=lambda pair: (_URGENCY.index(pair[1]["state"]) if pair[1]["state"] in _URGENCY else 99, -pair[1]["updated"]))
    tight = height < 20
    gap: list[RenderableType] = [] if tight else [Text("")]
    parts: list[RenderableType] = [*_head(facts, width), *_sources(facts, width, tight)]
    hidden = len(facts["runs"]) - len(runs)
    below = [_line(Text(f"{_name(run)}: {run['problem']}", "red"), width) for run in runs if run["problem"]][:_PROBLEMS]
    if hidden:
        below.append(_line(Text(f"{hidden} finished {'run' if hidden == 1 else 'runs'} not shown", "dim"), width))
    room = height - len(parts) - len(below) - (1 + len(gap)) * (bool(runs) + bool(found))
    if found:
        most = max(room - len(runs), room // 2)
        parts += [*gap, *_part(found, most, "incidents", _incidents, width)]
        room -= min(len(found), most)
    if runs:
        parts += [*gap, *_part(runs, room, "runs", _runs, width)]
    return Group(*parts, *below)


def _part(entries: list[Any], most: int, what: str, table: Callable[[list[Any], int], Table], width: int) -> list[RenderableType]:
    """A table of the first entries in at most so many lines (two where that is less), and how many more there are."""
    if len(entries) <= most:
        return [table(entries, width)]
    first = max(1, most - 1)
    return [table(entries[:first], width), _line(Text(f"... and {len(entries) - first} more {what}", "dim"), width)]


def _line(text: Text, width: int) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    text.truncate(width, overflow="ellipsis")
    return text


def _head(facts: dict[str, Any], width: int) -> list[Text]:
    heart, now = facts["daemon"], time.time()
    if facts["running"]:
        facts_of = f"{heart.get('runs', 0)} runs, mode {heart.get('mode', '?')}, up {age(now - heart.get('begun', now))}"
        text = Text.assemble(("watching ", "bold green"), facts_of, f", pid {facts['pid'] or heart.get('pid', '?')}")
        text.append(f", {heart.get('lines', 0)} lines, {heart.get('diagnosed', 0)} diagnoses", "dim")
        if facts["last_sign_s"] is not None and facts["last_sign_s"] > _LATE_S:
            text = Text.assemble(("no sign of life ", "bold red"), f"for {age(facts['last_sign_s'])}, though pid {facts['pid']} is there")
    elif heart:
        text = Text.assemble(("no daemon is running", "bold red"), f"; as the last one left it {age(facts['last_sign_s'])} ago")
    else:
        text = Text.assemble(("no daemon has run yet", "bold red"), f" with its state in {_home(facts['state_dir'])}")
        return [_line(text, width), _line(Text("begin with: pegasus-doctor service install"), width)]
    return [_line(text, width)]


def _sources(facts: dict[str, Any], width: int, tight: bool) -> list[Text]:
    good = [one["name"] for one in facts["sources"] if one["ok"]]
    lines = [_line(Text.assemble(("ok: ", "green"), ", ".join(good)), width)] if good and not tight else []
    for one in facts["sources"]:
        if not one["ok"]:
            when = "never answered" if one["age_s"] is None else f"last good {age(one['age_s'])} ago"
            lines.append(_line(Text.assemble((f"{one['name']}: ", "bold red"), f"({when}) ", (one["text"], "red")), width))
    return lines


def _table(columns: tuple[tuple[str, int, bool], ...]) -> Table:
    """Columns of (heading, width, to the right)."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, width, right in columns:
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis", width=width)
    return table


def _incidents(found: list[tuple[dict[str, Any], dict[str, Any]]], width: int) -> Table:
    """Identifier, state, cause, jobs and run; where that does not fit, the beginning of the identifier and the rest without run."""
    wide, roomy = width >= 100, width >= 66
    names = [f"{one['category']}/{one['cause']}" if wide else one["cause"] for _, one in found]
    size = 10 if wide else 6
    states = max(5, *(len(one["state"]) for _, one in found))
    left = width - size - states - 4
    cause = max(5, min(max(map(len, names)), left - (16 + 16 if roomy else 0)))
    place = left - cause - 2 - 5 - 2 - 6 - 2
    columns = [("incident" if wide else "id", size, False), ("state", states, False), ("cause", cause, False)]
    if roomy:
        columns += [("jobs", 5, True), ("age", 6, True), ("run", place, False)]
    table, now = _table(tuple(columns)), time.time()
    for (run, one), name in zip(found, names, strict=True):
        cells = [Text(one["id"][:size]), Text(one["state"], _COLOURS.get(one["state"], "")), Text(name)]
        if roomy:
            words = _tail(_name(run), place) if place <= 60 else f"{_tail(_name(run), 30):<30}  {one['summary']}"
            cells += [Text(str(one["jobs"])), Text(age(now - one["updated"])), Text(words)]
        table.add_row(*cells)
    return table


def _runs(runs: list[dict[str, Any]], width: int) -> Table:
    rows = [(run, f"{run['jobs'].get('succeeded', 0)}/{run['jobs'].get('total', 0)}") for run in runs]
    narrow, roomy = width < 40, width >= 60
    columns = [] if narrow else [("state", max(5, *(len(run["state"]) for run in runs)), False)]
    columns += [] if narrow else [("done", max(4, *(len(done) for _, done in rows)), True)]
    columns += [("failed", 6, True)]
    if roomy:
        columns += [("held", 5, True), ("quiet", 6, True)]
    longest = max(len(_home(run["run"])) + len(_label(run)) for run in runs)
    place = max(3, min(width - sum(size + 2 for _, size, _ in columns), longest))
    table, now = _table((("run", place, False), *columns)), time.time()
    for run, done in rows:
        failed, held = run["jobs"].get("failed", 0), run["jobs"].get("held", 0)
        state = Text(run["state"], _COLOURS.get(run["state"], ""))
        cells = [Text(_place(run, place)), *([] if narrow else [state, Text(done)]), Text(str(failed), "red" if failed else "")]
        if roomy:
            cells += [Text(str(held), "yellow" if held else ""), Text(age(now - run["moved"]) if run["moved"] else "")]
        table.add_row(*cells)
    return table


def _home(path: str) -> str:
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if len(home) > 1 and path.startswith(home + "/") else path


def _tail(text: str, width: int) -> str:
    """The end of a text that is too long: of paths that is what tells them apart."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _label(run: dict[str, Any]) -> str:
    return f"  {run['label'][:_LABEL]}" if run["label"] else ""


def _name(run: dict[str, Any]) -> str:
    """A run in few words: its label and the last part of its folder."""
    return f"{_label(run)} {os.path.basename(run['run'])}".strip()


def _place(run: dict[str, Any], width: int) -> str:
    """The folder and, where there is room for it, the label."""
    path, label = _home(run["run"]), _label(run)
    if len(path) + len(label) > width and width < 40:
        label = ""
    return _tail(path, width - len(label)) + label


__all__ = ["age", "screen", "shown_runs"]
