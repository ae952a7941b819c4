# ruff: noqa: E501 - one shape a line reads better than one shape on four
"""How secrets and names look: each vendor's own prefix, and the ways in which programs print credentials.

Sources: the token formats that the vendors publish for secret scanning, RFC 7235 (authorization), RFC 6265
(cookies), RFC 7468 (PEM), RFC 3986 (user information and query of a URL), RFC 3820 (proxy certificates).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

#: Names of accounts and hosts that stand for a role and say nothing about anybody.
PUBLIC = frozenset(
    {"root", "nobody", "condor", "daemon", "unknown", "none", "null", "user", "users", "home", "local", "localhost", "localdomain", "submit",
     "pegasus", "condorpool", "node", "host", "python", "test", "data", "job", "jobs"}
)  # fmt: skip
_TLD = (
    "com|org|net|edu|gov|mil|int|io|ai|cloud|dev|app|info|biz|local|localdomain|internal|intranet|lan|corp|home|cluster|grid|hpc|"
    "ac|at|au|be|br|ca|ch|cl|cn|cz|de|dk|ee|es|eu|fi|fr|gr|hk|hr|hu|ie|il|in|it|jp|kr|lt|lu|lv|mx|nl|no|nz|pt|ro|ru|se|si|sg|sk|th|tr|"
    "tw|ua|uk|us|za|example|test|invalid"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:\\?\"(?:[^\"\\\n]|\\.){1,4000}?\\?\"|'[^'\n]{1,4000}'|\S+)"
_WORD = (
    r"(?:passw(?:or)?d|passwd|passphrase|passcode|pwd|secret|api[_-]?key|access[_-]?key|account[_-]?key|auth[_-]?key|private[_-]?key|"
    r"signing[_-]?key|encryption[_-]?key|license[_-]?key|webhook[_-]?key|credentials?|token|bearer|session[_-]?(?:id|key)|jsessionid|"
    r"phpsessid|csrf|xsrf|\bsas|signature|\botp|pin[_-]?code)[A-Za-z0-9_-]{0,20}"
)


def _classes(text: str) -> int:
    return sum((any(c.islower() for c in text), any(c.isupper() for c in text), any(c.isdigit() for c in text)))


def _random(text: str) -> bool:
    """Whether a long word looks like drawn at random: mixed classes in one unbroken piece, no words of a path."""
    longest = max(re.split(r"[/._+=-]", text), key=len)
    if len(longest) >= 20 and _classes(longest) == 3:
        return True
    flat = re.sub(r"[/+=_-]", "", text)
    switches = sum(1 for a, b in pairwise(flat) if (a.isdigit(), a.isupper()) != (b.isdigit(), b.isupper()))
    return len(flat) >= 32 and "." not in text and _classes(flat) == 3 and switches > len(flat) / 4


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: what it is called in the placeholder, how it looks, and which group is the secret."""

    name: str
    pattern: re.Pattern[str]
    group: int = 0
    check: Callable[[str], bool] | None = None


def _shape(name: str, pattern: str, group: int = 0, check: Callable[[str], bool] | None = None) -> Shape:
    return Shape(name, re.compile(pattern), group, check)


def _not_public(text: str) -> bool:
    return text.lower() not in PUBLIC


def _plausible_value(text: str) -> bool:
    """A value and not a word of prose: ``token expired`` has none, ``password: hunter2`` has."""
    return text.strip("\"'").lower() not in {
        "", "none", "null", "true", "false", "missing", "expired", "invalid", "required", "not", "is", "was", "has", "and", "or", "for",
        "the", "a", "an", "in", "to", "file", "error", "failed", "denied", "authentication", "of", "with", "from", "(", "[", "{",
    }  # fmt: skip


