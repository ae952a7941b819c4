"""Free space, inodes and quota of the file systems that a run lives on, as trends."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from doctor.errors import DoctorError
from doctor.process import run as run_process
from doctor.run.reader import Run
from doctor.run.transfers import read_transfers
from doctor.watch.snapshots import Disk
from doctor.watch.trend import Series

_ENTRIES = 20_000  # directory entries that one measurement of folders looks at
_QUOTA_EVERY_S = 300.0
_BLOCK = 1024
_CREATE_DIRS = 20  # of one DAG: one for each site


@dataclass(frozen=True, slots=True)
class Free:
    """What a file system has left for an ordinary user, and where the number comes from."""

    device: int
    space: float
    inodes: float
    quota: bool = False
    total: float = float("inf")  # bytes of the whole file system


Measure = Callable[[str], "Free | None"]


def measure(path: str) -> Free | None:
    """Free bytes and inodes; None where the path does not exist (yet) or does not answer."""
    try:
        facts = os.statvfs(path)
        device = os.stat(path).st_dev
    except OSError:
        return None
    inodes = float(facts.f_favail) if facts.f_files else float("inf")
    return Free(device, float(facts.f_bavail * facts.f_frsize), inodes, total=float(facts.f_blocks * facts.f_frsize))


def quota_left(text: str) -> dict[str, tuple[float, float]]:
    """Device -> (bytes, inodes) left, from the text of ``quota -w -p``; unlimited entries are left out."""
    found: dict[str, tuple[float, float]] = {}
    for line in text.splitlines():
        words = line.split()
        numbers = [int(word.rstrip("*")) if re.fullmatch(r"\d{1,18}\*?", word) else None for word in words[1:]]
        if len(numbers) < 8 or any(number is None for number in numbers[:3]):
            continue
        used, soft, hard = (number or 0 for number in numbers[:3])
        files, files_soft, files_hard = (number or 0 for number in numbers[4:7])
        limit, files_limit = hard or soft, files_hard or files_soft
        left = max(0.0, float(limit - used)) * _BLOCK if limit else float("inf")
        files_left = max(0.0, float(files_limit - files)) if files_limit else float("inf")
        if limit or files_limit:
            found[words[0]] = (left, files_left)
    return found


def read_quota() -> dict[str, tuple[float, float]]:
    """What ``quota`` tells of this user, where the program is there."""
    program = shutil.which("quota")
    if program is None:
        return {}
    try:
        return quota_left(run_process([program, "-w", "-p"], timeout=5).stdout)
    except DoctorError:
        return {}


def device_of(path: str, mounts: str) -> str:
    """The device or export that a path is mounted from."""
    best, found = -1, ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) > 2 and len(words[1]) >= best and (path == words[1] or path.startswith(words[1].rstrip("/") + "/")):
            best, found = len(words[1]), words[0]
    return found


def places(run: Run, spool: str) -> dict[str, list[str]]:
    """Folders of a run by role: submit, scratch, output, spool. Only those of this host that exist.

    ``own`` are the run's own folders on scratch, which it shares with other runs.
    """
    roles: dict[str, list[str]] = {"submit": [str(run.directory)]}
    for part in run.tree():
        creators = [name for name in part.dag.all_names() if name.startswith("create_dir")]
        for directives in (job.beside(".in") for job in part.jobs(creators[:_CREATE_DIRS])):
            entries = read_transfers(directives, part.files) if directives is not None else []
            made = (local_path(url) for entry in entries for url in entry.destinations)
            own = roles.setdefault("own", [])
            own += [place for place in dict.fromkeys(made) if place and os.path.isdir(place) and place not in own]
        for _site, kind, path in part.storage:
            role = "scratch" if "scratch" in kind.lower() else "output" if "storage" in kind.lower() else ""
            local = str(part.paths.local(urlsplit(path).path if path.startswith("file:") else path))
            if role and local.startswith("/") and os.path.isdir(local) and local not in roles.setdefault(role, []):
                roles[role].append(local)
    if spool and os.path.isdir(spool):
        roles["spool"] = [spool]
    return roles


def has_cleanup(run: Run) -> bool:
    """Whether the workflow was planned with clean-up jobs."""
    names = run.dag.all_names()
    if any(name.startswith(("clean_up", "cleanup_")) for name in names):
        return True
    if re.search(r"--cleanup[ =]none", run.identity.planner_arguments):
        return False
    if run.identity.properties:
        data = run.files.bytes(run.directory / run.identity.properties, 1 << 20, quiet=True) or b""
        if re.search(rb"(?m)^\s*pegasus\.file\.cleanup\.strategy\s*[=:]\s*none", data, re.IGNORECASE):
            return False
    return bool(run.dag.sub_workflows) or len(names) < 4 or not names


def local_path(url: str) -> str:
    """The path of a ``file:`` URL or a plain path on this host; '' for anything else."""
    if url.startswith("/"):
        return url
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else ""


def folder_size(path: str, budget: list[int]) -> float:
    """Bytes below a folder; ``budget[0]`` entries are looked at, at most."""
    total, stack = 0.0, [path]
    while stack and budget[0] > 0:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    budget[0] -= 1
                    if budget[0] <= 0:
                        break
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
                        else:
                            total += entry.stat(follow_symlinks=False).st_blocks * 512
                    except OSError:
                        continue
        except OSError:
            continue
    return total


@dataclass(slots=True)
class _Place:
    path: str
    roles: set[str] = field(default_factory=set)
    space: Series = field(default_factory=Series)
    inodes: Series = field(default_factory=Series)
    quota: bool = False
    last: Free | None = None


class DiskWatch:
    """Measures the file systems of all runs, each once however many runs lie on it."""

    def __init__(
        self,
        measure_: Measure = measure,
        quotas: Callable[[], dict[str, tuple[float, float]]] = read_quota,
        mounts: Callable[[], str] = str,
    ) -> None:
        self._measure = measure_
        self._quotas = quotas
        self._mounts = mounts
        self._places: dict[int, _Place] = {}
        self._of_run: dict[str, dict[str, list[str]]] = {}
        self._sizes: dict[str, Series] = {}
        self._quota: dict[str, tuple[float, float]] = {}
        self._quota_at = float("-inf")

    def follow(self, run: str, roles: dict[str, list[str]]) -> None:
        self._of_run[run] = roles

    def forget(self, run: str) -> None:
        self._of_run.pop(run, None)

    def sample(self, now: float) -> None:
        """Measure everything once."""
        if now - self._quota_at >= _QUOTA_EVERY_S or now < self._quota_at:
            self._quota, self._quota_at = self._quotas(), now
        mounts = self._mounts() if self._quota else ""
        done: set[int] = set()
        used: set[int] = set()
        for roles in list(self._of_run.values()):
            for role, paths in roles.items():
                for path in paths:
                    free = self._measure(path)
                    if free is None:
                        continue
                    used.add(free.device)
                    place = self._places.setdefault(free.device, _Place(path))
                    place.roles.add(role)
                    if free.device in done:
                        continue
                    done.add(free.device)
                    self._add(place, self._with_quota(free, path, mounts), now)
        for device in set(self._places) - used:
            del self._places[device]

    def _with_quota(self, free: Free, path: str, mounts: str) -> Free:
        left = self._quota.get(device_of(os.path.realpath(path), mounts)) if self._quota else None
        if left is None or (left[0] >= free.space and left[1] >= free.inodes):
            return free
        return replace(free, space=min(free.space, left[0]), inodes=min(free.inodes, left[1]), quota=True)

    @staticmethod
    def _add(place: _Place, free: Free, now: float) -> None:
        place.last, place.quota = free, free.quota
        place.space.add(now, free.space)
        if free.inodes != float("inf"):
            place.inodes.add(now, free.inodes)

    def of(self, run: str, now: float) -> list[Disk]:
        """The run's file systems. Folders are measured only on one that is filling up."""
        roles = self._of_run.get(run, {})
        by_device: dict[int, tuple[_Place, list[str], list[str]]] = {}
        for role, paths in sorted(roles.items(), key=lambda one: one[0] != "own"):
            for path in paths:
                free = self._measure(path)
                if free is not None and free.device in self._places:
                    _, names, folders = by_device.setdefault(free.device, (self._places[free.device], [], []))
                    names.append("scratch" if role == "own" else role)
                    if role != "spool" and not (role == "scratch" and "own" in roles):
                        folders.append(path)
        return [self._disk(place, names, folders, now) for place, names, folders in by_device.values()]

    def _disk(self, place: _Place, roles: list[str], folders: list[str], now: float) -> Disk:
        trend, inode_trend = place.space.trend(), place.inodes.trend()
        grown = _Growth()
        if place.space.falls():
            grown = self._growth(folders, now)
        last = place.last or Free(0, 0.0, float("inf"))
        order = [role for role in ("scratch", "output", "submit", "spool") if role in roles]
        return Disk(
            folders[0] if folders else place.path, tuple(order), last.space, last.inodes,
            trend.slope if trend else 0.0, trend.falling if trend else 0.0, trend.span if trend else 0.0,
            inode_trend.slope if inode_trend else 0.0, inode_trend.falling if inode_trend else 0.0, grown.rates, place.quota,
            grown.looks, last.total, grown.whole,
        )  # fmt: skip

    def _growth(self, folders: list[str], now: float) -> _Growth:
        budget = [_ENTRIES]
        rates = []
        looks, whole = 2, True
        for folder in dict.fromkeys(folders):
            series = self._sizes.setdefault(folder, Series(keep=20))
            size = folder_size(folder, budget)
            if budget[0] <= 0:
                whole = False
                break
            series.add(now, size)
            points = list(series.points)
            looks = min(looks, len(points))
            if len(points) > 1 and points[-1][0] > points[0][0]:
                rate = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
                if rate > 0:
                    rates.append((folder, rate))
        if len(self._sizes) > 1000:
            self._sizes.clear()
        return _Growth(tuple(sorted(rates, key=lambda one: -one[1])), looks, whole)


@dataclass(frozen=True, slots=True)
class _Growth:
    """Folders by growth in bytes per second; from how many looks, and whether all folders could be measured."""

    rates: tuple[tuple[str, float], ...] = ()
    looks: int = 2
    whole: bool = True
