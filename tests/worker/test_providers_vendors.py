"""The fake vendors as other suites use them: steered over HTTP, from another process."""

import aiohttp

from shared.domain.completions import FailureClass
from tests.vendors import VendorServer
from tests.worker.provider_cases import RUN_ID, a_request, failure_of, provider_at


async def test_a_script_given_over_http_is_followed_and_the_ledger_shows_it() -> None:
    async with (
        VendorServer() as vendors,
        aiohttp.ClientSession(vendors.url) as steering,
        provider_at("openai", vendors.url) as provider,
    ):
        async with steering.post(f"/_script/{RUN_ID}", json=["429-after-7", "answer"]) as scripted:
            assert scripted.status == 204

        failure = await failure_of(provider, a_request())
        completion = await provider.complete(a_request(attempt=2))
        async with steering.get("/_ledger") as shown:
            ledger = await shown.json()

    assert (failure.kind, failure.retry_after_s) == (FailureClass.NOT_STARTED, 7.0)
    assert completion.text.endswith("Say hello.")
    assert [(call["attempt"], call["step"], call["ended"]) for call in ledger] == [
        (1, "429", True),
        (2, "answer", True),
    ]


async def test_a_hanging_call_is_released_over_http() -> None:
    async with (
        VendorServer() as vendors,
        aiohttp.ClientSession(vendors.url) as steering,
        provider_at("anthropic", vendors.url) as provider,
    ):
        async with steering.post("/_release") as released:
            assert released.status == 204

        completion = await provider.complete(a_request("mock-hang"))

    assert completion.text.endswith("Say hello.")
