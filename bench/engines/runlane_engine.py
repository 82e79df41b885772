"""Our lanes: rings through the batcher as the API sends them, claimed by the worker's own loop."""

from collections.abc import Mapping, Sequence

from bench.engines import tally
from shared.batching import Batcher
from shared.domain.states import Lane
from shared.ids import RunId, new_id
from shared.queue.connection import connect
from shared.queue.port import Ring
from shared.settings import Settings
from worker.lanes import LaneWorker


class _Handler:
    def __init__(self, counted: tally.Tally) -> None:
        self._counted = counted

    def may_start(self) -> bool:
        return True

    async def take(self, ids: Sequence[RunId]) -> Mapping[RunId, RunId | None]:
        return {run_id: run_id for run_id in ids}

    async def run(self, claimed: RunId) -> None:  # noqa: ARG002 (the job does not look at its id)
        await self._counted.job()


async def main(asked: tally.Given) -> None:
    lanes = connect(asked.url)
    if asked.role == "work":
        # One lane only, and room for as many as the others get: the shared part is three quarters.
        slots = round(tally.CONCURRENCY / 0.8)
        worker = LaneWorker(lanes, _Handler(tally.Tally(asked)), Settings(slots=slots))
        await worker.async_run()
        return

    async def flush(rings: Sequence[Ring]) -> list[None]:
        await lanes.ring_many(rings)
        return [None] * len(rings)

    rings = Batcher(flush)
    await tally.produce(asked, lambda _: rings.submit(Ring(RunId(new_id()), Lane.NORMAL)))
    await lanes.aclose()


if __name__ == "__main__":
    tally.run(main)
