"""Stock ARQ, tuned: no results kept, many jobs at once, a short poll."""

from typing import Any, cast

from arq import create_pool
from arq.connections import RedisSettings
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from bench.engines import tally


async def main(asked: tally.Given) -> None:
    settings = RedisSettings.from_dsn(asked.url)
    if asked.role == "work":
        counted = tally.Tally(asked)

        async def job(_: dict[Any, Any]) -> None:
            await counted.job()

        worker = Worker(
            [func(cast("WorkerCoroutine", job), name="job")],
            redis_settings=settings,
            max_jobs=tally.CONCURRENCY,
            keep_result=0,
            poll_delay=0.02,
            handle_signals=False,
        )
        await worker.async_run()
        return
    pool = await create_pool(settings)
    await tally.produce(asked, lambda _: pool.enqueue_job("job"))
    await pool.aclose()


if __name__ == "__main__":
    tally.run(main)
