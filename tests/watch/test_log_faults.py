"""What may befall logs and run directories under a real daemon: each run has one fault, and all are watched by one process."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from doctor.statedir import run_key
from doctor.store import Store
from tests.watch.flows import Flow, start_daemon, until

#: Root may read everything, and so could not be refused anything.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
LINES = 30_000  # of a log that takes more than one turn


@dataclass(frozen=True)
class Fault:
    """``harm`` what befalls the run (and how it is written to meanwhile), ``mend`` what ends it.

    ``says`` must stand in `status` in between. ``found`` are the jobs that are diagnosed in the end.
    """

    harm: Callable[[Flow], None]
    mend: Callable[[Flow], None] = lambda flow: None
    says: str = ""
    found: frozenset[str] = field(default_factory=lambda: frozenset({"step_0", "step_1", "step_2"}))


def kept(flow: Flow) -> Path:
    return flow.folder.with_name(f"{flow.folder.name}.kept")


def aside(flow: Flow) -> Path:
    return flow.log.with_name("aside")


def _deleted_mid_read(flow: Flow) -> None:
    """A long log vanishes while it is read; a new one is begun at once, as by monitord after a clean-up by hand."""
    flow.write(*(f"{int(time.time())} step_9 SUBMIT 209.0 condorpool - {number}" for number in range(LINES)))
    time.sleep(0.05)
    flow.log.unlink()
    flow.job(1, True)


def _back(flow: Flow) -> None:
    if flow.log.is_dir():
        flow.log.rmdir()
    else:
        flow.log.unlink()
    aside(flow).rename(flow.log)


def _directory(flow: Flow) -> None:
    flow.log.rename(aside(flow))
    flow.log.mkdir()


def _fifo(flow: Flow) -> None:
    flow.log.rename(aside(flow))
    os.mkfifo(flow.log)


def _dangling(flow: Flow) -> None:
    flow.log.rename(aside(flow))
    flow.log.symlink_to(flow.folder / "nowhere")


def _nowhere_is_there(flow: Flow) -> None:
    aside(flow).rename(flow.folder / "nowhere")


def _denied(flow: Flow) -> None:
    flow.job(1, True)
    flow.log.chmod(0)


def _allowed(flow: Flow) -> None:
    flow.log.chmod(0o644)


def _zeros(flow: Flow) -> None:
    """A file that a crash left at its full length without its content; then it is written on."""
    flow.log.write_bytes(bytes(3 << 20))
    flow.job(1, True)


def _hole(flow: Flow) -> None:
    """Pages of a network file system's client that never reached the server: the next line follows zeros without a line end."""
    with flow.log.open("ab") as stream:
        stream.write(bytes(200_000))
    flow.job(1, True)


def _vanished(flow: Flow) -> None:
    flow.folder.rename(kept(flow))


def _vanished_and_written(flow: Flow) -> None:
    """Somebody moves the folder while the workflow goes on elsewhere; the same folder comes back."""
    kept(flow).rename(flow.folder)
    flow.job(1, True)


def _deleted(flow: Flow) -> None:
    shutil.copytree(flow.folder, kept(flow))
    shutil.rmtree(flow.folder)


FAULTS = {
    "deleted mid-read": Fault(_deleted_mid_read),
    "a directory in its place": Fault(_directory, _back, "not a regular file", frozenset({"step_0", "step_2"})),
    "a FIFO in its place": Fault(_fifo, _back, "not a regular file", frozenset({"step_0", "step_2"})),
    "a dangling link in its place": Fault(_dangling, _nowhere_is_there, "", frozenset({"step_0", "step_2"})),
    "permission denied": Fault(_denied, _allowed, "Permission denied"),
    "zeros": Fault(_zeros),
    "a hole": Fault(_hole),
    "the run directory moved away and back": Fault(_vanished, _vanished_and_written),
    "the run directory deleted and restored": Fault(_deleted, _vanished_and_written),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "found in a folder"])
def test_faults_of_logs_and_folders(tmp_path: Path, named: bool) -> None:
    if UNPRIVILEGED and shutil.which(UNPRIVILEGED[0]) is None:
        pytest.skip("setpriv is not here, and root is refused nothing")
    place = tmp_path / "runs"
    flows = {name: Flow(place / f"run{number}", 10) for number, name in enumerate([*FAULTS, "undisturbed"])}
    state = tmp_path / "state"
    for flow in flows.values():
        flow.job(0, True)
    only = [flow.folder for flow in flows.values()]
    daemon = start_daemon(state, tmp_path, only if named else [], prefix=UNPRIVILEGED, folders="" if named else str(place))
    store: Store | None = None

    def seen(name: str) -> frozenset[str]:
        assert store is not None
        return frozenset(store.seen(run_key(str(flows[name].folder))))

    def said(name: str) -> str:
        assert store is not None
        return next((row["body"] for row in store.watched() if row["submit_dir"] == str(flows[name].folder)), "")

    def log() -> str:
        return (tmp_path / "daemon.log").read_text()[-3000:]

    try:
        assert until(lambda: (state / "doctor.db").exists())
        store = Store(state, time.time)
        assert until(lambda: all(seen(name) == {"step_0"} for name in flows), 30), ({name: seen(name) for name in flows}, log())
        for name, fault in FAULTS.items():
            fault.harm(flows[name])
        flows["undisturbed"].job(1, True)
        assert until(lambda: seen("undisturbed") == {"step_0", "step_1"}, 10), log()
        for name, fault in FAULTS.items():
            assert until(lambda name=name, fault=fault: fault.says in said(name), 20), (name, said(name))  # type: ignore[misc]
        time.sleep(2)  # as long as several sweeps
        for name, fault in FAULTS.items():
            fault.mend(flows[name])
            flows[name].job(2, True)
        for name, fault in FAULTS.items():
            ok = until(lambda name=name, fault=fault: seen(name) == fault.found, 30)  # type: ignore[misc]
            assert ok, (name, sorted(seen(name)), said(name), log())
        for name in FAULTS:
            assert until(lambda name=name: "ermission" not in said(name) and "regular" not in said(name), 20), (name, said(name))  # type: ignore[misc]
        assert "Traceback" not in (tmp_path / "daemon.log").read_text(), log()
    finally:
        if store is not None:
            store.close()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
