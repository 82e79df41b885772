"""Everything a part needs: servers, peers, both platforms, and how thorough to be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench import servers
from bench.peers import Peers
from bench.runlane import Runlane
from bench.servers import Servers


@dataclass(frozen=True)
class Rig:
    """Handed to every part."""

    servers: Servers
    peers: Peers
    runlane: Runlane
    quick: bool

    def pick(self, full: int, quick: int) -> int:
        """A number of things to do, smaller when there is little time."""
        return quick if self.quick else full


@asynccontextmanager
async def standing(*, quick: bool) -> AsyncIterator[Rig]:
    """Run servers and peers, and prepare Runlane's database."""
    with servers.running() as running:
        async with Peers() as peers:
            runlane = Runlane(running, peers)
            await runlane.prepare(peers)
            yield Rig(running, peers, runlane, quick)
