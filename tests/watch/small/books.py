"""What the doctor's own books say of the workflows of the small programs, and of a process that was killed."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from pathlib import Path

from doctor.statedir import run_key
from doctor.store import Store
from tests.watch.small.mill import Mill


def found_in(state: Path) -> Counter[str]:
    """In which states a kill has found the incidents, and what it has cut off."""
    found: Counter[str] = Counter()
    try:
        database = sqlite3.connect(f"file:{state}/doctor.db?mode=ro", uri=True, timeout=10)
        for (stage,) in database.execute("select stage from incidents where stage not in ('recovered', 'escalated')"):
            found[stage] += 1
        for (what,) in database.execute("select what from journal where state = 'intended'"):
            found[f"cut off: {what.split()[0]}"] += 1
        for (what,) in database.execute("select state from rescues where state in ('intended', 'submitted')"):
            found[f"rescue {what}"] += 1
        database.close()
    except sqlite3.OperationalError:
        pass
    return found


def states(state: Path, mill: Mill) -> set[str]:
    store = Store(state, time.time)
    try:
        return {row.stage.value for row in store.incidents(run_key(str(mill.run)))}
    finally:
        store.close()


def check(store: Store, key: str, mill: Mill) -> None:
    """What the doctor's own books say."""
    rows = store.incidents(key)
    plans = [one for row in rows for one in store.plans(row.id)]
    applied = [one for one in plans if one.applied is not None]
    assert {one.state for one in plans} <= {"applied", "interrupted", "denied"}, [(one.state, one.reason) for one in plans]
    assert len(applied) == len({one.incident for one in applied}), "one repair for each incident"
    assert sum(len(one.plan.edits) for one in applied) == mill.kind.edited
    assert [row.attempts for row in rows] == [1] * len(rows), (mill.run.name, [row.attempts for row in rows])
    assert not [entry for one in plans for entry in store.entries(one.id, states=("intended",))], "nothing is left half done"
    assert len(store.rescues(key, state="started")) == mill.kind.rescues
