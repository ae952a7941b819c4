"""Where recorded paths live now: a run may have been copied from another host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from doctor.errors import DoctorError


@dataclass(frozen=True, slots=True)
class PathMap:
    """Translates paths as recorded by Pegasus to paths on this machine.

    ``pairs`` holds (recorded prefix, present place), the first that fits wins; the recorded submit
    directory itself comes first, then the user's ``--map OLD=NEW``, longest first.
    """

    pairs: tuple[tuple[str, Path], ...] = ()

    @classmethod
    def parse(cls, options: tuple[str, ...]) -> PathMap:
        """From ``OLD=NEW`` options. Raises :class:`DoctorError` when one has another form."""
        pairs = []
        for option in options:
            old, sign, new = option.partition("=")
            if not sign or not old.startswith("/") or not new:
                raise DoctorError(f"--map {option!r}: expected OLD=NEW with an absolute OLD, as in --map /data=/mnt/copy")
            if not Path(new).is_dir():
                raise DoctorError(f"--map {option!r}: {new} is not a directory")
            pairs.append((_normal(old), Path(new).resolve()))
        return cls(tuple(sorted(pairs, key=lambda pair: -len(pair[0]))))

    def under(self, recorded: str, present: Path) -> PathMap:
        """The same map, with a submit directory that is now at ``present``."""
        if not recorded.startswith("/"):
            return self
        return PathMap(((_normal(recorded), present), *self.pairs))

    def local(self, recorded: str) -> Path:
        """The present place of a recorded absolute path or ``file://`` URL (it need not exist)."""
        path = _normal(recorded)
        for prefix, present in self.pairs:
            if path == prefix:
                return present
            if path.startswith(prefix + "/"):
                return present / path[len(prefix) + 1 :]
        return Path(path)

    def recorded(self, present: Path) -> str:
        """The path as the workflow knows it: the reverse of :meth:`local`."""
        for prefix, place in self.pairs:
            if present == place or place in present.parents:
                return os.path.normpath(f"{prefix}/{present.relative_to(place)}")
        return str(present)

    @property
    def roots(self) -> tuple[Path, ...]:
        """All places that the user or the run itself named."""
        return tuple(present for _, present in self.pairs)


def _normal(path: str) -> str:
    if path.startswith("file://"):
        path = path[len("file://") :]
        path = path[path.find("/") :] if "/" in path else path
    return os.path.normpath(path) if path else path


def local_path(url: str) -> str | None:
    """The absolute path that a plain path or ``file://`` URL names, or None for other protocols."""
    if url.startswith("/") or url.startswith("file://"):
        return _normal(url)
    return None
