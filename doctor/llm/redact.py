"""Placeholders for everything that must not leave the host, and the way back.

One :class:`Redactor` serves one request: the same secret always becomes the same placeholder, so that
the model still sees that two lines name the same host. The map never leaves the process. What it looks
for are the published shapes of tokens (each vendor's own prefix), the ways in which programs print
credentials, and the names that the run itself tells (user, hosts). When in doubt it redacts: a
placeholder too many costs a little clarity, a secret too few cannot be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from doctor.llm.shapes import PUBLIC, SHAPES

_PLACEHOLDER = re.compile(r"<([A-Z]{2,12})_(\d{1,6})>")
_BEGIN = re.compile(r"-----BEGIN ")
_END = re.compile(r"-----END ")
_BASE64_LINE = re.compile(r"^\s*[A-Za-z0-9+/=]+\s*$")


@dataclass(slots=True)
class Redactor:
    """Redacts texts one after the other; ``names`` are (kind, literal text) that the run tells: users, hosts, homes."""

    names: Sequence[tuple[str, str]] = ()
    _forth: dict[str, str] = field(default_factory=dict)  # secret -> placeholder
    _back: dict[str, str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _known: list[tuple[str, re.Pattern[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        usable = sorted(
            {(kind, text) for kind, text in self.names if len(text) >= 2 and text.lower() not in PUBLIC and not text.isdigit()},
            key=lambda one: (-len(one[1]), one),
        )
        self._known = [(kind, re.compile(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])")) for kind, text in usable]

    def line(self, text: str) -> str:
        """One line with placeholders. :meth:`restore` gives exactly ``text`` back."""
        text = _PLACEHOLDER.sub(lambda found: self._take("LITERAL", found[0], literal=True), text)
        for shape in SHAPES:
            text = self._apply(text, shape.name, shape.pattern, shape.group, shape.check)
        for kind, pattern in self._known:
            text = self._apply(text, kind, pattern, 0, None)
        return text

    def lines(self, texts: Iterable[str]) -> list[str]:
        """Several lines in a row: a key that stretches over lines is taken out whole."""
        result: list[str] = []
        inside = False
        for text in texts:
            begins, ends = _BEGIN.search(text), _END.search(text)
            if inside and not begins and (ends or _BASE64_LINE.match(text) or ":" in text[:40]):
                result.append(self._take("KEY", text) if text.strip() else text)
            else:
                result.append(self.line(text))
            inside = (inside and not ends) or bool(begins and not ends)
        return result

    def restore(self, text: str) -> str:
        """The text with every placeholder of this redactor turned back."""
        return _PLACEHOLDER.sub(lambda found: self._back.get(found[0], found[0]), text)

    def _take(self, kind: str, secret: str, *, literal: bool = False) -> str:
        whole = secret if literal else self.restore(secret)  # a secret may hold what an earlier shape took
        mark = self._forth.get(whole)
        if mark is None or literal != mark.startswith("<LITERAL_"):
            self._counts[kind] = self._counts.get(kind, 0) + 1
            mark = f"<{kind}_{self._counts[kind]}>"
            self._forth[whole] = mark
            self._back[mark] = whole
        return mark

    def _apply(self, text: str, kind: str, pattern: re.Pattern[str], group: int, check: Callable[[str], bool] | None) -> str:
        parts: list[str] = []
        place = 0
        taken = [found.span() for found in _PLACEHOLDER.finditer(text)]
        for found in pattern.finditer(text):
            secret = found[group]
            if not secret or _PLACEHOLDER.fullmatch(secret) or (check is not None and not check(secret)):
                continue
            begin, end = found.span(group)
            if begin < place or any(a < begin < b or a < end < b or (a <= begin and end <= b) for a, b in taken):
                continue
            parts += [text[place:begin], self._take(kind, secret)]
            place = end
        return "".join(parts) + text[place:] if parts else text
