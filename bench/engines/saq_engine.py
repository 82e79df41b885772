"""SAQ, tuned: many jobs at once, no limit on its own Redis operations beyond the connections."""

from typing import Any

from saq import Worker  # type: ignore[import-not-found]  # in an environment of its own
from saq.queue.redis import RedisQueue  # type: ignore[import-not-found]  # as above

from bench.engines import tally


async def main(asked: tally.Given) -> None:
    queue = RedisQueue.from_url(asked.url, max_concurrent_ops=200)
    await queue.connect()
    if asked.role == "work":
        counted = tally.Tally(asked)

        async def job(_: dict[str, Any]) -> None:
            await counted.job()

        concurrency = tally.CONCURRENCY if asked.sleep_s else 200  # each holds a connection
        worker = Worker(queue, [("job", job)], concurrency=concurrency)
        await worker.start()
        return
    await tally.produce(asked, lambda _: queue.enqueue("job", ttl=-1, retries=1))
    await queue.disconnect()


if __name__ == "__main__":
    tally.run(main)
