"""Choosing a bounded handful of lines from a long text: its head, its tail and what surrounds its complaints."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from doctor.diagnose.choose import is_loud
from doctor.diagnose.verdict import normalise
from doctor.model import Line
from doctor.run.files import clean

WIDTH = 320  # characters of one line that are shown
_LOOK = 800  # characters of a line that decide whether it is a complaint, and which
_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{3,60}-----")
_END = re.compile(r"-----END [A-Z0-9 ]{3,60}-----")
_BASE64 = re.compile(r"\s*[A-Za-z0-9+/=]+\s*")
_KEY = "[a key or certificate stood here]"


def visible(text: str) -> str:
    """One line without control, invisible and direction-changing characters, which can hide text from people."""
    text = clean(text.replace("\n", " ").replace("\r", " ").replace("\t", " "))
    if text.isascii():
        return text
    kinds = ((c, unicodedata.category(c)) for c in text)
    return "".join(" " if kind == "Zs" else c for c, kind in kinds if kind not in ("Cf", "Cc", "Co", "Cs", "Cn", "Zl", "Zp"))


def shorten(text: str, width: int = WIDTH) -> str:
    """A redacted text cut to ``width``, never in the middle of a placeholder."""
    if len(text) <= width:
        return text
    cut = text[:width]
    open_ = cut.rfind("<")
    if open_ > width - 24 and ">" not in cut[open_:]:
        cut = cut[:open_]
    return f"{cut}[...]"


def without_keys(lines: Sequence[Line]) -> list[Line]:
    """The lines with PEM blocks taken out, also those whose beginning or end was cut off."""
    kept = list(lines)
    inside = False
    for index, line in enumerate(lines):
        begins, ends = bool(_BEGIN.search(line.text)), bool(_END.search(line.text))
        if ends and not begins and not inside:  # the beginning is missing
            back = index - 1
            while back >= 0 and _BASE64.fullmatch(lines[back].text):
                kept[back] = Line(_KEY, lines[back].number)
                back -= 1
        if begins or ends or inside:
            kept[index] = Line(_KEY, line.number)
        inside = (inside or begins) and not ends
        if inside and not begins and not (_BASE64.fullmatch(line.text) or ":" in line.text[:40] or not line.text.strip()):
            inside = False  # the end is missing, and other text goes on
            kept[index] = line
    return kept


def choose(lines: Iterable[Line], head: int, tail: int, loud: int, around: int = 2) -> list[Line]:
    """Head, tail, and the last ``loud`` complaints with the lines around them; each message once, in order."""
    filled = [line for line in lines if line.text.strip()]
    wanted = set(range(min(head, len(filled)))) | set(range(max(0, len(filled) - tail), len(filled)))
    seen: set[str] = set()
    for index in range(len(filled) - 1, -1, -1):
        if len(seen) >= loud:
            break
        text = filled[index].text[:_LOOK]
        if is_loud(text) and (key := normalise(text)) not in seen:
            seen.add(key)
            wanted |= set(range(max(0, index - around), min(len(filled), index + around + 1)))
    chosen: list[Line] = []
    told: set[str] = set()
    for index in sorted(wanted):
        key = normalise(filled[index].text[:_LOOK])
        if key not in told:
            told.add(key)
            chosen.append(filled[index])
    return chosen
