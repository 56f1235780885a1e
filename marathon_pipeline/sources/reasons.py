"""What follows from the reason that a download failed for."""

from typing import Literal

Rule = Literal["source", "later", "request", "never"]

RULES: dict[Rule, str] = {
    "source": "the site wants fewer requests: all its downloads pause, and this one is tried again",
    "later": "tried again after a while, and by the next run",
    "request": "tried again by --retry-failed, all or this reason",
    "never": "tried again only where --retry-failed names this reason",
}
_REFUSALS = frozenset({"bot_check", "rate_limited", "http_429"})
_UNCLEAR = frozenset({"extractor", "defect", "bad_input", "http_403"})
_GONE = frozenset({"removed", "private", "age_restricted", "geo_blocked", "drm", "opted_out", "http_410", "http_451"})


def rule_of(reason: str, transient: bool) -> Rule:
    """The rule of a reason; `transient` is what the failure says of itself."""
    if reason in _REFUSALS:
        return "source"
    if reason in _GONE:
        return "never"
    return "later" if transient else "request"


def is_answer(reason: str, transient: bool) -> bool:
    """Whether a failure for this reason shows that its site answers us; one that may be our own fault, or a refusal
    in other words, says nothing."""
    return rule_of(reason, transient) in ("never", "request") and reason not in _UNCLEAR
