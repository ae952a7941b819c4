"""What asking costs, and the limits that it never exceeds: per incident, run and day, in tokens and dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from doctor.llm.config import LlmBudget

_BYTES_PER_TOKEN = 2.5  # on the safe side: tokenizers make 2.7 to 4 bytes of English and logs one token
DAY = 86_400.0

#: Dollars per million tokens: input, output, cache write (5 min), cache read. By the longest name that fits the
#: model's beginning. https://platform.claude.com/docs/en/about-claude/pricing (read in November 2026)
PRICES: dict[str, tuple[float, float, float, float]] = {
    "claude-haiku-5-5": (0.10, 0.50, 0.125, 0.01),
    "claude-haiku": (1.0, 5.0, 1.25, 0.10),
    "claude-sonnet-5-5": (2.0, 10.0, 2.50, 0.10),
    "claude-sonnet-5": (2.0, 10.0, 2.50, 0.20),
    "claude-sonnet": (3.0, 15.0, 3.75, 0.30),
    "claude-opus-5-5": (4.0, 20.0, 5.0, 0.20),
    "claude-opus": (5.0, 25.0, 6.25, 0.50),
    "claude-fable": (10.0, 50.0, 12.50, 1.0),
    "claude-mythos": (10.0, 50.0, 12.50, 1.0),
}
_DEAREST = max(PRICES.values())


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens and dollars of one or more calls. ``sent`` counts what was read from or written to the prompt cache too."""

    calls: int = 0
    sent: int = 0
    received: int = 0
    cache_written: int = 0
    cache_read: int = 0
    dollars: float = 0.0

    @property
    def tokens(self) -> int:
        return self.sent + self.received

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls, self.sent + other.sent, self.received + other.received,
            self.cache_written + other.cache_written, self.cache_read + other.cache_read, self.dollars + other.dollars,
        )  # fmt: skip


def estimate(text: str) -> int:
    """Tokens of a text, rather too many than too few."""
    return -int(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def prices(model: str, own: Mapping[str, list[float]]) -> tuple[float, float, float, float]:
    """The prices of a model: the configured ones, else those known; the dearest for a model that nobody knows."""
    if model in own:
        first, second, third, fourth = own[model]
        return first, second, third, fourth
    known = [name for name in PRICES if model.startswith(name) or f".{name}" in model or f"/{name}" in model]
    return PRICES[max(known, key=len)] if known else _DEAREST


def cost(price: tuple[float, float, float, float], plain: int, received: int, written: int = 0, read: int = 0) -> float:
    """Dollars of one call. ``plain`` are input tokens that are neither written to nor read from the cache."""
    return (plain * price[0] + received * price[1] + written * price[2] + read * price[3]) / 1_000_000


def exceeded(limits: LlmBudget, incident: Spent, run: Spent, day: Spent, coming: Spent) -> str | None:
    """Why a call that costs at most ``coming`` is not made; None when every limit allows it."""
    for name, spent, tokens, dollars in (
        ("incident", incident, limits.incident_tokens, limits.incident_dollars),
        ("run", run, limits.run_tokens, limits.run_dollars),
        ("day", day, limits.day_tokens, limits.day_dollars),
    ):
        if spent.tokens + coming.tokens > tokens:
            return f"the budget of this {name} is used up: {spent.tokens} of {tokens} tokens spent, the call may take {coming.tokens}"
        if spent.dollars + coming.dollars > dollars:
            rest = f"${spent.dollars:.4f} of ${dollars:.2f} spent, the call may cost ${coming.dollars:.4f}"
            return f"the budget of this {name} is used up: {rest}"
    return None
