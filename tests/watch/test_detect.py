"""Every live detection in a situation made for it, and silent in its healthy twin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doctor.diagnose.matcher import Matcher
from doctor.watch import detect
from doctor.watch.incidents import incident_of
from doctor.watch.match import Outlook, conjuncts, outlook, unmatchable, why
from doctor.watch.snapshots import HELD, IDLE, RUNNING, Disk, QueueJob, RunPicture, Slot, Transfer, Waiting

NOW = 1_000_000.0
RUN = RunPicture(
    key="k", submit_dir="/runs/a", label="a", root_uuid="u1", started=True, ended=False, moved=NOW - 5, done=50, total=100,
    begun=NOW - 3600, in_queue=True,
)  # fmt: skip
JOB = QueueJob(id="7.0", status=IDLE, node="step_1", run="/runs/a", workflow="/runs/a", since=NOW - 600)
SLOT = Slot("slot1@big", "big", {"cpus": 16, "memory_mb": 64_000, "disk_kb": 1e9, "gpus": 0}, {"Arch": "X86_64", "HasX": False})


def evaluate(requirement: str, job: object, slot: object) -> bool | None:
    assert isinstance(slot, dict)
    return eval(requirement.replace("TARGET.", "").replace("true", "True"), {}, slot) if "TARGET" in requirement else True


# -- held ---------------------------------------------------------------------------------------------


def test_held_is_seen_in_the_queue_before_any_log_tells() -> None:
    job = replace(JOB, status=HELD, hold_code=34)
    assert detect.held(RUN, [job], frozenset()) == ["step_1"]
    assert detect.held(RUN, [JOB], frozenset()) == []
    assert detect.held(RUN, [job], frozenset({"step_1"})) == []


def test_dagman_held_and_gone() -> None:
    assert detect.dagman_held(replace(RUN, dagman_held="via condor_hold (by user sci)"))
    assert not detect.dagman_held(RUN)
    absent = replace(RUN, in_queue=False, absent_s=300)
    assert detect.gone(absent)
    assert not detect.gone(replace(absent, in_queue=None)), "an unknown queue proves nothing"
    assert not detect.gone(replace(absent, absent_s=5)), "it may just be ending"
    assert not detect.gone(replace(absent, ended=True))


def test_a_dagman_that_was_held_or_removed_by_a_person_did_not_fail() -> None:
    (found,) = detect.dagman_held(replace(RUN, dagman_held="via condor_hold (by user sci)"), lambda _: "policy/held-by-user")
    assert found.cause == "policy/held-by-user"
    assert detect.dagman_held(replace(RUN, dagman_held="no space on spool"))[0].cause == "infrastructure/dagman-failed"
    (found,) = detect.gone(replace(RUN, in_queue=False, absent_s=300, removed_by="via condor_rm -forcex (by user sci)"))
    assert found.cause == "policy/workflow-removed" and "condor_rm" in found.summary


def test_monitord_gone() -> None:
    silent = replace(RUN, untold=("demo-0.dag.dagman.out", 12, "POST Script of node step_1 failed with status 1"))
    (found,) = detect.monitord_gone(silent)
    assert found.cause == "infrastructure/monitord-failed" and found.evidence == (silent.untold,)
    assert not detect.monitord_gone(RUN)
    assert not detect.monitord_gone(replace(silent, ended=True)), "told with the run's end"


# -- unmatchable --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "requirements", "what", "nearest"),
    [
        ({"memory_mb": 999_999}, "true", "999999 MB of memory (request_memory)", "slot1@big, has 64000"),
        ({"cpus": 64}, "true", "64 CPUs (request_cpus)", "has 16"),
        ({"gpus": 1}, "true", "1 GPUs (request_gpus)", "has 0"),
        ({"cpus": 1}, '(TARGET.Arch == "X86_64") && (TARGET.HasX == true)', "its requirement TARGET.HasX == true", "slot1@big"),
    ],
)
def test_no_slot_can_match(requests: dict[str, float], requirements: str, what: str, nearest: str) -> None:
    job = replace(JOB, requests=requests, requirements=requirements)
    found = unmatchable("/runs/a", [job], [SLOT], evaluate, NOW)
    assert len(found) == 1
    assert what in found[0].summary
    assert nearest in found[0].explanation


def test_the_nearest_slot_when_only_the_combination_fails() -> None:
    slots = [Slot("many", "m", {"cpus": 64, "memory_mb": 1000}, {}), Slot("large", "l", {"cpus": 1, "memory_mb": 64_000}, {})]
    answer = why(replace(JOB, requests={"cpus": 8, "memory_mb": 8000}), slots, evaluate)
    assert answer is not None and "together" in answer[0] and "nearest slot" in answer[1]


def test_a_busy_pool_a_fresh_job_and_an_empty_pool_are_no_reason() -> None:
    fits = replace(JOB, requests={"cpus": 16, "memory_mb": 64_000})
    large = replace(JOB, requests={"memory_mb": 999_999})
    assert unmatchable("/runs/a", [fits], [SLOT], evaluate, NOW) == []
    assert unmatchable("/runs/a", [replace(large, since=NOW - 5)], [SLOT], evaluate, NOW) == []
    assert unmatchable("/runs/a", [replace(large, starts=1)], [SLOT], evaluate, NOW) == []
    assert unmatchable("/runs/a", [replace(large, status=RUNNING)], [SLOT], evaluate, NOW) == []
    assert unmatchable("/runs/a", [large], [], evaluate, NOW) == []


@pytest.mark.parametrize(
    ("free", "takes", "what", "text"),
    [
        ({"cpus": 16, "memory_mb": 64_000}, True, "room", "slot1@big"),
        ({"cpus": 16, "memory_mb": 64_000}, None, "room", "START = TARGET.Vip"),
        ({"cpus": 0, "memory_mb": 10}, True, "busy", ""),
        (None, True, "busy", ""),
        ({"cpus": 16, "memory_mb": 64_000}, False, "refused", "START of slot1@big is TARGET.Vip"),
    ],
)
def test_what_the_pool_holds_for_a_job_that_waits(free: dict[str, float] | None, takes: bool | None, what: str, text: str) -> None:
    slot = replace(SLOT, free=free, start="TARGET.Vip")
    found = outlook([replace(JOB, requests={"cpus": 4, "memory_mb": 1000})], [slot], evaluate, lambda job, slot: takes)
    assert found.what == what and text in found.text


def test_an_outlook_needs_a_slot_that_fits_and_takes_the_best_of_all_jobs() -> None:
    large, small = replace(JOB, requests={"memory_mb": 999_999}), replace(JOB, id="8.0", requests={"cpus": 1})
    full, empty = replace(SLOT, free={"cpus": 0}), replace(SLOT, name="slot1@other", free={"cpus": 16})
    assert outlook([large], [full], evaluate, lambda job, slot: True).what == ""
    assert outlook([large, small], [full], evaluate, lambda job, slot: True).what == "busy"
    assert outlook([small], [full, empty], evaluate, lambda job, slot: True).text.startswith("slot1@other")
    assert outlook([small], [], evaluate, lambda job, slot: True).what == ""


def test_many_jobs_with_one_reason_are_one_detection() -> None:
    jobs = [replace(JOB, id=f"{n}.0", node=f"step_{n}", requests={"cpus": 99}) for n in range(50)]
    found = unmatchable("/runs/a", jobs, [SLOT], evaluate, NOW)
    assert len(found) == 1 and len(found[0].jobs) == 50


def test_conjuncts() -> None:
    assert conjuncts('(A == "x && y") && ((B || C) && D(1, 2))') == ['A == "x && y"', "B || C", "D(1, 2)"]
    assert conjuncts("A") == ["A"] and conjuncts("") == []


# -- transfers ----------------------------------------------------------------------------------------


def test_transfer_of_a_missing_source() -> None:
    gone = Transfer("stage_in_local_0", 30, ("file:///data/gone.txt",), "00/00/stage_in_local_0.in")
    found = detect.missing_source(replace(RUN, transfers=(gone,)))
    assert found[0].cause == "staging/input-missing" and "gone.txt" in found[0].summary
    assert not detect.missing_source(replace(RUN, transfers=(replace(gone, missing=()),)))
    assert not detect.missing_source(replace(RUN, transfers=(replace(gone, running_s=1),)))


# -- stalled ------------------------------------------------------------------------------------------


def test_stalled_says_why() -> None:
    quiet = replace(RUN, moved=NOW - 7200)
    assert "1 job waits" in detect.stalled(quiet, [JOB], NOW)[0].summary
    assert "the only job in the queue is held" in detect.stalled(quiet, [replace(JOB, status=HELD)], NOW)[0].summary
    assert "halt" in detect.stalled(replace(quiet, halted=True), [], NOW)[0].summary
    assert "submitted nothing" in detect.stalled(quiet, [], NOW)[0].summary


def test_a_busy_pool_is_no_stall_and_other_reasons_are_told() -> None:
    quiet = replace(RUN, moved=NOW - 7200)
    assert not detect.stalled(quiet, [JOB], NOW, pool=Outlook("busy"), busy=NOW)
    assert not detect.stalled(quiet, [JOB], NOW, pool=Outlook("room", "slot1@big fits"), busy=NOW - 600), "it was busy a moment ago"
    assert "slot1@big fits" in detect.stalled(quiet, [JOB], NOW, pool=Outlook("room", "slot1@big fits"), busy=NOW - 1000)[0].summary
    assert "START of x" in detect.stalled(quiet, [JOB], NOW, pool=Outlook("refused", "START of x"))[0].summary
    assert "halt" in detect.stalled(replace(quiet, halted=True), [JOB], NOW, pool=Outlook("busy"), busy=NOW)[0].summary
    assert "POST script" in detect.stalled(replace(quiet, running=1), [], NOW)[0].summary
    assert not detect.stalled(quiet, [], NOW, ran=NOW - 20), "its last job ended a moment ago; the logs will tell"


def test_a_sub_workflow_that_goes_does_not_hide_a_stall() -> None:
    quiet = replace(RUN, moved=NOW - 7200)
    going = Waiting("pegasus-plan_x", "EXECUTE", NOW - 9000, planned=True, moved=NOW - 7200, inside_active=True)
    assert detect.stalled(replace(quiet, waiting=(going,)), [JOB], NOW)
    assert not detect.stalled(replace(quiet, waiting=(replace(going, state="PRE_SCRIPT_STARTED"),)), [], NOW), "it is being planned"
    assert not detect.waiting_sub_workflows(replace(quiet, waiting=(going,)), NOW)
    assert not detect.waiting_sub_workflows(replace(quiet, in_queue=None, waiting=(replace(going, inside_active=False),)), NOW)


def test_a_long_job_a_short_pause_and_an_unknown_queue_are_no_stall() -> None:
    quiet = replace(RUN, moved=NOW - 7200)
    assert not detect.stalled(quiet, [replace(JOB, status=RUNNING)], NOW)
    assert not detect.stalled(RUN, [JOB], NOW)
    assert not detect.stalled(replace(quiet, in_queue=None), [JOB], NOW)
    assert not detect.stalled(replace(quiet, ended=True), [JOB], NOW)


def test_waiting_sub_workflows() -> None:
    old = Waiting("pegasus-plan_x", "PRE_SCRIPT_STARTED", NOW - 7200, planned=False)
    assert "being planned" in detect.waiting_sub_workflows(replace(RUN, waiting=(old,)), NOW)[0].summary
    silent = replace(old, planned=True, state="SUBMIT")
    assert "logged nothing" in detect.waiting_sub_workflows(replace(RUN, waiting=(silent,)), NOW)[0].summary
    busy = replace(silent, moved=NOW - 10)
    assert not detect.waiting_sub_workflows(replace(RUN, waiting=(busy,)), NOW)
    assert not detect.waiting_sub_workflows(replace(RUN, waiting=(replace(old, since=NOW - 60),)), NOW)


# -- restless, systemic, bad node -----------------------------------------------------------------------


def test_evicted_again_and_again() -> None:
    assert detect.restless(replace(RUN, evictions={"step_1": 5}), [])
    assert detect.restless(RUN, [replace(JOB, starts=6)])
    assert not detect.restless(replace(RUN, evictions={"step_1": 1}), [replace(JOB, starts=1)])


def test_systemic() -> None:
    burst = replace(RUN, fingerprints={"f": tuple(NOW - n for n in range(30))})
    assert detect.systemic(burst, NOW, 25, 900) == [("f", 30)]
    slow = replace(RUN, fingerprints={"f": tuple(NOW - 600 * n for n in range(30))})
    assert detect.systemic(slow, NOW, 25, 900) == []
    assert detect.systemic(replace(burst, ended=True), NOW, 25, 900) == []


def test_bad_node() -> None:
    bad = replace(RUN, host_failures={"n13": 4}, host_successes={"n1": 5})
    assert detect.bad_nodes(bad) == ["n13"]
    assert detect.bad_nodes(replace(bad, host_successes={"n1": 5, "n13": 1})) == []
    assert detect.bad_nodes(replace(bad, host_successes={})) == [], "everything fails everywhere: no node's fault"


def test_a_node_whose_jobs_were_all_repeated_elsewhere() -> None:
    eaten = replace(RUN, host_lost={"n13": ("a", "b", "c"), "n2": ("d",)}, host_successes={"n1": 9})
    (found,) = detect.eaten_by_nodes(eaten)
    assert found.host == "n13" and found.cause == "infrastructure/bad-node" and not found.repairable
    assert not detect.eaten_by_nodes(replace(eaten, host_successes={"n1": 9, "n13": 1}))
    assert not detect.eaten_by_nodes(replace(eaten, ended=True))


# -- two runs -------------------------------------------------------------------------------------------


def test_two_runs_that_write_the_same_outputs() -> None:
    one = replace(RUN, outputs=frozenset({"file:///out/a.txt", "file:///out/b.txt"}))
    two = replace(one, key="k2", submit_dir="/runs/b", root_uuid="u2", outputs=frozenset({"file:///out/b.txt"}))
    found = detect.same_outputs([one, two])
    assert {entry.run for entry in found} == {"k", "k2"} and "/runs/b" in found[0].explanation
    assert not detect.same_outputs([one, replace(two, outputs=frozenset({"file:///out/c.txt"}))])
    assert not detect.same_outputs([one, replace(two, ended=True)])
    assert not detect.same_outputs([one, replace(two, root_uuid="u1")]), "a run and its own sub-workflow"


# -- disks ----------------------------------------------------------------------------------------------

DISK = Disk("/scratch/a", ("scratch",), 10e9, 1e6, slope=-10e6, falling=1.0, span=300, growing=(("/scratch/a", 9e6),))


def test_a_disk_that_will_be_full_before_the_run_ends() -> None:
    found = detect.disk_full(RUN, [DISK], NOW)
    assert found[0].cause == "disk/scratch-full" and "17 min" in found[0].summary and "/scratch/a grows" in found[0].explanation
    without = detect.disk_full(replace(RUN, cleanup=False), [DISK], NOW)
    assert without[0].cause == "disk/cleanup-disabled" and "without clean-up" in without[0].explanation
    assert detect.disk_full(RUN, [replace(DISK, roles=("output",))], NOW)[0].cause == "disk/output-storage-full"
    assert detect.disk_full(RUN, [replace(DISK, quota=True)], NOW)[0].cause == "disk/quota-exceeded"
    inodes = replace(DISK, slope=0, falling=0, inodes=1e5, inode_slope=-1e3, inode_falling=1.0)
    assert "inodes left" in detect.disk_full(RUN, [inodes], NOW)[0].explanation


def test_what_fills_a_disk_is_not_always_this_run() -> None:
    without = replace(RUN, cleanup=False)
    foreign = replace(DISK, growing=(("/scratch/a", 1e6),))
    told = detect.disk_full(without, [foreign], NOW)[0]
    assert told.cause == "disk/scratch-full" and "none of this run's folders" in told.explanation
    assert detect.disk_full(without, [replace(foreign, whole=False)], NOW)[0].cause == "disk/cleanup-disabled", "that cannot be told"
    assert not detect.disk_full(without, [replace(DISK, looks=1, growing=())], NOW), "one more look tells which folder grows"
    assert not detect.disk_full(replace(RUN, done=99), [replace(DISK, free=8 << 20, total=64 << 20, slope=0, falling=0)], NOW), (
        "a small disk is not full yet"
    )


def test_a_disk_that_lasts_a_saw_tooth_and_a_short_look_are_no_forecast() -> None:
    nearly_done = replace(RUN, done=99)
    assert not detect.disk_full(nearly_done, [DISK], NOW), "the run ends before the disk is full"
    assert not detect.disk_full(RUN, [replace(DISK, falling=0.6)], NOW), "clean-up frees what was written"
    assert not detect.disk_full(RUN, [replace(DISK, span=20)], NOW)
    assert not detect.disk_full(RUN, [replace(DISK, slope=10e6)], NOW)
    assert not detect.disk_full(replace(RUN, ended=True), [DISK], NOW)


# -- as incidents ------------------------------------------------------------------------------------------


def test_every_detection_has_a_cause_of_the_closed_list(matcher: Matcher) -> None:
    everything = [
        *detect.dagman_held(replace(RUN, dagman_held="x")),
        *detect.gone(replace(RUN, in_queue=False, moved=0), NOW),
        *detect.missing_source(replace(RUN, transfers=(Transfer("s", 30, ("file:///x",)),))),
        *detect.stalled(replace(RUN, moved=0), [JOB], NOW),
        *detect.waiting_sub_workflows(replace(RUN, waiting=(Waiting("p", "SUBMIT", 1, True),)), NOW),
        *detect.restless(replace(RUN, evictions={"s": 9}), []),
        *detect.disk_full(RUN, [DISK, replace(DISK, roles=("output",)), replace(DISK, quota=True)], NOW),
        *unmatchable("/runs/a", [replace(JOB, requests={"cpus": 99})], [SLOT], evaluate, NOW),
    ]
    ids = set()
    for detection in everything:
        incident = incident_of(detection, matcher.library, "a", NOW)
        assert incident.diagnosis.advice and incident.diagnosis.evidence
        ids.add(incident.id)
    assert len(ids) == len(everything)


def test_the_same_situation_later_is_the_same_incident(matcher: Matcher) -> None:
    quiet = replace(RUN, moved=NOW - 7200)
    first = incident_of(detect.stalled(quiet, [JOB], NOW)[0], matcher.library, "a", NOW)
    later = incident_of(detect.stalled(quiet, [JOB], NOW + 600)[0], matcher.library, "a", NOW + 600)
    more = [JOB, replace(JOB, id="8.0")]
    assert first.id == later.id == incident_of(detect.stalled(quiet, more, NOW)[0], matcher.library, "a", NOW).id
