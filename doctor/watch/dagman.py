"""``dagman.out``, followed beside ``jobstate.log``: whether monitord tells what DAGMan does.

monitord writes jobstate.log from dagman.out, usually within a second. Where it died, or never started,
DAGMan goes on alone, and whoever reads only jobstate.log sees a run that stands still. So the ends that
DAGMan logs are kept until jobstate.log tells of them, too; see :class:`doctor.watch.parts.Part`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from doctor.model import JobState
from doctor.run.dagmanlog import RESTART
from doctor.run.jobstate import Lifecycle
from doctor.run.recover import DagmanHistory, Translator
from doctor.watch.live import LiveHistory
from doctor.watch.tail import CHUNK, Tail

LAG_S = 20.0  # so long monitord may be behind
LONG_S = 300.0  # and so long while its process lives
_START = 4 << 20  # of a dagman.out that is met late, so much of its end is read
_KEEP = 10_000
_WORD = re.compile(
    rb"(?P<script>PRE|POST) Script of (?:node|Node|Job|job) (?P<name>\S{1,512}) (?P<result>completed successfully|failed with )"
    rb"|Event: ULOG_SUBMIT for (?:HTCondor|Condor) (?:Node|Job) (?P<again>\S{1,512})"
    rb"|\(condor_DAGMAN\) pid \d{1,10} EXITING WITH STATUS (?P<exit>\d{1,4})"
    rb"|(?P<start>(?:condor|CONDOR)_DAGMAN\) STARTING UP)"
)
_EVENT = b"Event: ULOG_"


@dataclass(frozen=True, slots=True)
class Told:
    """Something that ended according to DAGMan: a job (its DAG node), or DAGMan itself (``name`` is empty)."""

    name: bytes
    state: JobState | None
    noticed: float
    line: int | None  # None where the log was not read from its start
    text: str


class DagmanTail:
    """The ends that dagman.out tells of and that jobstate.log may not know. Times are of the caller's clock."""

    def __init__(self, path: Path) -> None:
        self.tail = Tail(path)
        self.open: OrderedDict[bytes, Told] = OrderedDict()
        self.moved = 0.0  # modification time of the log when it last told of an event
        self._met = False
        self._numbered = True

    def unchanged(self) -> bool:
        return self.tail.unchanged()

    def read(self, now: float, limit: int = CHUNK) -> bool:
        """Read on; whether there is more to read at once."""
        if not self._met:
            if (ahead := self.tail.size_ahead()) > _START:
                self.tail.skip_to(ahead - _START)
                self._numbered = False
            self._met = bool(ahead)
        chunk = self.tail.read(limit)
        if not chunk.data:
            return chunk.more
        if chunk.restarted:
            self.open.clear()
            self._numbered = True
        if _EVENT in chunk.data:
            with contextlib.suppress(OSError):
                self.moved = os.stat(self.tail.path).st_mtime
        self._heed(chunk.data, chunk.first, now)
        return chunk.more

    def _heed(self, data: bytes, first: int, now: float) -> None:
        line, at = first, 0
        for found in _WORD.finditer(data):
            if found["again"] is not None:
                self.open.pop(found["again"], None)  # it is under way again; what came of it will follow
                continue
            if found["start"] is not None:
                self.open.clear()
                continue
            line, at = line + data.count(b"\n", at, found.start()), found.start()
            if found["exit"] == b"%d" % RESTART:
                continue
            if found["exit"] is not None:
                name, state = b"", None
            else:
                good = found["result"].startswith(b"completed")
                if found["script"] == b"PRE" and good:
                    continue
                name, state = found["name"], JobState.SUCCEEDED if good else JobState.FAILED
            begin, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
            text = data[begin:end][:500].decode("utf-8", "replace")
            self.open[name] = Told(name, state, now, line if self._numbered else None, text)
            self.open.move_to_end(name)
            if len(self.open) > _KEEP:
                self.open.popitem(last=False)

    def due(self, now: float) -> bool:
        """Whether it is time to ask :meth:`untold`."""
        first = next(iter(self.open.values()), None)
        return first is not None and now - first.noticed >= LAG_S

    def untold(self, latest: Mapping[bytes, JobState], internal: list[Lifecycle], wrote: float, now: float) -> Told | None:
        """The first end of which jobstate.log does not tell, ``LAG_S`` after it, if nothing at all was written there since.

        ``wrote`` is when the last lines of jobstate.log came. What it tells of is forgotten, and so is what it
        does not tell of while it is written: monitord is at work then, and knows better.
        """
        for name, told in list(self.open.items()):
            if now - told.noticed < LAG_S:
                break
            known = latest.get(name) is told.state if name else any(entry.what == "DAGMAN_FINISHED" for entry in internal[-3:])
            if not known and wrote <= told.noticed:
                return told
            del self.open[name]
        return None


class LiveDagmanHistory(LiveHistory, DagmanHistory):
    """A live history fed with the lines of dagman.out. The translation numbers the attempts as monitord does."""

    def __init__(self, path: Path, files: object) -> None:
        super().__init__(path, files)  # type: ignore[arg-type]
        self._translator = Translator()

    def _is_large(self) -> bool:
        return False

    def translate(self, line: bytes) -> bytes:
        """The jobstate line that a line of dagman.out amounts to; empty when none."""
        return self._translator.translate(line)
