"""Quantities as people say them."""

from __future__ import annotations


def duration(seconds: float, least: int = 2) -> str:
    """``45 s``, ``12 min``, ``5 h``, ``3 d``: the largest unit of which there are so many at least."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= least * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(amount: float) -> str:
    """``300 kB``, ``12 MB``, ``3.4 GB``: in powers of 1024, as file systems count."""
    for unit, factor in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20)):
        if abs(amount) >= factor:
            return f"{amount / factor:.1f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{amount / 1024:.0f} kB"


def number(count: int, one: str, many: str = "") -> str:
    """``1 job``, ``2 jobs``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
