"""The model's part in the reports: what it said of an incident, and what that cost."""

from __future__ import annotations

from typing import Any

from doctor.model import Opinion, Report


def opinion_text(opinion: Opinion) -> str:
    """One line for people."""
    words = {"answered": "decided", "abstained": "abstained", "none": "no opinion"}[opinion.outcome]
    if opinion.kept:
        price = "kept answer, no call"
    elif opinion.calls:
        calls = f"{opinion.calls} call{'s' if opinion.calls > 1 else ''}"
        price = f"{calls}, {opinion.sent + opinion.received:,} tokens, ${opinion.dollars:.4f}"
    else:
        price = "no call"
    tail = "; what it says never acts without a person" if opinion.outcome == "answered" else ""
    return f"{opinion.model} {words}: {opinion.reason} ({price}){tail}"


def opinion_of(report: Report, incident: str) -> Opinion | None:
    """The opinion on one incident of a report."""
    return next((one for one in report.opinions if one.incident == incident), None)


def opinion_json(opinion: Opinion) -> dict[str, Any]:
    """One opinion as plain data."""
    return {
        "incident": opinion.incident, "model": opinion.model, "outcome": opinion.outcome, "reason": opinion.reason, "kept": opinion.kept,
        "calls": opinion.calls, "tokens_sent": opinion.sent, "tokens_received": opinion.received, "tokens_from_cache": opinion.cache_read,
        "dollars": round(opinion.dollars, 6), "seconds": round(opinion.seconds, 3),
    }  # fmt: skip


def llm_json(report: Report) -> dict[str, Any]:
    """The model's whole part in a report, with sums."""
    asked = report.opinions
    return {
        "opinions": [opinion_json(one) for one in asked],
        "calls": sum(one.calls for one in asked),
        "tokens": sum(one.sent + one.received for one in asked),
        "dollars": round(sum(one.dollars for one in asked), 6),
    }
