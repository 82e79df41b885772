"""Rate limits as clients meet them, and as several processes keep them together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network
from typing import Any, cast

import httpx
import pytest

from api.app import create_app
from api.rates import SHARE, Limiter
from shared import deps as shared_deps
from shared.deps import Deps
from shared.domain import api_keys
from shared.queue.connection import connect
from tests.api.refusals import BODY, RUNS, refused, stored
from tests.factories import Tenant, a_key, a_prompt

Process = Callable[..., Any]
Limiters = list[Limiter]


@pytest.fixture
async def limiters() -> AsyncIterator[Limiters]:
    """Those of the processes that were started."""
    started: Limiters = []
    yield started
    for limiter in started:
        await limiter.close()


@pytest.fixture
async def process(deps: Deps, tenant: Tenant, limiters: Limiters) -> AsyncIterator[Process]:
    """Starts an API with limits; answers its client."""
    await a_prompt(deps, tenant)
    async with AsyncExitStack() as stack:

        async def start(lanes: Any = None, **changes: object) -> httpx.AsyncClient:
            settings = deps.settings.model_copy(update={"dev_mode": False} | changes)
            own = shared_deps.build(
                settings, deps.clock, deps.random, deps.store, lanes or deps.lanes
            )
            limiters.append(Limiter(own))
            return await stack.enter_async_context(_client(own, limiters[-1], tenant.key))

        yield start


@asynccontextmanager
async def _client(deps: Deps, limiter: Limiter, key: str) -> AsyncIterator[httpx.AsyncClient]:
    app = cast("Any", create_app(deps, limiter=limiter))  # two libraries' names for one protocol
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=("10.0.0.1", 4711)),
        base_url="http://runlane.test/api/v1",
        headers={"Authorization": f"Bearer {key}"},
    ) as client:
        yield client


def _batch(size: int) -> dict[str, object]:
    return {"runs": [{"prompt": "greeting", "version": 1, **BODY}] * size}


async def test_a_key_over_its_submissions_is_told_when_to_come_back(
    process: Process, deps: Deps
) -> None:
    client = await process(rate_submissions_per_minute=3)

    answers = [await client.post(RUNS, json=BODY) for _ in range(4)]
    read = await client.get("/runs")

    assert [200, 200, 200, 429] == [answer.status_code for answer in answers]
    assert ['"submissions";r=2;t=20', '"submissions";r=1;t=40', '"submissions";r=0;t=60'] == [
        answer.headers["ratelimit"] for answer in answers[:3]
    ]
    assert {'"submissions";q=3;w=60'} == {answer.headers["ratelimit-policy"] for answer in answers}
    over = answers[3]
    assert (429, "rate_limited") == refused(over)
    assert 19 <= int(over.headers["retry-after"]) <= 20
    assert over.headers["ratelimit"].startswith('"submissions";r=0;t=')
    assert (200, 3) == (read.status_code, await stored(deps))


async def test_other_requests_have_a_rate_of_their_own_and_each_key_its_own(
    process: Process, deps: Deps, tenant: Tenant
) -> None:
    client = await process(rate_requests_per_minute=2, rate_submissions_per_minute=1)
    other, _ = await a_key(deps, tenant.workspace_id, ("runs:read",))

    submitted = [await client.post(RUNS, json=BODY) for _ in range(2)]
    read = [await client.get("/runs") for _ in range(3)]
    refused_scope = [await client.post(RUNS, json=BODY, headers=_with(other)) for _ in range(2)]

    assert [200, 429] == [answer.status_code for answer in submitted]
    assert [200, 200, 429] == [answer.status_code for answer in read]
    assert '"requests";r=1;t=30' == read[0].headers["ratelimit"]
    assert [403, 429] == [answer.status_code for answer in refused_scope]
    assert '"submissions";r=0;t=60' == refused_scope[0].headers["ratelimit"]


async def test_a_batch_counts_its_items(process: Process, deps: Deps) -> None:
    client = await process(rate_submissions_per_minute=10)

    first = await client.post("/runs/batch", json=_batch(7))
    second = await client.post("/runs/batch", json=_batch(4))
    third = await client.post("/runs/batch", json=_batch(3))
    nonsense = await client.post("/runs/batch", json={"runs": "many"})

    assert [200, 429, 200, 429] == [one.status_code for one in (first, second, third, nonsense)]
    assert '"submissions";r=3;t=42' == first.headers["ratelimit"]
    assert 10 == await stored(deps)


async def test_in_dev_mode_and_at_zero_there_is_no_limit(process: Process) -> None:
    developing = await process(dev_mode=True, rate_submissions_per_minute=1)
    unlimited = await process(rate_requests_per_minute=0, rate_submissions_per_minute=0)

    answers = [
        await client.post(RUNS, json=BODY) for client in (developing, unlimited) for _ in range(3)
    ]

    assert [200] * 6 == [answer.status_code for answer in answers]
    assert not any("ratelimit" in answer.headers for answer in answers)


async def test_bad_keys_shut_an_address_out_but_not_who_is_known_there(
    process: Process, deps: Deps
) -> None:
    client = await process(rate_failures_per_minute=3, trusted_proxies=(ip_network("10.0.0.0/8"),))
    here = {"x-forwarded-for": "198.51.100.1"}
    elsewhere = {"x-forwarded-for": "198.51.100.2"}
    known = await client.get("/runs", headers=here)
    bad = [_with(""), _with("rl_x"), _with(api_keys.make().text), _with(api_keys.make().text)]

    guesses = [await client.get("/runs", headers=here | one) for one in bad]
    still = await client.get("/runs", headers=here)
    from_elsewhere = await client.get("/runs", headers=elsewhere | bad[2])

    assert [401, 401, 401, 429] == [answer.status_code for answer in guesses]
    assert (429, "rate_limited") == refused(guesses[3])
    assert 19 <= int(guesses[3].headers["retry-after"]) <= 20
    assert '"failures";q=3;w=60' == guesses[3].headers["ratelimit-policy"]
    assert (200, 200, 401) == tuple(answer.status_code for answer in (known, still, from_elsewhere))


async def test_an_unknown_key_is_not_even_looked_up_from_an_address_that_is_shut_out(
    process: Process, deps: Deps, tenant: Tenant
) -> None:
    client = await process(rate_failures_per_minute=1)
    good, _ = await a_key(deps, tenant.workspace_id)

    await client.get("/runs", headers=_with("rl_x"))
    shut_out = await client.get("/runs", headers=_with(good))

    assert (429, "rate_limited") == refused(shut_out)


async def test_two_processes_together_stay_within_the_quota_and_a_share_each(
    process: Process, deps: Deps
) -> None:
    quota = 200
    clients = [await process(rate_submissions_per_minute=quota) for _ in range(2)]

    answers = await asyncio.gather(
        *(client.post("/runs/batch", json=_batch(2)) for _ in range(90) for client in clients)
    )

    passed = 2 * sum(answer.status_code == 200 for answer in answers)
    assert quota - 2 <= passed <= quota + len(clients) * max(quota // SHARE, 2) + 5
    assert passed == await stored(deps)


async def test_what_one_process_let_through_the_next_one_knows(
    process: Process, limiters: Limiters
) -> None:
    first = await process(rate_submissions_per_minute=100)
    second = await process(rate_submissions_per_minute=100)

    spent = [await first.post("/runs/batch", json=_batch(size)) for size in (60, 40)]
    await limiters[0].close()
    refused_here = await second.post("/runs/batch", json=_batch(10))
    mended = await second.post(RUNS, json=BODY)

    assert [200, 200] == [answer.status_code for answer in spent]
    assert (429, "rate_limited") == refused(refused_here)
    assert 429 == mended.status_code


async def test_without_redis_each_process_keeps_the_limits_by_itself(process: Process) -> None:
    nowhere = connect("redis://127.0.0.1:1")
    client = await process(nowhere, rate_submissions_per_minute=20, ring_budget_s=0.01)

    answers = [await client.post(RUNS, json=BODY) for _ in range(22)]
    await nowhere.aclose()

    assert [200] * 20 + [429] * 2 == [answer.status_code for answer in answers]


def _with(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
