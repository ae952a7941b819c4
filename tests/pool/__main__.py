"""`python -m tests.pool start|stop|status`: a pool for a person to try things on."""

from __future__ import annotations

import sys

from .packages import PoolUnavailable
from .pool import Pool


def main(arguments: list[str]) -> int:
    """Runs one command and returns the exit code."""
    command = arguments[0] if len(arguments) == 1 else ""
    if command not in ("start", "stop", "status"):
        print(__doc__, file=sys.stderr)
        return 2
    running = Pool.attach()
    if command == "start":
        pool = running or Pool().start()
        print(f"export CONDOR_CONFIG={pool.config}")
        print(f"export PATH={pool.installation.bin}:{pool.installation.sbin}:$PATH")
    elif running is None:
        print("no pool is running")
        return 0 if command == "stop" else 1
    elif command == "stop":
        running.stop()
    else:
        print(f"master {running.master_pid()}, configuration {running.config}")
        print(running.condor("condor_status", "-compact"))
        print(running.condor("condor_q", "-allusers", "-totals"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PoolUnavailable as reason:
        sys.exit(f"no pool: {reason}")
