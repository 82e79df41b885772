"""A clock for tests of what time does."""

from datetime import UTC, datetime, timedelta

_BEGINNING_S = 1000.0


class StillClock:
    """Time that moves when it is told to: `seconds` for all of it, `moment` for dates alone."""

    def __init__(self) -> None:
        self.seconds = _BEGINNING_S
        self.moment = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment + timedelta(seconds=self.seconds - _BEGINNING_S)

    def monotonic(self) -> float:
        return self.seconds
