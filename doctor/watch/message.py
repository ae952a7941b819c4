"""One message: which event it is, its text, where it goes, and how it is sent."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import Any

from doctor.watch.config import Notify

_MAX_URLS_FILE = 64 << 10
_MAX_TITLE, _MAX_BODY, _LISTED = 200, 4000, 50
_EVENTS = ("waiting", "recovered", "escalated")
# What a log says must not call a whole channel: these get a space of no width.
_CALLS = re.compile(r"<(?=[!@#])|@(?=(?:everyone|here|channel|all)\b)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+")


def event_of(row: dict[str, Any]) -> str:
    """Which of the four events a line of the history is; '' for none. What comes back after it recovered is new."""
    if row["event"] == "opened":
        return "new"
    if row["event"] == "state":
        before, _, after = str(row["text"]).partition(":")[0].partition(" -> ")
        if before == "recovered" and after == "open":
            return "new"
        return after if after in _EVENTS else ""
    return ""


def message(settings: Notify, row: dict[str, Any]) -> tuple[str, str]:
    """Title and body for a line of the history, from the templates."""
    fields = {
        "event": event_of(row), "label": row.get("label") or "", "run": row.get("submit_dir") or "", "incident": row.get("incident") or "",
        "cause": row.get("cause") or "", "summary": row.get("summary") or "", "host": socket.gethostname(),
        "reason": str(row["text"]).partition(": ")[2] if row["event"] == "state" else "",
    }  # fmt: skip
    title = " ".join(_plain(settings.title.format(**fields)).split())
    return title[:_MAX_TITLE], _plain(settings.body.format(**fields))[:_MAX_BODY]


def summed_up(settings: Notify, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """One message for many lines of the history."""
    titles = [message(settings, row)[0] for row in rows[:_LISTED]]
    more = [f"and {len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
    return f"[pegasus-doctor] {len(rows)} more events", "\n".join([*titles, *more, "pegasus-doctor incidents"])


def _plain(text: str) -> str:
    return _CALLS.sub("\\g<0>\u200b", _CONTROL.sub(" ", text))


def targets(settings: Notify) -> tuple[list[str], str]:
    """(the URLs of the configuration and of the file or credential that it names, why that file was not read)."""
    urls, problem = list(settings.urls), ""
    if settings.urls_file:
        place = os.path.expandvars(os.path.expanduser(settings.urls_file))
        try:
            with open(place, encoding="utf-8") as stream:
                lines = stream.read(_MAX_URLS_FILE).splitlines()
            urls += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        except UnicodeDecodeError:
            problem = f"notify.urls_file: {place}: not UTF-8 text"
        except OSError as why:
            problem = f"notify.urls_file: {place}: {why.strerror}"
    return list(dict.fromkeys(urls)), problem


def kind_of(url: str) -> str:
    """The part of a notification URL that is no secret: what kind of service it is."""
    found = re.match(r"\s*([a-zA-Z][a-zA-Z0-9+.-]{0,30})://", url)
    return found[1] if found else "unknown"


def masked(url: str) -> str:
    """A notification URL for people to see: tokens stand anywhere in it, also where other URLs have the host."""
    return f"{kind_of(url)}://..."


def _library() -> Any:
    try:
        import apprise
    except ImportError as problem:
        raise RuntimeError("needs the extra `notify`: pip install 'pegasus-doctor[notify]'") from problem
    words = logging.getLogger("apprise")  # it quotes URLs that it cannot use, with what is secret in them
    words.propagate = False
    if not words.handlers:
        words.addHandler(logging.NullHandler())
    return apprise


def known_url(url: str) -> bool:
    """Whether apprise can make something of a URL. Nothing is sent. Raises RuntimeError without apprise."""
    return bool(_library().Apprise().add(url))


def through_apprise(url: str, title: str, body: str) -> None:
    """Send one message; raises RuntimeError with the reason when it was not accepted."""
    apprise = _library()
    # In this thread: apprise's own pool is waited for at the end of the process, however long it hangs.
    asset = apprise.AppriseAsset(app_id="pegasus-doctor", app_desc="pegasus-doctor", async_mode=False)
    club = apprise.Apprise(asset=asset)
    if not club.add(url):
        raise RuntimeError("not a URL that apprise knows")
    if not club.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT):
        raise RuntimeError("not accepted, or no answer")