#: In this order; what an earlier shape took is out of reach of the later ones.
SHAPES: tuple[Shape, ...] = (
    _shape("KEY", r"-----BEGIN [A-Z0-9 ]{3,60}-----(?:.*?-----END [A-Z0-9 ]{3,60}-----|.*)"),
    _shape("COOKIE", r"(?i)\b(?:set-)?cookie\s*[:=]\s*(\S.*)", 1),
    _shape("TOKEN", r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?((?:bearer|basic|digest|negotiate|token|aws4-hmac-sha256|apikey)?\s*\S.*)", 1),
    _shape("TOKEN", r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/=-]{8,})", 1, lambda text: any(c.isdigit() or c in "=._" or c.isupper() for c in text)),
    _shape("TOKEN", r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]{4,}){0,4}"),
    _shape("TOKEN", r"\bsk-[A-Za-z0-9_-]{16,}"),
    _shape("TOKEN", r"\b(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|gl[a-z]{2,6}-[A-Za-z0-9_-]{20,})"),
    _shape("TOKEN", r"\b(?:xox[a-z]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{8,})"),
    _shape("TOKEN", r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{12,}"),
    _shape("TOKEN", r"\b(?:AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{10,}|1//[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{10,})"),
    _shape("TOKEN", r"\b(?:hf_[A-Za-z0-9]{16,}|npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{16,}|dckr_pat_[A-Za-z0-9_-]{16,}|do[opr]_v1_[a-f0-9]{32,})"),
    _shape("TOKEN", r"\b(?:[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"),
    _shape("TOKEN", r"\b(?:hv[sb]\.[A-Za-z0-9_-]{16,}|s\.[A-Za-z0-9]{24}\b|MDAx[A-Za-z0-9_-]{30,}|AQ[A-Za-z0-9_-]{60,})"),
    _shape("TOKEN", r"\bhttps?://hooks\.slack\.com/services/(\S+)", 1),
    _shape("KEY", r"\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-\S+)\s+([A-Za-z0-9+/=]{20,})", 1),
    _shape("KEY", r"\bSHA256:[A-Za-z0-9+/=]{40,}"),
    _shape("PROXY", r"/\S*?x509up_u?\S+|\bx509up_u?\S+"),
    _shape("DN", r"(?:/(?:C|O|OU|CN|DC|UID|L|ST|E|Email|emailAddress|USERID)=[^/\n\"'<>|]{1,120}){2,}"),
    _shape("DN", r"(?:\b(?:C|O|OU|CN|DC|UID|L|ST|emailAddress)\s?=\s?[^,\n\"'<>|]{1,120}(?:,\s?|(?=$|[\s\"']))){2,}"),
    _shape("QUERY", r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s?\"'<>#]+([?#][^\s\"'<>]+)", 1),
    _shape("LOGIN", r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s/@\"'<>]+)@", 1),
    _shape("LOGIN", r"(?i)\b(?:login|account|user(?:name)?)\s+(\S+)\s+password\s+\S+", 1, _plausible_value),
    _shape("PASSWORD", r"(?i)\bpassword\s+(\S+)", 1, lambda text: _plausible_value(text) and bool(re.search(r"[\d\W]", text.strip(".,;:!?\"')")))),
    _shape("PASSWORD", r"(?i)(?:password|passphrase|passwd)\s*:\s+([^\s\"'{\[\\].*)", 1),
    _shape("PASSWORD", rf"(?i)(?<!\S)--?[a-z0-9-]{{0,40}}?{_WORD}(?:=|\s+)({_VALUE})", 1, _plausible_value),
    _shape("PASSWORD", rf"(?i){_WORD}(?:\\?[\"'])?\s*(?:=>|:=|[=:])\s*({_VALUE})", 1, _plausible_value),
    _shape("PASSWORD", r"(?:\bmysql|\bmysqldump|\bmariadb|\bsshpass)\b[^\n]*?\s-p\s?(\S+)", 1),
    _shape("PASSWORD", r"(?:^|\s)(?:-u|--user|--proxy-user)[= ]([^\s:]+:\S+)", 1),
    _shape("PASSWORD", r"(?i)\bidentified\s+by\s+(\S+)", 1),
    _shape("SIGNED", r"(?i)\b(?:sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid|key-pair-id|policy)=([^\s&\"']+)", 1),
    _shape("EMAIL", r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:" + _LABEL + r"\.)+[A-Za-z]{2,24}\b"),
    _shape("HOST", r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://(?:[^\s/@\"']*@)?(\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\"'<>,)]+)", 1, _not_public),
    _shape("USER", r"\b(?:slot\w{0,20}|[A-Za-z0-9_.-]{1,40})@(?=[A-Za-z0-9<])", 0, lambda text: not text.startswith("slot") and _not_public(text[:-1])),
    _shape("HOST", rf"(?<![\w./-])(?<!named ')(?<!import )(?<!from )(?<!module ')(?:{_LABEL}\.)+(?:{_TLD})(?![\w-]|\.[A-Za-z0-9])", 0),
    _shape("HOST", r"(?<=@)[A-Za-z0-9][A-Za-z0-9.-]*", 0, _not_public),
    _shape("ADDRESS", r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]|\.\d)"),
    _shape("ADDRESS", r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![\w:])", 0, lambda text: text.count(":") >= 5 or "::" in text),
    _shape("ADDRESS", r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}:(?:[0-9A-Fa-f]{1,4}:?){0,5}[0-9A-Fa-f]{1,4}(?![\w:])"),
    _shape("ADDRESS", r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b"),
    _shape("HOST", r"(?<!\w)(?:ip|ec2|compute|gke)-(?:\d{1,3}-){3}\d{1,3}\b"),
    _shape("HOST", r"(?i)\b(?:on host|from host|to host|executing on(?: host)?|running on(?: host)?)\s*[:=]?\s*[\"']?([A-Za-z0-9][A-Za-z0-9._-]+)", 1, _not_public),
    _shape("HOST", r"(?i)\b(?:host ?name|node ?name|uname_nodename|machine|remote ?host|submit ?host|server|host)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9][A-Za-z0-9._-]+)", 1, _not_public),
    _shape("HOME", r"(?<![\w])(?:/(?:home|Users|u|afs/[\w.]+/(?:user|home|users)|nfs/home|gpfs/home|global/homes?|users|homes?|usr/home|export/home|data/home|storage/home)(?:/[a-z0-9])?)/(?!\.)[\w.@+-]{2,}", 0),
    _shape("HOME", r"(?<![\w/])~[a-z_][\w.-]{1,31}"),
    _shape("HOME", r"(?i)\b[A-Z]:\\Users\\[^\\\s\"']+"),
    _shape("USER", r"(?i)\b(?:user(?:name)?|owner|logname|account|uid|login)[\"']?\s*[=:]\s*[\"']?([A-Za-z_][\w.-]{1,31})", 1, _not_public),
    _shape("USER", r"\b(?:by|for|of) user ([A-Za-z_][\w.-]{1,31})", 1, _not_public),
    _shape("HEX", r"(?<![0-9A-Za-z])[0-9a-fA-F]{32,}(?![0-9A-Za-z])", 0, lambda text: any(c.isdigit() for c in text)),
    _shape("RANDOM", r"(?<![A-Za-z0-9+_=-])[A-Za-z0-9+/=_-]{24,}", 0, _random),
    _shape("RANDOM", r"(?<![A-Za-z0-9])[A-Za-z0-9]{20,}(?![A-Za-z0-9])", 0, lambda text: _classes(text) == 3),
)  # fmt: skip
