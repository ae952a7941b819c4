"""Small descriptions of workflows, from which the test-only planner makes submit directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """One job of the abstract workflow. Requests are left out of the submit file where they are None."""

    id: str
    program: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    memory_mb: int | None = 128
    disk_mb: int | None = 64
    cpus: int | None = 1
    submit: Mapping[str, str] = field(default_factory=dict)  # more lines of the submit file
    kickstart: str = ""  # more options of kickstart, such as `-k 20 -K 3`
    after: tuple[str, ...] = ()  # ids of tasks (or sub-workflows) that must have ended

    @property
    def name(self) -> str:
        return f"{self.program}_{self.id}"


@dataclass(frozen=True)
class SubFlow:
    """A sub-workflow as one job of its parent."""

    id: str
    flow: Flow
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"pegasus-plan_{self.id}"


@dataclass(frozen=True)
class Flow:
    """A workflow with everything that belongs to it.

    `programs` are scripts by transformation, `inputs` contents by file name. `files` are further
    files of the workflow's folder. `sources` are URLs of inputs that lie elsewhere than in inputs/.
    """

    name: str
    tasks: tuple[Task, ...]
    programs: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    data: str = "condorio"
    cleanup: bool = False
    retries: int = 0
    installed: frozenset[str] = frozenset()  # programs that run where they are registered
    hold_seconds: int = 30  # how long a held job stays before it is removed
    integrity: bool = False
    transfer_options: str = "-m 1"  # one attempt: the pauses between attempts are minutes
    subflows: tuple[SubFlow, ...] = ()

    @property
    def site(self) -> str:
        """The site where files are staged."""
        return "condorpool" if self.data == "sharedfs" else "local"

    def producer(self, lfn: str) -> Task | None:
        return next((task for task in self.tasks if lfn in task.outputs), None)

    def consumers(self, lfn: str) -> list[Task]:
        return [task for task in self.tasks if lfn in task.inputs]

    def final(self, task: Task) -> list[str]:
        """Outputs of a task that nobody consumes: those are staged out."""
        return [lfn for lfn in task.outputs if not self.consumers(lfn)]


@dataclass(frozen=True)
class Folders:
    """Where one planned workflow has its things."""

    root: Path
    label: str
    run: Path  # the submit directory
    data: str

    @property
    def scratch(self) -> Path:
        place = self.root / ("pscratch/pool" if self.data == "sharedfs" else "scratch")
        return place / "sci/pegasus" / self.label / "run0001"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def jobs(self) -> Path:
        return self.run / "00/00"

    def staged(self, lfn: str) -> str:
        """The URL of a file on the staging site, in the planner's own spelling."""
        return f"file://{self.scratch}/00/00/{lfn}" if self.data == "nonsharedfs" else f"file://{self.scratch}/./{lfn}"
