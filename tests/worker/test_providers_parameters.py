"""Every parameter of a version, at every vendor: in the request, or refused when it is saved."""

from typing import Any

import msgspec
import pytest

from shared.domain import parameters
from shared.domain.completions import ModelParams
from shared.domain.models import ModelName
from tests.vendors import VendorServer
from tests.worker.provider_cases import HTTP_VENDORS, a_request, provider_at

VALUES: dict[str, tuple[Any, ...]] = {
    "max_completion_tokens": (7,),
    "temperature": (0.5, 1.5),
    "top_p": (0.5,),
    "verbosity": ("low",),
    "reasoning_effort": ("none", "minimal", "high", "of-tomorrow"),
    "reasoning_summary": ("auto",),
    "service_tier": ("default", "flex"),
}
CASES = [(field, value) for field, values in VALUES.items() for value in values]


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
@pytest.mark.parametrize(("field", "value"), CASES)
async def test_a_parameter_is_sent_or_refused_and_never_dropped(
    vendor: str, field: str, value: Any
) -> None:
    params = msgspec.structs.replace(ModelParams(), **{field: value})

    async with VendorServer() as vendors, provider_at(vendor, vendors.url) as provider:
        await provider.complete(a_request("some-model"))
        await provider.complete(a_request("some-model", params=params, attempt=2))

    without, sent = (call.body for call in vendors.ledger)
    is_refused = list(parameters.flaws(params, [ModelName(vendor, "some-model")], ""))
    assert bool(is_refused) or sent != without


def test_no_parameter_is_left_out_here() -> None:
    assert parameters.OUTSIDE.keys() == VALUES.keys()
