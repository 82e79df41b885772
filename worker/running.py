"""What one worker process has in hand: slots held, tasks under way, and why they are stopped."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from shared import log
from shared.domain.states import Lane
from shared.ids import RunId
from shared.queue.slots import Slots

_log = log.get(__name__)


class Stop(StrEnum):
    """Why the task of a run is cancelled."""

    USER = "user"
    SHUTDOWN = "shutdown"


def stop_reason() -> Stop | None:
    """Say why the run that is executing here is being stopped; `None` while it is not.

    Known in every task that the run started as well.
    """
    piece = _current.get(None)
    return piece.stop if piece is not None else None


@dataclass(slots=True, eq=False)
class _Piece:
    lane: Lane
    run_id: RunId | None
    task: "asyncio.Task[None] | None" = None
    started: bool = False
    stop: Stop | None = None


_current: ContextVar[_Piece] = ContextVar("piece_of_work")


class Running:
    """The tasks of one worker. A slot is held from `slots.take` until `release` or the task's end.

    `released` is called whenever a slot has become free.
    """

    def __init__(self, slots: Slots, released: Callable[[], None]) -> None:
        self.slots = slots
        self._released = released
        self._pieces: set[_Piece] = set()
        self._by_id: dict[RunId, _Piece] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def start(self, lane: Lane, run_id: RunId | None, work: Callable[[], Awaitable[None]]) -> None:
        """Start work whose slot is held already."""
        piece = _Piece(lane, run_id)
        piece.task = task = asyncio.create_task(_carry(piece, work))
        self._pieces.add(piece)
        if run_id is not None:
            self._by_id[run_id] = piece
        task.add_done_callback(partial(self._ended, piece))

    def release(self, lane: Lane) -> None:
        self.slots.release(lane)
        self._released()

    def cancel(self, run_id: RunId) -> bool:
        """Stop this run with `Stop.USER`, once; answers whether it is running here."""
        piece = self._by_id.get(run_id)
        if piece is None:
            return False
        if piece.stop is None:
            _stop(piece, Stop.USER)
        return True

    def stop_all(self) -> None:
        """Cancel everything with `Stop.SHUTDOWN`; what a user stopped keeps that reason."""
        for piece in tuple(self._pieces):
            _stop(piece, piece.stop or Stop.SHUTDOWN)

    def tasks(self) -> set["asyncio.Task[None]"]:
        return {piece.task for piece in self._pieces if piece.task is not None}

    def _ended(self, piece: _Piece, task: "asyncio.Task[None]") -> None:
        self._pieces.discard(piece)
        # the same run may have been claimed again before its previous task ended
        if piece.run_id is not None and self._by_id.get(piece.run_id) is piece:
            del self._by_id[piece.run_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("run_raised", run_id=str(piece.run_id), exc_info=error)
        self.release(piece.lane)


async def _carry(piece: _Piece, work: Callable[[], Awaitable[None]]) -> None:
    """Carry one piece of work out; what is stopped before its first step starts nevertheless.

    It is claimed in the database by then, so its own code has to give it back.
    """
    _current.set(piece)
    piece.started = True
    if piece.stop is not None and piece.task is not None:
        piece.task.cancel()
    await work()


def _stop(piece: _Piece, reason: Stop) -> None:
    piece.stop = reason
    if piece.started and piece.task is not None:
        piece.task.cancel()
