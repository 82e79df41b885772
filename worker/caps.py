"""How many runs of an environment may run at once: kept while claiming, for those who ask for it.

Where no environment has such a limit, a claim is what it always was. A change is known here within
`LOOK_S`.
"""

import asyncio
from uuid import UUID

import psycopg

from shared import log
from shared.deps import Deps
from shared.services import rings
from shared.store import caps
from shared.store.claiming import Caps

LOOK_S = 2.0

_log = log.get(__name__)


class RunningCaps:
    """The limits of all environments, as they were a moment ago."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._away = log.Spell(_log, "caps_unread", "caps_read_again")
        self.known: Caps = {}

    async def look(self) -> None:
        """Read the limits."""
        self.known = await caps.known(self._deps.store)

    async def look_forever(self) -> None:
        """Read them now and then."""
        while True:
            try:
                await self.look()
                self._away.went_well()
            except psycopg.Error as error:
                self._away.failed(error)
            await asyncio.sleep(LOOK_S)

    async def parked(self) -> None:
        """Runs were parked, maybe while others ended: then there is room for them after all."""
        if self.known:
            await self._let_in(self.known)

    async def left(self, environment_id: UUID) -> None:
        """A run of this environment runs no longer: let the next one in, where there is a limit."""
        most = self.known.get(environment_id)
        if most is not None:
            await self._let_in({environment_id: most})

    async def _let_in(self, limits: Caps) -> None:
        """Who is missed here comes back after a while."""
        try:
            await rings.ring_turns(self._deps, await caps.unpark(self._deps.store, limits))
        except psycopg.Error as error:
            _log.warning("unparked_nobody", error=type(error).__name__)
