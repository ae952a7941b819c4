"""The evidence pack: everything that the model is shown of one incident, chosen, numbered and bounded by us.

The same incident gives the same pack, byte for byte, so that answers can be kept by it. What changes
without the failure changing (how many jobs it has hit by now, how earlier incidents ended) is told at
the end and does not count for the pack's identity. Every line of log text is one line of the pack,
behind its number; nothing in it can end the pack or begin another part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from doctor.llm.budget import estimate
from doctor.llm.lines import shorten, visible, without_keys
from doctor.llm.redact import Redactor
from doctor.model import Culprit, Evidence, Kind, Line

MAX_LINES = 400  # evidence lines of one conversation, the model's own requests included


@dataclass(frozen=True, slots=True)
class Piece:
    """Lines of one kind from one file that may enter the pack. ``bytes`` bounds them."""

    title: str
    file: str
    kind: Kind
    lines: tuple[Line, ...]
    bytes: int = 1500
    tail: bool = True  # when there are too many, keep the last ones


@dataclass(slots=True)
class Pack:
    """The pack under construction and in use. ``lines`` and ``jobs`` are what an answer may name."""

    redactor: Redactor
    limit: int  # tokens
    lines: dict[str, Evidence] = field(default_factory=dict)  # E1 ... -> the original line
    jobs: dict[str, Culprit] = field(default_factory=dict)  # J1 ... -> a job
    rows: list[str] = field(default_factory=list)  # what is shown, redacted
    tail: list[str] = field(default_factory=list)  # what is shown after it, and is no part of its identity
    _seen: set[tuple[str, int | None, str]] = field(default_factory=set)
    _identity: list[str] = field(default_factory=list)
    _tokens: int = 0

    # -- filling --------------------------------------------------------------------------------------

    def safe(self, text: str, width: int = 320) -> str:
        """Any text of the run, fit to be shown: one visible line, redacted, cut."""
        return shorten(self.redactor.line(visible(text)), width)

    def job(self, culprit: Culprit, note: str) -> str:
        """Make a job known under a number; the number."""
        for number, known in self.jobs.items():
            if (known.job, known.workflow) == (culprit.job, culprit.workflow):
                return number
        number = f"J{len(self.jobs) + 1}"
        if self._row(f"{number}| {self.safe(culprit.job, 160)} ({self.safe(note, 300)})", f"{number} {culprit.job} {note}"):
            self.jobs[number] = culprit
        return number

    def fact(self, text: str) -> None:
        """One line that is shown and cannot be cited."""
        self._row(f"-| {self.safe(text)}", text)

    def heading(self, text: str) -> None:
        self._row(f"## {self.safe(text)}", text)

    def add(self, piece: Piece) -> int:
        """Number the lines of a piece, as many as fit; how many were added."""
        lines = [line for line in without_keys(piece.lines) if line.text.strip()]
        fresh = [line for line in lines if (piece.file, line.number, line.text.strip()) not in self._seen]
        shown = list(zip(fresh, self.redactor.lines(visible(line.text) for line in fresh), strict=True))
        kept, room = [], piece.bytes
        for line, text in reversed(shown) if piece.tail else iter(shown):
            room -= len(shorten(text).encode()) + 12
            if room < 0:
                break
            kept.append((line, text))
        if piece.tail:
            kept.reverse()
        if not kept:
            return 0
        count = 0
        self.heading(f"{piece.title} [{piece.file or 'no file'}]")
        if len(kept) < len(shown):
            self._row(f"-| ({len(shown) - len(kept)} further lines are not shown)", "")
        for line, text in kept:
            number = f"E{len(self.lines) + 1}"
            place = f" line {line.number}" if line.number else ""
            if len(self.lines) >= MAX_LINES or not self._row(
                f"{number}{place}| {shorten(text)}", f"{piece.file} {line.number} {line.text}"
            ):
                break
            self._seen.add((piece.file, line.number, line.text.strip()))
            self.lines[number] = Evidence(piece.file, line.number, line.text.strip(), piece.kind)
            count += 1
        return count

    def aside(self, text: str) -> None:
        """One line that is told after the pack."""
        self.tail.append(f"-| {self.safe(text)}")

    def extend(self, more: int) -> None:
        """Make room for what the model asked for."""
        self.limit = self._tokens + more

    def _row(self, shown: str, identity: str) -> bool:
        tokens = estimate(shown) + 1
        if self._tokens + tokens > self.limit:
            return False
        self._tokens += tokens
        self.rows.append(shown)
        self._identity.append(identity)
        return True

    # -- using ----------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """Names the pack: what the lines really said, with their places."""
        return hashlib.sha256("\x1f".join(self._identity).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def tokens(self) -> int:
        return estimate("\n".join((*self.rows, *self.tail)))

    def rows_from(self, start: int) -> str:
        """What was added since the pack had ``start`` rows."""
        return "\n".join(self.rows[start:])

    def cited(self, numbers: Iterable[str]) -> list[Evidence]:
        return [self.lines[number] for number in numbers]


def message_pack(lines: Sequence[Line], kind: Kind, redactor: Redactor, limit: int) -> Pack:
    """The pack of a message that somebody pasted; there is no run around it."""
    from doctor.llm.lines import choose

    pack = Pack(redactor, limit)
    pack.heading("A message, pasted by a person; nothing else is known")
    pack.add(Piece("the message", "message", kind, tuple(choose(lines, 20, 60, 10)), bytes=9000))
    return pack
