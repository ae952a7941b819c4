"""Where jobs ran and failed, from HTCondor's event log as it is written."""

from __future__ import annotations

from doctor.watch.live import LiveEvents

FULL = "Transfer input files failure at execution point slot1_1@full.org while receiving files. Details: (errno 28) No space left on device"


def submit(job: int, node: str) -> str:
    return f"000 ({job}.000.000) 2026-11-21 08:00:00 Job submitted from host: <127.0.0.1:1>\n    DAG Node: {node}\n    pool:x\n...\n"


def start(job: int, slot: str) -> str:
    return f"001 ({job}.000.000) 2026-11-21 08:00:01 Job executing on host: <127.0.0.1:2>\n\tSlotName: {slot}\n\tCpus = 1\n...\n"


def end(job: int, value: int) -> str:
    return f"005 ({job}.000.000) 2026-11-21 08:00:02 Job terminated.\n\t(1) Normal termination (return value {value})\n...\n"


def hold(job: int, reason: str, code: int) -> str:
    return f"012 ({job}.000.000) 2026-11-21 08:00:02 Job was held.\n\t{reason}\n\tCode {code} Subcode 0\n...\n"


def fed(*texts: str) -> LiveEvents:
    events = LiveEvents()
    for text in texts:
        events.feed(text.encode(), 1)
    return events


def test_failures_and_successes_by_host() -> None:
    events = fed(submit(1, "a"), start(1, "slot1_1@glidein_1_2@n1.org"), end(1, 3), submit(2, "b"), start(2, "slot1_1@n2.org"), end(2, 0))
    assert events.failed == {"a": "n1.org"} and events.good == {"n2.org": 1} and list(events.fine) == [("b", "n2.org")]


def test_a_job_that_never_started_is_known_by_the_reason_of_its_hold() -> None:
    assert fed(submit(1, "a"), hold(1, FULL, 13)).failed == {"a": "full.org"}


def test_what_failed_on_one_host_and_succeeded_on_another() -> None:
    again = (submit(2, "a"), start(2, "slot1_1@n2.org"), end(2, 0))
    assert fed(submit(1, "a"), start(1, "slot1_1@n1.org"), end(1, 3), *again).lost == {"n1.org": {"a": None}}
    assert fed(submit(1, "a"), hold(1, FULL, 13), *again).lost == {"full.org": {"a": None}}
    assert fed(submit(1, "a"), start(1, "slot1_1@n2.org"), end(1, 3), *again).lost == {}, "the same host"
    memory = hold(1, "Error from slot1_1@n1.org: memory usage exceeded request_memory", 34)
    assert fed(submit(1, "a"), start(1, "slot1_1@n1.org"), memory, *again).lost == {}, "that was the job's own fault"
