"""Time as a dependency: the only module that reads the host's clock."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the rest of the program may ask about time. Leases ask the database instead."""

    def now(self) -> datetime:
        """The moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow, for measuring durations."""
        ...


class SystemClock:
    """The host's clock, shifted by a fixed offset where a test asks for a skewed host."""

    def __init__(self, skew_s: float = 0.0) -> None:
        self._skew = timedelta(seconds=skew_s)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._skew  # noqa: TID251 (this is the one place)

    def monotonic(self) -> float:
        return time.monotonic()


class DatabaseClock:
    """The database's time as far as it was told, the host's before: hosts differ, it is one.

    What workers write down and sign is held against other hosts' clocks. Between two tellings it
    goes on by the monotonic seconds, so that a step of the host's clock does not show.
    """

    def __init__(self, host: Clock) -> None:
        self._host = host
        self._last: tuple[datetime, float] | None = None

    def told(self, moment: datetime) -> None:
        """Take the database's word for what time it is."""
        self._last = (moment.astimezone(UTC), self._host.monotonic())

    def now(self) -> datetime:
        if self._last is None:
            return self._host.now()
        moment, at = self._last
        return moment + timedelta(seconds=self._host.monotonic() - at)

    def monotonic(self) -> float:
        return self._host.monotonic()


def rfc3339(moment: datetime) -> str:
    """Write a moment as RFC 3339 UTC with milliseconds: `2026-11-22T12:00:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
