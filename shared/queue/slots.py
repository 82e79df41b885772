"""Who may take how much: slots, each lane's floor, and the shared room dealt by weight."""

from collections.abc import Sequence
from math import ceil, floor

import msgspec

from shared.domain.states import Lane

LANES = tuple(Lane)
"""The order of every sequence here: the priority."""

HANDFUL = 12
"""A twelfth of the slots is a handful."""


class Room(msgspec.Struct, frozen=True):
    """What may be taken now: `floors` by one lane each, `shared` by any.

    `used` are the shared slots that each lane holds already.
    """

    floors: tuple[int, ...]
    shared: int
    weights: tuple[int, ...]
    used: tuple[int, ...] = (0, 0, 0)

    @property
    def total(self) -> int:
        return self.shared + sum(self.floors)


def deal(room: Room, due: Sequence[int], limit: int) -> tuple[int, ...]:
    """Say how many of the due each lane may take; `claim.lua` follows the same rule.

    Floors first. Each shared slot then goes to the lane that, with it, holds the fewest of them
    for its weight (d'Hondt), the first in priority where lanes are equal. So weights hold also
    where slots come free one at a time, as they do.
    """
    taken, used = [0] * len(due), list(room.used)
    for lane, floor_room in enumerate(room.floors):
        taken[lane] = min(floor_room, due[lane], limit)
        limit -= taken[lane]
    for _ in range(min(room.shared, limit)):
        waiting = [lane for lane in range(len(due)) if due[lane] > taken[lane]]
        if not waiting:
            break
        lane = min(waiting, key=lambda lane: (used[lane] + 1) / room.weights[lane])
        taken[lane] += 1
        used[lane] += 1
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

    def presses(self, lane: Lane) -> bool:
        """Whether what waits in a lane that admits it is to start now, not in a moment.

        The last lane waits for a handful of slots, or for its moment to be over: one claim for
        each slot that comes free takes time from the starts of the others.
        """
        own = max(0, self._floors[lane] - self.running[lane])
        return lane is not LANES[-1] or own + self._shared_room() >= self.slots / HANDFUL

    def room(self) -> Room:
        return Room(
            floors=tuple(
                max(0, self._floors[lane] - running) for lane, running in self.running.items()
            ),
            shared=self._shared_room(),
            weights=self._weights,
            used=self._used(),
        )

    def _shared_room(self) -> int:
        return max(0, self._shared - sum(self._used()))

    def _used(self) -> tuple[int, ...]:
        return tuple(max(0, running - self._floors[lane]) for lane, running in self.running.items())
