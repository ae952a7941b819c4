"""Workflows that are only run and diagnosed: healthy ones, and failures of several kinds."""

from __future__ import annotations

from .fleet import Outcome, Scenario
from .flow import Flow, SubFlow, Task
from .live import Doctor

COPY = '#!/bin/sh\ncat "$1" > "$2"\n'
TWO_STEPS = (
    Task("first", "copy", ("in.txt",), ("mid.txt",), ("in.txt", "mid.txt")),
    Task("second", "copy", ("mid.txt",), ("out.txt",), ("mid.txt", "out.txt")),
)


def one_step(name: str, script: str, data: str = "condorio", **more: object) -> Flow:
    """A workflow of one task that reads in.txt and writes out.txt."""
    values: dict[str, object] = {"programs": {"step": script}, "inputs": {"in.txt": "hello\n"}, "data": data, **more}
    task = values.pop("task", Task("one", "step", ("in.txt",), ("out.txt",), ("in.txt", "out.txt")))
    return Flow(name, (task,), **values)  # type: ignore[arg-type]


def analyze(outcome: Outcome, doctor: Doctor) -> None:
    """The doctor's report on the finished run."""
    outcome.code, outcome.document = doctor.json("analyze", "--json", str(outcome.live.run))


def _healthy(data: str, cleanup: bool) -> Scenario:
    flow = Flow(f"ok{data}", TWO_STEPS, {"copy": COPY}, {"in.txt": "hello\n"}, data=data, cleanup=cleanup)
    return Scenario(f"healthy-{data}", flow, then=analyze)


_INNER = Flow("inner", TWO_STEPS, {"copy": COPY}, {"in.txt": "hello\n"})
_BROKEN = Flow(
    "inner", TWO_STEPS[:1], {"copy": "#!/bin/sh\necho 'inner: error: unknown unit furlong' >&2\nexit 3\n"}, {"in.txt": "hello\n"}
)


def _outer(name: str, inner: Flow) -> Flow:
    return Flow(name, TWO_STEPS[:1], {"copy": COPY}, {"in.txt": "hello\n"}, subflows=(SubFlow("part", inner, after=("first",)),))


FAILURES = {
    "fails-module": (one_step("module", "#!/usr/bin/env python3\nimport netCDF5\n"), "dependency/python-package-missing", "step_one"),
    "fails-command": (
        one_step("command", "#!/bin/bash\nsamtoolz view $1\n", "nonsharedfs"), "dependency/command-not-found", "step_one"),
    "fails-signal": (one_step("signal", "#!/bin/sh\nkill -SEGV $$\n", "sharedfs"), "user-code/segmentation-fault", "step_one"),
    "fails-output": (one_step("noout", "#!/bin/sh\nexit 0\n", hold_seconds=5), "user-code/declared-output-not-produced", "step_one"),
    "fails-inside": (_outer("outer", _BROKEN), "user-code/application-error", "copy_first"),
}  # fmt: skip

FLOWS = (
    _healthy("condorio", True),
    _healthy("sharedfs", True),
    _healthy("nonsharedfs", False),
    Scenario("healthy-sub-workflow", _outer("tree", _INNER), then=analyze),
    *(Scenario(name, flow, then=analyze) for name, (flow, _, _) in FAILURES.items()),
)
