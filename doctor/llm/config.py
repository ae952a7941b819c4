"""Whether a model may be asked, which one, and within which limits: table ``[llm]`` of ``config.toml``.

Three files, the later over the earlier: the default as shipped, the user's, and the site's
(``/etc/pegasus-doctor/config.toml``). The site's word is final: where it says ``mode = "off"`` nothing
switches the model on. Without a key in the environment nothing is asked either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from doctor.settings import SettingsError, Strict, laid_over, read, shipped, user_config, validated

SITE_FILE = Path("/etc/pegasus-doctor/config.toml")


class LlmBudget(Strict):
    """Upper limits, in tokens (all that is sent and received) and in dollars; 0 dollars: only free models."""

    incident_tokens: int = Field(ge=0)
    run_tokens: int = Field(ge=0)
    day_tokens: int = Field(ge=0)
    incident_dollars: float = Field(ge=0)
    run_dollars: float = Field(ge=0)
    day_dollars: float = Field(ge=0)


class LlmSettings(Strict):
    """Table ``[llm]``; the defaults stand in ``service/config.toml`` alone."""

    mode: Literal["off", "request", "always"]
    model: str = Field(min_length=1, max_length=200)
    base_url: str = Field(max_length=500)
    confidence: float = Field(ge=0, le=1)
    stream: bool
    timeout_s: float = Field(gt=0, le=3600)
    deadline_s: float = Field(gt=0, le=7200)
    attempts: int = Field(ge=1, le=10)
    longest_wait_s: float = Field(ge=0, le=3600)
    output_tokens: int = Field(ge=256, le=64_000)
    pack_tokens: int = Field(ge=1000, le=50_000)
    budget: LlmBudget
    prices: dict[str, list[float]]  # model -> dollars per million tokens: input, output, cache write, cache read


@dataclass(frozen=True, slots=True)
class Off:
    """No model is asked, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Access:
    """What it takes to ask: settings, key and address ('' for the provider's own)."""

    settings: LlmSettings
    key: str
    base_url: str


def load_settings(file: Path | None, environ: Mapping[str, str], site: Path = SITE_FILE) -> LlmSettings:
    """The settings that hold. Without ``file`` the user's own file is read where there is one.

    Raises :class:`SettingsError` with file and line of every mistake.
    """
    values: dict[str, Any] = read(shipped("config.toml"))["llm"]
    own = file or (user_config(environ) if user_config(environ).is_file() else None)
    for source in (own, site if site.is_file() else None):
        if source is None:
            continue
        table = read(source).get("llm", {})
        if not isinstance(table, dict):
            table = {"mode": table}  # `llm = "off"` in one word
        values = laid_over(values, table)
        _checked(values, source)
    return _checked(values, own or shipped("config.toml"))


def _checked(values: dict[str, Any], file: Path) -> LlmSettings:
    settings = validated(LlmSettings, values, file, ("llm",))
    for model, prices in settings.prices.items():
        if len(prices) != 4 or min(prices) < 0:
            raise SettingsError([f"{file}: llm.prices.{model}: four numbers, dollars per million tokens: input, output, cache write, read"])
    return settings


def access(settings: LlmSettings, environ: Mapping[str, str], *, requested: bool) -> Access | Off:
    """Whether the model may be asked now: on a person's request, or by the loop itself (``requested`` False)."""
    if settings.mode == "off":
        return Off('the configuration forbids it (llm.mode = "off")')
    if settings.mode == "request" and not requested:
        return Off('the configuration allows it only on request (llm.mode = "request")')
    key = environ.get("ANTHROPIC_API_KEY", "").strip()
    if not key:
        return Off("no key is configured (ANTHROPIC_API_KEY is not set)")
    return Access(settings, key, environ.get("ANTHROPIC_BASE_URL", "").strip() or settings.base_url)
