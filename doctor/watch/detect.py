"""The live detections: small pure functions from pictures to detections, each with its healthy twin in the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from doctor.watch.match import Outlook
from doctor.watch.snapshots import HELD, IDLE, RUNNING, TRANSFERRING, Detection, Disk, QueueJob, RunPicture
from doctor.watch.words import duration, number, size

Classify = Callable[[str], str]  # the cause that a reason for a hold tells of, '' for none

STALLED_S = 1800.0
GONE_S = 60.0
TREND_S = 60.0
WAITING_S = 1800.0
MANY_EVICTIONS = 4
MANY_STARTS = 5
_ROLE_CAUSE = {
    "scratch": "disk/scratch-full",
    "output": "disk/output-storage-full",
    "submit": "disk/submit-disk-full",
    "spool": "disk/submit-disk-full",
}


def held(run: RunPicture, jobs: Sequence[QueueJob], seen: frozenset[str]) -> list[str]:
    """DAG nodes held in the queue of which no log has told yet: they have to be looked at before they are removed."""
    return [job.node for job in jobs if job.run == run.submit_dir and job.status == HELD and job.node and job.node not in seen]


def dagman_held(run: RunPicture, classify: Classify = lambda _: "") -> list[Detection]:
    """The DAGMan job itself is held: the whole workflow stands still and no log of the workflow says so."""
    if not run.dagman_held:
        return []
    return [
        Detection(
            "dagman-held", classify(run.dagman_held) or "infrastructure/dagman-failed", run.key, (),
            f"The DAGMan job of the workflow is held: {run.dagman_held}",
            f"Nothing of the workflow can go on: its DAGMan job is held ({run.dagman_held}).",
            (("queue", None, run.dagman_held),), run.dagman_held, 0.9,
        )
    ]  # fmt: skip


def gone(run: RunPicture, grace: float = GONE_S) -> list[Detection]:
    """DAGMan logged a start and no end, and has not been in the queue for a while.

    The log of the DAGMan job tells when somebody took it out of the queue; that workflow is not to be started again.
    """
    if run.ended or not run.started or run.in_queue is not False or run.absent_s < grace:
        return []
    since = f"The DAGMan job has not been in the queue for {duration(run.absent_s)}, and no log has moved since."
    if run.removed_by:
        return [
            Detection(
                "dagman-removed", "policy/workflow-removed", run.key, (), f"The DAGMan job was removed: {run.removed_by}", since,
                (("queue", None, run.removed_by),), run.removed_by, 0.9,
            )
        ]  # fmt: skip
    return [
        Detection(
            "dagman-gone", "infrastructure/dagman-failed", run.key, (), "DAGMan is not in the queue any more and logged no end", since,
            (("queue", None, "no DAGMan job of this workflow"),), "dagman gone", 0.7,
        )
    ]  # fmt: skip


def monitord_gone(run: RunPicture) -> list[Detection]:
    """DAGMan goes on and monitord does not write it down any more. When the run has ended, its end tells of it."""
    if run.ended or run.untold is None:
        return []
    return [
        Detection(
            "monitord-gone", "infrastructure/monitord-failed", run.key, (), "pegasus-monitord does not record any more what DAGMan does",
            "DAGMan has logged what monitord did not write to jobstate.log in time; the job states are read from dagman.out meanwhile.",
            (run.untold,), "monitord gone", 0.8, repairable=False,
        )
    ]  # fmt: skip


def missing_source(run: RunPicture, patience: float = 5.0) -> list[Detection]:
    """pegasus-transfer works on (and will retry for minutes) a file of this host that does not exist."""
    found = []
    for transfer in run.transfers:
        if not transfer.missing or transfer.running_s < patience:
            continue
        first = transfer.missing[0]
        found.append(
            Detection(
                "missing-source", "staging/input-missing", run.key, (transfer.job,),
                f"{transfer.job} is copying a file that does not exist: {first}",
                f"pegasus-transfer has been at it for {transfer.running_s:.0f} s and tries again for minutes before it gives up; "
                f"{len(transfer.missing)} of its sources {'are' if len(transfer.missing) > 1 else 'is'} not there.",
                tuple((transfer.file, None, url) for url in transfer.missing[:5]), f"missing source {first}", 0.9, subject=first,
            )
        )  # fmt: skip
    return found


def stalled(
    run: RunPicture,
    jobs: Sequence[QueueJob],
    now: float,
    after: float = STALLED_S,
    *,
    pool: Outlook | None = None,
    ran: float = 0.0,
    busy: float = 0.0,
) -> list[Detection]:
    """Nothing has moved for long, nothing runs, and DAGMan is there: say why.

    Held jobs and jobs that cannot match are incidents of their own and are named here only as the reason. Jobs
    that wait because others have the slots are in a queue, as jobs do, and not stalled: ``busy`` is when that was
    last so, and half of the patience is enough from then on. ``ran`` is when a job was last seen to run: the logs
    tell of its end some seconds later than the queue.
    """
    moved = max(run.moved, ran)
    if not run.started or run.ended or run.in_queue is not True or run.dagman_held or now - moved < after:
        return []
    if now - busy < after / 2 and not run.halted:
        return []
    mine = [job for job in jobs if job.run == run.submit_dir and not job.is_dagman]
    if any(job.status in (RUNNING, TRANSFERRING) for job in mine) or any(not one.going for one in run.waiting):
        return []  # a sub-workflow of which nothing is heard has a detection of its own
    idle = [job for job in mine if job.status == IDLE]
    on_hold = [job for job in mine if job.status == HELD]
    outlook = pool or Outlook("")
    why, confidence = _why_stalled(run, idle, on_hold, outlook)
    since = duration(now - moved)
    return [
        Detection(
            "stalled", "infrastructure/workflow-stalled", run.key, tuple((job.node or job.id) for job in (on_hold or idle)[:100]),
            f"The workflow has not moved for {since}: {why}",
            f"Nothing runs and nothing has moved for {since}: {why}. {run.done} of {run.total} jobs are done.",
            (("queue", None, f"{len(idle)} idle, 0 running, {len(on_hold)} held"),), "stalled", confidence,
        )
    ]  # fmt: skip


def _why_stalled(run: RunPicture, idle: list[QueueJob], on_hold: list[QueueJob], outlook: Outlook) -> tuple[str, float]:
    """The reason, and how sure it is."""
    waits = f"{number(len(idle), 'job')} wait{'s' if len(idle) == 1 else ''} in the queue"
    if run.halted:
        return "the workflow was halted (there is a .halt file) and nobody let it go on", 0.9
    if on_hold and not idle:
        which = "the only job in the queue is held" if len(on_hold) == 1 else f"all {len(on_hold)} jobs in the queue are held"
        return which, 0.8
    if idle and outlook.what == "refused":
        return f"{waits}, and the slots that fit do not take them ({outlook.text})", 0.8
    if idle and outlook.what == "room":
        return f"{waits} although {outlook.text}; see also the user's priority, quotas and limits", 0.6
    if idle:
        return f"{waits} and none of them starts", 0.6
    if run.running:
        return f"{number(run.running, 'job')} left the queue, and a PRE or POST script has not ended", 0.7
    if run.failed:
        return f"{number(run.failed, 'job')} failed and DAGMan neither submits nor ends", 0.6
    return "DAGMan is in the queue, but has submitted nothing", 0.6


def waiting_sub_workflows(run: RunPicture, now: float, after: float = WAITING_S) -> list[Detection]:
    """A sub-workflow that was submitted (or is being planned) and of whose inside nothing is heard."""
    found = []
    for one in run.waiting:
        quiet = now - max(one.since, one.moved, one.seen)
        if run.ended or quiet < after or one.going or (run.in_queue is None and one.moved):
            continue
        what = (
            "is still being planned"
            if not one.planned or one.state.startswith("PRE_SCRIPT_START")
            else "was submitted, but its DAGMan has logged nothing"
            if not one.moved
            else "stands still"
        )
        found.append(
            Detection(
                "sub-workflow-waits", "infrastructure/subworkflow-waiting", run.key, (one.node,), f"Sub-workflow {one.node} {what}",
                f"{one.node} {what} for {duration(quiet)}; what comes after it cannot start.",
                (("jobstate.log", None, f"{one.node} {one.state}"),), f"sub-workflow {one.node} {what}", 0.6,
            )
        )  # fmt: skip
    return found


def restless(run: RunPicture, jobs: Sequence[QueueJob], many: int = MANY_EVICTIONS, starts: int = MANY_STARTS) -> list[Detection]:
    """Jobs that are evicted or started again and again and never get to their end."""
    counts = {node: n for node, n in run.evictions.items() if n >= many}
    for job in jobs:
        if job.run == run.submit_dir and job.node and job.starts >= starts and job.status in (IDLE, RUNNING):
            counts.setdefault(job.node, job.starts - 1)
    if run.ended or not counts:
        return []
    worst = max(counts, key=lambda node: (counts[node], node))
    told = (run.last_words[worst],) if worst in run.last_words else ()
    return [
        Detection(
            "evicted-again", "infrastructure/evicted-repeatedly", run.key, tuple(sorted(counts)),
            f"{worst} was thrown off its slot {counts[worst]} times",
            f"{number(len(counts), 'job was', 'jobs were')} evicted or restarted {many} times or more without ever ending.",
            (*told, ("queue", None, f"{worst}: {counts[worst]} evictions or restarts")), "evicted again and again", 0.8,
        )
    ]  # fmt: skip


def systemic(run: RunPicture, now: float, jobs: int = 25, within: float = 900.0) -> list[tuple[str, int]]:
    """Incidents (by id) whose failure hit so many jobs in so short a time that the rest would burn too."""
    if run.ended:
        return []
    counts = {key: sum(now - when <= within for when in times) for key, times in run.fingerprints.items()}
    return sorted((key, count) for key, count in counts.items() if count >= jobs)


def bad_nodes(run: RunPicture, enough: int = 3) -> list[str]:
    """Hosts worth the full analysis: several failures, no success, while others succeed (see doctor.diagnose.hosts)."""
    elsewhere = sum(run.host_successes.values())
    return sorted(host for host, n in run.host_failures.items() if n >= enough and not run.host_successes.get(host) and elsewhere >= enough)


def eaten_by_nodes(run: RunPicture, enough: int = 3) -> list[Detection]:
    """A node whose jobs all had to be repeated on others: no job is lost by it, but it fails whatever lands on it.

    Where jobs fail for good, their incident names the node.
    """
    found = []
    for host, jobs in sorted(run.host_lost.items()):
        if run.ended or len(jobs) < enough or run.host_successes.get(host):
            continue
        told = f"{', '.join(jobs[:5])}: failed on {host}, succeeded elsewhere"
        found.append(
            Detection(
                "bad-node", "infrastructure/bad-node", run.key, jobs, f"One execute node fails every job that lands on it: {host}",
                f"{len(jobs)} jobs failed on {host} and succeeded when they were tried again on other nodes; nothing succeeded on {host}.",
                ((run.log or "queue", None, told),), f"bad node {host}", 0.8, host=host, subject=host, repairable=False,
            )
        )  # fmt: skip
    return found


def same_outputs(runs: Sequence[RunPicture]) -> list[Detection]:
    """Two runs that are under way and stage out to the very same files."""
    found = []
    active = [run for run in runs if run.started and not run.ended and run.outputs]
    owners: dict[str, list[int]] = {}
    for index, run in enumerate(active):
        for url in run.outputs:
            owners.setdefault(url, []).append(index)
    shared: dict[tuple[int, int], list[str]] = {}
    for url, indexes in owners.items():
        for pair in combinations(indexes, 2):
            if len(pairs := shared.setdefault(pair, [])) < 1000:
                pairs.append(url)
    for (one, two), urls in sorted(shared.items()):
        if active[one].root_uuid and active[one].root_uuid == active[two].root_uuid:
            continue
        first = min(urls)
        for mine, other in ((active[one], active[two]), (active[two], active[one])):
            found.append(
                Detection(
                    "same-outputs", "collision/output-overwritten", mine.key, (),
                    f"{other.label or other.submit_dir} writes the same output files as this run",
                    f"{len(urls)} output file{'s are' if len(urls) > 1 else ' is'} staged out to the same place by this run "
                    f"and by {other.submit_dir}: "
                    "whichever ends later overwrites the other's.",
                    tuple((other.submit_dir, None, url) for url in sorted(urls)[:5]), f"same outputs as {other.submit_dir}", 0.9,
                    subject=first,
                )
            )  # fmt: skip
    return found


def remaining_s(run: RunPicture, now: float) -> float | None:
    """How long the run will take by what it has done so far; None while that is a guess."""
    if run.done < 5 or now <= run.begun or run.total <= run.done:
        return None
    return (now - run.begun) / run.done * (run.total - run.done)


def disk_full(
    run: RunPicture, disks: Sequence[Disk], now: float, horizon: float = 3600.0, floor: float = 64 << 20, span: float = TREND_S
) -> list[Detection]:
    """A file system that will be full before the run ends (or within ``horizon`` where its end is not known).

    A trend counts when it is steady: nine of ten pairs of samples fall, over ``span`` seconds at least. What a
    run writes and clean-up jobs remove again is a saw-tooth without such a trend.
    """
    if not run.started or run.ended:
        return []
    left = remaining_s(run, now)
    reach = horizon if left is None else min(left, 7 * 86_400.0)
    found = []
    for disk in disks:
        kinds = (("bytes", disk.free, disk.slope, disk.falling), ("inodes", disk.inodes, disk.inode_slope, disk.inode_falling))
        for what, free, slope, falling in kinds:
            steady = slope < 0 and falling >= 0.9 and disk.span >= span
            seconds = free / -slope if steady else None
            full = what == "bytes" and free < min(floor, disk.total / 100)
            if not full and (seconds is None or seconds > reach or disk.looks == 1):
                continue
            found.append(_full(run, disk, what, free, None if full else seconds, left))
            break
    return found


def _full(run: RunPicture, disk: Disk, what: str, free: float, seconds: float | None, left: float | None) -> Detection:
    role = next((role for role in ("scratch", "output", "submit", "spool") if role in disk.roles), "submit")
    cause = "disk/quota-exceeded" if disk.quota else _ROLE_CAUSE[role]
    mine = _grows_by_this_run(disk)
    if role == "scratch" and not run.cleanup and mine:
        cause = "disk/cleanup-disabled"
    amount = size(free) if what == "bytes" else f"{free:.0f} inodes"
    when = "is full" if seconds is None else f"will be full in about {duration(seconds)}"
    grows = f"; {disk.growing[0][0]} grows by {size(disk.growing[0][1] * 60)} a minute" if disk.growing else ""
    foreign = "" if mine else " Most of what fills it is none of this run's folders."
    clean = "" if run.cleanup else " The workflow was planned without clean-up."
    end = f"the run needs about {duration(left)} more" if left is not None else "the run's end is not in sight"
    return Detection(
        "disk-full", cause, run.key, (), f"The {role} file system of {disk.path} {when}",
        f"{amount} left on the file system of {disk.path} ({', '.join(disk.roles)}), which {when}, and {end}{grows}.{foreign}{clean}",
        (("disk", None, f"{disk.path}: {amount} left, {_rate(disk.slope)}"),
         *((("disk", None, f"{folder}: {_rate(rate)}") for folder, rate in disk.growing[:3]))),
        f"disk {role} {disk.path}", 0.8 if seconds is not None else 0.9, subject=disk.growing[0][0] if disk.growing else disk.path,
    )  # fmt: skip


def _grows_by_this_run(disk: Disk) -> bool:
    """Whether the run's own folders make up half of what the file system loses, or that cannot be told."""
    return not disk.whole or disk.looks < 2 or disk.slope >= 0 or 2 * sum(rate for _, rate in disk.growing) >= -disk.slope


def _rate(slope: float) -> str:
    return f"{'+' if slope > 0 else ''}{size(slope * 60)} a minute"
