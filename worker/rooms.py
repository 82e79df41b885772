"""Room for each endpoint: how many requests this process may have under way to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain import concurrency
from shared.ids import EndpointId
from shared.settings import Settings

KEPT_S = 60.0
"""So long an endpoint that gets nothing keeps what it has gained or lost."""


@dataclass(slots=True)
class _Room:
    limit: int
    used_at: float
    busy: int = 0
    crowded: bool = False


class Rooms:
    """Counts what is under way, by endpoint. Moments are monotonic seconds, durations seconds."""

    def __init__(self, settings: Settings) -> None:
        self.start = settings.webhook_at_once
        """The room of an endpoint of which nothing is known."""
        self._most = max(settings.webhook_at_once_max, self.start)
        self._fast_s = settings.webhook_fast_s
        self._rooms: dict[EndpointId, _Room] = {}
        self.busy = 0

    def enter(self, endpoint_id: EndpointId, now_s: float) -> bool:
        """Begin one more request, if there is room."""
        room = self._rooms.get(endpoint_id)
        if room is None:
            room = self._rooms[endpoint_id] = _Room(self.start, now_s)
        if room.busy >= room.limit:
            return False
        room.busy += 1
        room.used_at = now_s
        self.busy += 1
        return True

    def leave(self, endpoint_id: EndpointId, *, succeeded: bool | None, took_s: float) -> None:
        """End one request; `None`: nothing was asked of the endpoint."""
        room = self._rooms[endpoint_id]
        room.busy -= 1
        self.busy -= 1
        if succeeded:
            room.limit = concurrency.after_success(
                room.limit, fast=took_s <= self._fast_s, start=self.start, most=self._most
            )
        elif succeeded is not None:
            room.limit = concurrency.after_failure(room.limit)

    def crowd(self, endpoint_id: EndpointId) -> None:
        """Note that deliveries wait for this endpoint in the database."""
        room = self._rooms.get(endpoint_id)
        if room is not None:
            room.crowded = True

    def calls(self, endpoint_id: EndpointId) -> bool:
        """Whether deliveries wait for this endpoint, and half of its room is free for them."""
        room = self._rooms.get(endpoint_id)
        return room is not None and room.crowded and 2 * room.busy <= room.limit

    def ask(self) -> dict[EndpointId, int]:
        """What the next claim may give: for endpoints that may not get `start`, how many."""
        asked: dict[EndpointId, int] = {}
        for endpoint_id, room in self._rooms.items():
            left = max(room.limit - room.busy, 0)
            if left:
                room.crowded = False  # until the claim, or somebody meanwhile, says otherwise
            if left != self.start:
                asked[endpoint_id] = left
        return asked

    def learn(self, asked: Mapping[EndpointId, int], given: Mapping[EndpointId, int]) -> None:
        """Note where a claim gave all that was asked for: there may be more."""
        for endpoint_id, count in given.items():
            if count >= asked.get(endpoint_id, self.start):
                self.crowd(endpoint_id)

    def forget_idle(self, now_s: float) -> None:
        for endpoint_id, room in list(self._rooms.items()):
            if room.busy == 0 and now_s - room.used_at > KEPT_S:
                del self._rooms[endpoint_id]
