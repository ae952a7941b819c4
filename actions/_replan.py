"""Planning again: the original planner arguments plus one change, reusing the outputs that are finished.

The planner is the host's own, because its version must be the one that planned the workflow. Where it
is not installed the plan is an exact command for a person. A small note in the submit directory marks
the run as planned again, so that it is never done twice.

The new submit directory lies beside the old one, under a name that is known beforehand. Scratch is the
same as before: the old DAGMan is gone, and what it left there is used or overwritten, not kept twice.
"""

from __future__ import annotations

import os
import shlex

from actions._action import JobParams, command, make
from actions._paths import mode_of
from doctor.model import Incident
from doctor.repair import Edit, Plan, Risk, RunView, Skipped

NOTE = "pegasus-doctor-replanned.txt"
PREFIX = "replanned-"  # of the new directory's name; the planner counts only names that begin with "run"
_WITH_VALUE = {
    "--conf", "--sites", "--output-sites", "--dir", "--relative-dir", "--relative-submit-dir", "--cleanup", "--output-dir",
    "--cluster", "--cache", "--inherited-rc-files", "--input-dir", "--reuse", "--staging-site", "--basename", "--transformations-dir",
    "--forward", "-X", "--job-prefix", "-c", "-C", "-I", "-O", "-o", "-s", "-R", "-b", "-j", "-d",
}  # fmt: skip
_DROPPED = {"--force", "-f", "--force-replan"}
_SUBMIT = {"--submit", "-S"}


def replan(
    action: str, incident: Incident, params: JobParams, view: RunView, summary: str, effect: str,
    options: dict[str, str], properties: dict[str, str],
) -> Plan | Skipped:  # fmt: skip
    """A plan that runs the planner once more with options set and properties defined."""
    words = original(view)
    if not words:
        return Skipped(action, "braindump.yml does not tell with which arguments the workflow was planned")
    note = os.path.join(view.root_dir, NOTE)
    if mode_of(note) is not None:
        return Skipped(action, f"this run has been planned again before, see {note}")
    parent, name = os.path.split(view.root_dir)
    new = os.path.join(parent, PREFIX + name)
    if name.startswith(PREFIX) or os.path.lexists(new):
        return Skipped(action, f"{view.root_dir if name.startswith(PREFIX) else new} comes from planning again already")
    words = changed(words, {**places(words, new, view), **options}, properties, view)
    planner = os.path.join(view.bindir, "pegasus-plan") if view.bindir else "pegasus-plan"
    folder = os.path.dirname(view.workflow_file)
    line = command("env", "-C", folder, planner, *words) if folder else command(planner, *words)
    if not (view.bindir and os.access(planner, os.X_OK)) or not folder:
        return make(
            action, Risk.COSTLY, incident, params, f"{summary} (by a person: pegasus-plan is not installed on this host)",
            effect, "Nothing is changed here.", manual=line, rescue=False,
        )  # fmt: skip
    quiet = tuple(word for word in words if word not in _SUBMIT)  # the doctor submits it, as it submits a rescue
    text = f"pegasus-doctor planned this workflow again ({action}), reusing the outputs of this run:\n{line}\nThe new run: {new}\n"
    return make(
        action, Risk.COSTLY, incident, params, summary, effect,
        "The note is removed; the new run is a directory of its own, which pegasus-remove stops.",
        (Edit(note, None, text.encode("utf-8", "surrogateescape"), mode=0o644),),
        argv=(("env", "-C", folder, planner, *quiet),), new_run=new,
    )  # fmt: skip


def places(words: list[str], new: str, view: RunView) -> dict[str, str]:
    """Options that put the new submit directory where it is expected, and leave scratch where it was."""
    base = view.base_dir.rstrip("/")
    if not base or not new.startswith(f"{base}/"):
        base = os.path.dirname(new)
    found = {"--dir": base, "--relative-submit-dir": os.path.relpath(new, base)}
    named = any(word.partition("=")[0] in ("--relative-dir", "--relative-submit-dir", "--randomdir") for word in words)
    return found if named else {**found, "--relative-dir": os.path.relpath(view.root_dir, base)}


def original(view: RunView) -> list[str]:
    """The planner's arguments as braindump.yml records them."""
    text = view.planner_arguments.strip()
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        text = text[1:-1]
    try:
        return shlex.split(text)
    except ValueError:
        return []


def changed(words: list[str], options: dict[str, str], properties: dict[str, str], view: RunView) -> list[str]:
    """The arguments with the change: nothing forced, finished outputs reused, files given by full path."""
    wanted = {"--reuse": view.root_dir, **options}
    kept: list[str] = []
    last: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        takes = name in _WITH_VALUE
        if takes and not sign and rest:
            value = rest.pop(0)
        if name in _DROPPED:
            continue
        if name == "--reuse":
            wanted["--reuse"] = f"{value},{wanted['--reuse']}"
        elif name in wanted or (name == "-O" and "--output-dir" in wanted):
            continue
        elif name == "--conf" and view.properties_file:
            kept += [name, view.properties_file]
        elif takes:
            kept += [name, value]
        elif not word.startswith("-") and view.workflow_file and os.path.basename(word) == os.path.basename(view.workflow_file):
            last = [view.workflow_file]
        else:
            kept.append(word)
    for name, value in wanted.items():
        kept += [name, value]
    return [*(f"-D{name}={value}" for name, value in properties.items()), *kept, *last]
