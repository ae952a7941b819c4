"""What the service can do within its unit. Run by the unit itself inside the test machine; prints JSON to the file it is given."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from actions import _files
from doctor.repair import Edit


def edited(place: str) -> list[str]:
    """The owner, group and content of a file after the edit that every repair makes, and of one that it makes new."""
    file, fresh = Path(place, "job.sub"), Path(place, "new.sub")
    before = file.read_bytes()
    _files.write(Edit(str(file), before, before.replace(b"100", b"200")), (Path(place),))
    _files.write(Edit(str(fresh), None, b"queue\n"), (Path(place),))
    info = file.stat()
    return [
        file.owner(),
        file.group(),
        f"{info.st_mode & 0o777:o}",
        file.read_text().strip(),
        fresh.owner(),
        f"{fresh.stat().st_mode & 0o777:o}",
    ]


def executable_memory() -> bool:
    """What the planner's Java machine needs."""
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        return len(page) == 4096


def child() -> list[str]:
    """A shell script that a repair starts: what it writes is as readable as usual."""
    done = subprocess.run(
        ["/bin/sh", "-c", "umask; touch $HOME/of-a-child; stat -c %a $HOME/of-a-child; setpriv --no-new-privs id -un"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [*done.stdout.split(), done.stderr.strip()]


def refused(path: str) -> str:
    try:
        Path(path).write_text("x")
    except OSError as problem:
        return type(problem).__name__
    return "written"


def credential() -> str:
    return Path(os.environ["CREDENTIALS_DIRECTORY"], "notify").read_text().strip()


CHECKS: dict[str, Callable[[], Any]] = {
    "home": lambda: edited("/home/alice/flow"),
    "scratch": lambda: edited("/scratch/alice"),
    "tmp": lambda: edited("/tmp/alice"),
    "memory": executable_memory,
    "child": child,
    "addresses": lambda: sorted(psutil.net_if_addrs()),  # through netlink, as HTCondor asks
    "families": lambda: [socket.socket(family).close() for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)],
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "system": lambda: [refused("/usr/local/x"), refused("/etc/x"), refused("/boot/x")],
    "credential": credential,
    "priority": lambda: [os.nice(0), int(psutil.Process().ionice().ioclass)],
    "user": lambda: [psutil.Process().username(), os.environ["HOME"]],
}


def main(out: str) -> None:
    found: dict[str, Any] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = check()
        except Exception as problem:  # what is refused is a finding
            found[name] = f"{type(problem).__name__}: {problem}"
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
