"""The states of an incident and the moves between them. Only :meth:`doctor.store.Store.move` makes a move."""

from __future__ import annotations

from enum import Enum


class Stage(str, Enum):
    """Where an incident is in the loop. Everything ends: recovered or escalated."""

    OPEN = "open"
    DIAGNOSED = "diagnosed"
    PLANNED = "planned"
    WAITING = "waiting"
    ACTING = "acting"
    RESCUING = "rescuing"
    VERIFYING = "verifying"
    RECOVERED = "recovered"
    ESCALATED = "escalated"


ENDED = frozenset({Stage.RECOVERED, Stage.ESCALATED})

#: From ``acting`` no move leads back to a second attempt: what was interrupted is looked at first.
MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.OPEN: frozenset({Stage.DIAGNOSED, Stage.RECOVERED, Stage.ESCALATED}),
    Stage.DIAGNOSED: frozenset({Stage.PLANNED, Stage.RECOVERED, Stage.ESCALATED}),
    Stage.PLANNED: frozenset({Stage.WAITING, Stage.ACTING, Stage.DIAGNOSED, Stage.RECOVERED, Stage.ESCALATED}),
    Stage.WAITING: frozenset({Stage.PLANNED, Stage.DIAGNOSED, Stage.RECOVERED, Stage.ESCALATED}),
    Stage.ACTING: frozenset({Stage.RESCUING, Stage.VERIFYING, Stage.ESCALATED}),
    Stage.RESCUING: frozenset({Stage.VERIFYING, Stage.ESCALATED}),
    Stage.VERIFYING: frozenset({Stage.RECOVERED, Stage.DIAGNOSED, Stage.RESCUING, Stage.ESCALATED}),
    Stage.RECOVERED: frozenset({Stage.OPEN}),  # the same failure again, later
    Stage.ESCALATED: frozenset({Stage.OPEN}),  # a person calls the doctor again
}
