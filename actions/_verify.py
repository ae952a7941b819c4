"""What later log evidence says of a repair. An action's own exit code closes nothing."""

from __future__ import annotations

from doctor.repair import Check, Evidence, Plan, Verification


def verify(plan: Plan, evidence: Evidence) -> Check:
    """By the job's attempts since the repair: recovered, still open, or worse (it did not help).

    ``WORSE`` is final for this repair: the new attempt ended in a failure, the same or another one.
    """
    if not evidence.attempts:
        return Check(Verification.NOT_YET, f"no attempt of {plan.job or 'the job'} since the repair (the run is {evidence.run_state})")
    number, state, fingerprint = evidence.attempts[-1]
    if state == "succeeded":
        return Check(Verification.RECOVERED, f"attempt {number} of {plan.job} succeeded")
    if state not in ("failed", "held"):
        return Check(Verification.NOT_YET, f"attempt {number} of {plan.job} is {state}")
    if fingerprint == evidence.incident.id:
        return Check(
            Verification.WORSE, f"attempt {number} of {plan.job} is {state} for the same reason as before: the repair did not help"
        )
    return Check(Verification.WORSE, f"attempt {number} of {plan.job} is {state} for another reason than before")
