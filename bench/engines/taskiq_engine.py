"""taskiq over a Redis list, tuned: no result backend, many tasks at once.

A list forgets what a killed worker had taken; its streams, which do not, are slower.
"""

from taskiq.api import run_receiver_task  # type: ignore[import-not-found]  # its own environment
from taskiq_redis import ListQueueBroker  # type: ignore[import-not-found]  # as above

from bench.engines import tally


async def main(asked: tally.Given) -> None:
    broker = ListQueueBroker(asked.url, max_connection_pool_size=200, socket_timeout=None)
    counted = tally.Tally(asked)

    @broker.task(task_name="job")  # type: ignore[untyped-decorator]  # as above
    async def job() -> None:
        await counted.job()

    if asked.role == "work":
        await run_receiver_task(
            broker,
            max_async_tasks=tally.CONCURRENCY,
            max_prefetch=100,
            validate_params=False,
            run_startup=True,
        )
        return
    await broker.startup()
    await tally.produce(asked, lambda _: job.kiq())
    await broker.shutdown()


if __name__ == "__main__":
    tally.run(main)
