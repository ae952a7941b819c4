"""The one place where the loop meets the action layer, HTCondor and this machine."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from doctor import process
from doctor.diagnose.matcher import Matcher
from doctor.errors import DoctorError
from doctor.loop.policy import Policy
from doctor.loop.seams import Event, Host, Seams
from doctor.repair import Finished, Queue, RunView
from doctor.run.paths import PathMap
from doctor.run.reader import Run
from doctor.store import Store


@dataclass(frozen=True, slots=True)
class HostProcesses:
    """Runs the host's own commands (implements :class:`doctor.repair.Processes`)."""

    def run(self, argv: tuple[str, ...], timeout: float, cwd: str | None = None) -> Finished:
        return process.run(argv, timeout=timeout, cwd=cwd)


def this_host() -> Host:
    """The machine that the doctor runs on."""
    return Host(shutil.which, _command_line, socket.getfqdn())


def _command_line(pid: int) -> str | None:
    import psutil

    try:
        found = psutil.Process(pid)
        if found.status() == psutil.STATUS_ZOMBIE:
            return None
        return " ".join(found.cmdline()) or found.name()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return ""


def view_of(run: Run, queue: Queue | None) -> RunView:
    """The actions' view of a run; without the queue's facts where the queue does not answer."""
    from doctor.loop.views import build

    try:
        return build(run, queue)
    except DoctorError:
        return build(run, None)


def assemble(
    store: Store,
    policy: Policy,
    matcher: Matcher,
    *,
    yes: bool = False,
    maps: PathMap | None = None,
    tell: Callable[[Event], None] = lambda event: None,
    queue: Queue | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    patient: Callable[[], bool] = lambda: False,
) -> Seams:
    """The loop's seams on this machine."""
    import actions
    from doctor.llm.wiring import opinion_node
    from doctor.queue import ScheddQueue, largest_slot

    processes = HostProcesses()
    return Seams(
        store=store,
        policy=policy,
        actions={action.name: action for action in actions.ACTIONS},
        matcher=matcher,
        queue=queue or ScheddQueue(processes),
        processes=processes,
        host=this_host(),
        view=view_of,
        diff=actions.diff,
        clock=clock,
        sleep=sleep,
        tell=tell,
        slots=largest_slot,
        maps=maps or PathMap(),
        yes=yes,
        patient=patient,
        opinion=opinion_node(store, matcher),
    )
