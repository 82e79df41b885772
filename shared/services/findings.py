"""How a check comes out: what `runlane doctor` shows, and what a start may be refused for."""

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """How a check came out."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    REPAIRED = "repaired"


class Finding(msgspec.Struct, frozen=True):
    """One check: what was looked at, how it came out, and what that means."""

    check: str
    verdict: Verdict
    detail: str
