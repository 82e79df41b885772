"""Who may take how much: slots, each lane's floor, and the shared room dealt by weight."""

from collections.abc import Sequence
from math import ceil, floor

import msgspec

from shared.domain.states import Lane

LANES = tuple(Lane)
"""The order of every sequence here: the priority."""


class Room(msgspec.Struct, frozen=True):
    """What may be taken now: `floors` by one lane each, `shared` by any."""

    floors: tuple[int, ...]
    shared: int
    weights: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.shared + sum(self.floors)


def deal(room: Room, due: Sequence[int], limit: int) -> tuple[int, ...]:
    """Say how many of the due each lane may take; `claim.lua` follows the same rule.

    Floors first. The shared room goes by weight to the lanes that still have something, again
    and again; what cannot be divided any further goes strictly by priority.
    """
    taken = [0] * len(due)

    def take(lane: int, most: int) -> int:
        more = min(due[lane] - taken[lane], most)
        taken[lane] += more
        return more

    for lane, floor_room in enumerate(room.floors):
        limit -= take(lane, min(floor_room, limit))
    pool = min(room.shared, limit)
    while pool > 0:
        weights = sum(weight for lane, weight in enumerate(room.weights) if due[lane] > taken[lane])
        if weights == 0:
            break
        shares = [pool * weight // weights for weight in room.weights]
        given = sum(take(lane, share) for lane, share in enumerate(shares))
        if given == 0:
            for lane in range(len(due)):
                pool -= take(lane, pool)
            break
        pool -= given
    return tuple(taken)


class Slots:
    """Counts what one worker runs, lane by lane.

    A floor is rounded up, so that every lane has a slot of its own, unless the floors would then
    hold more than half of a small worker.
    """

    def __init__(self, slots: int, shares: Sequence[float], weights: Sequence[int]) -> None:
        if sum(shares) > 1 or min(shares) < 0:
            raise ValueError(f"lane floors {tuple(shares)} are no shares of the slots")
        if min(weights) < 1:
            raise ValueError(f"lane weights {tuple(weights)} must be at least 1")
        floors = [ceil(slots * share) for share in shares]
        if sum(floors) * 2 > slots:
            floors = [floor(slots * share) for share in shares]
        self.slots = slots
        self._floors = dict(zip(LANES, floors, strict=True))
        self._weights = tuple(weights)
        self._shared = slots - sum(floors)
        self.running = dict.fromkeys(LANES, 0)

    @property
    def free(self) -> int:
        return self.slots - sum(self.running.values())

    def take(self, lane: Lane) -> None:
        self.running[lane] += 1

    def release(self, lane: Lane) -> None:
        self.running[lane] -= 1

    def admits(self, lane: Lane) -> bool:
        """Whether one more of this lane may start."""
        return self.running[lane] < self._floors[lane] or self._shared_room() > 0

    def room(self) -> Room:
        return Room(
            floors=tuple(
                max(0, self._floors[lane] - running) for lane, running in self.running.items()
            ),
            shared=self._shared_room(),
            weights=self._weights,
        )

    def _shared_room(self) -> int:
        used = sum(
            running - self._floors[lane]
            for lane, running in self.running.items()
            if running > self._floors[lane]
        )
        return max(0, self._shared - used)
