"""How much of a thread a run is told: the newest whole turns that are within all limits."""

from typing import Annotated

import msgspec

HISTORY_BYTES = 1024 * 1024
"""Of UTF-8, over all messages of a history, whatever the template says."""
HISTORY_ROWS = 10_000
"""Messages of a history, likewise."""
TURN_ROWS = 201
"""Messages of one turn: as many as a template may have, and the answer."""
BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4


class History(
    msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """The limits of a template. Tokens are estimated: four bytes each, four more for a message."""

    max_turns: Annotated[int, msgspec.Meta(ge=1, le=HISTORY_ROWS)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


NO_LIMITS = History()
