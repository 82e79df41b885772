"""The window of a recovery: how far back an endpoint may be sent what it missed."""

from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec

from shared.domain import flaws
from shared.errors import Flaw

MAX_BACK: Final = timedelta(days=14)
# What is shown of a moment ends with its milliseconds; the rest of the last one belongs to it.
_SHOWN: Final = timedelta(milliseconds=1)
# The database dates events, and its clock may be ahead of ours.
_AHEAD: Final = timedelta(minutes=5)

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a recovery: from when, and until when; until now when left out."""

    since: Moment
    until: Moment | None = None

    def checked(self, now: datetime) -> tuple[datetime, datetime]:
        """The moments from and before which events count. Raises `UnacceptableError`."""
        ahead = now + _AHEAD
        until = ahead if self.until is None else min(self.until, ahead) + _SHOWN
        found = []
        if self.since < now - MAX_BACK:
            found.append(Flaw("/since", f"At most {MAX_BACK.days} days back can be recovered."))
        elif self.since > ahead:
            found.append(Flaw("/since", "This moment is still to come."))
        elif self.since >= until:
            found.append(Flaw("/until", "The window ends before it begins."))
        flaws.refuse(*found)
        return self.since, until
