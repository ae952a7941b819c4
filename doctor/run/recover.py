"""The job history rebuilt from ``dagman.out`` where monitord died and jobstate.log is absent or short.

The same translation that pegasus-monitord makes (``Pegasus/cli/pegasus-monitord.py``): DAGMan's
events become jobstate lines, which the one reader of histories then reads.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from doctor.model import JobState
from doctor.run.files import Files
from doctor.run.jobstate import LATEST, History

_STAMP = re.compile(rb"^(\d\d)/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d) ")
_EVENT = re.compile(rb"Event: ULOG_(\w{1,40}) for (?:HTCondor|Condor) (?:Node|Job) (\S{1,512}) \(([\d-]{1,12})\.([\d-]{1,6})[\d.-]{0,12}\)")
_VERDICT = re.compile(rb"(?:Node|Job) (\S{1,512}) job proc \([\d.]+\) (completed successfully|failed with (?:status|signal) (-?\d{1,6}))")
_SCRIPT = re.compile(
    rb"(PRE|POST) Script of (?:node|Node|Job|job) (\S{1,512}) (completed successfully|failed with (?:status|signal) (-?\d{1,6}))"
)
_START = re.compile(rb"(?:c|C)ondor_DAGMAN\) STARTING UP|CONDOR_DAGMAN\) STARTING UP")
_EXIT = re.compile(rb"condor_DAGMAN\) pid \d+ EXITING WITH STATUS (\d{1,4})")


class DagmanHistory(History):
    """A :class:`History` whose lines are made from dagman.out (line numbers are those of dagman.out)."""

    def raw_lines(self, quiet: bool = False) -> Iterator[bytes]:
        translator = Translator()
        for line in super().raw_lines(quiet):
            yield translator.translate(line) or b"\n"

    def moved_beyond(self, log: History) -> bool:
        """Whether some job ended here that the other history shows as not ended."""
        ended = (JobState.SUCCEEDED, JobState.FAILED)
        return any(state in ended and log.latest.get(name) is not state for name, state in self.latest.items())


class Translator:
    """Numbers the submissions as monitord does: one number from the PRE script to the POST script."""

    def __init__(self) -> None:
        self.count = 0
        self.sequence: dict[bytes, int] = {}
        self.planned: set[bytes] = set()  # PRE script seen, not yet submitted

    def begin(self, name: bytes, by_script: bool) -> None:
        if name not in self.planned:
            self.count += 1
            self.sequence[name] = self.count
        (self.planned.add if by_script else self.planned.discard)(name)

    def translate(self, line: bytes) -> bytes:
        """The jobstate line that this line of dagman.out amounts to; empty when none."""
        stamp = _STAMP.match(line)
        if not stamp:
            return b""
        when = _epoch(stamp)
        if found := _EVENT.search(line):
            name, state, value = found[2], found[1], b"%s.%s" % (found[3], found[4])
            if state == b"SUBMIT":
                self.begin(name, by_script=False)
            if state not in LATEST:
                return b""
        elif found := _VERDICT.search(line):
            good = found[2].startswith(b"completed")
            name, state, value = found[1], b"JOB_SUCCESS" if good else b"JOB_FAILURE", b"0" if good else found[3]
        elif found := _SCRIPT.search(line):
            good = found[3].startswith(b"completed")
            name, state = found[2], found[1] + (b"_SCRIPT_SUCCESS" if good else b"_SCRIPT_FAILURE")
            value = b"0" if good else found[4]
            if found[1] == b"PRE":
                self.begin(name, by_script=True)
                if not good:
                    self.planned.discard(name)
        elif _START.search(line):
            return b"%d INTERNAL *** DAGMAN_STARTED - ***\n" % when
        elif found := _EXIT.search(line):
            return b"%d INTERNAL *** DAGMAN_FINISHED %s ***\n" % (when, found[1])
        else:
            return b""
        return b"%d %s %s %s - - %d\n" % (when, name, state, value, self.sequence.get(name, 0))


def _epoch(stamp: re.Match[bytes]) -> int:
    month, day, year, hour, minute, second = (int(part) for part in stamp.groups())
    try:
        return int(datetime.datetime(2000 + year, month, day, hour, minute, min(second, 59), tzinfo=datetime.timezone.utc).timestamp())
    except ValueError:
        return 0


def history_from_dagman(path: Path, files: Files) -> DagmanHistory:
    """The history as dagman.out tells it."""
    return DagmanHistory(path, files)
