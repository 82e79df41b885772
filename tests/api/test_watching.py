"""Requests are counted by route, whatever is asked for."""

import httpx

from shared import metrics


def counted(**labels: str) -> float:
    return metrics.REGISTRY.get_sample_value("runlane_http_requests_total", labels) or 0


async def test_a_request_is_counted_under_its_route_and_not_its_path(
    client: httpx.AsyncClient,
) -> None:
    route = {"method": "GET", "route": "/api/v1/runs/{run_id}", "status": "404"}
    before = counted(**route)

    for number in range(3):
        await client.get(f"/runs/unknown-{number}")

    assert before + 3 == counted(**route)


async def test_what_no_route_answers_makes_no_series_of_its_own(client: httpx.AsyncClient) -> None:
    unknown = {"method": "GET", "route": "none", "status": "404"}
    refused = {"method": "other", "route": "none", "status": "405"}
    before = counted(**unknown), counted(**refused)

    for number in range(3):
        await client.get(f"/nothing-{number}")
        await client.request(f"MADE-UP-{number}", "/runs")

    assert (before[0] + 3, before[1] + 3) == (counted(**unknown), counted(**refused))
