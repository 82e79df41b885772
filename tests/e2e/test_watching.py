"""One run as its operator sees it: in the metrics of both processes, and in its trace."""

import base64
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import migrations
from cli.embedded import EmbeddedServers
from tests import servers as private_servers
from tests.e2e.collector import Collector, Span
from tests.e2e.customer import Customer
from tests.e2e.fake_vendors import FakeVendors
from tests.e2e.processes import clean_env
from tests.e2e.receiver import Receiver
from tests.faults.processes import Child, Launcher
from tests.waiting import until

HOOK = "/watched"

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Watched:
    """An API and a worker whose metrics somebody reads."""

    api: Child
    worker: Child
    key: str
    vendors: FakeVendors
    collector: Collector

    @property
    def url(self) -> str:
        return str(_said(self.api, "api_ready")["url"])


@pytest.fixture(scope="module")
def watched(
    servers: EmbeddedServers,
    launcher: Launcher,
    receiver: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    home = tmp_path_factory.mktemp("e2e-watched")
    private_servers.empty_redis(servers)
    name = f"watched_{uuid4().hex}"
    with ExitStack() as stack:
        vendors = stack.enter_context(FakeVendors(home))
        collector = stack.enter_context(Collector().listening())
        database_url = servers.postgres.create_database(name)
        stack.callback(servers.postgres.drop_database, name)
        migrations.upgrade(database_url)
        env = clean_env(
            home,
            DATABASE_URL=database_url,
            REDIS_URL=servers.redis_url,
            MASTER_KEY="e2e:" + base64.b64encode(bytes(range(32))).decode(),
            API_PORT="0",
            METRICS_PORT="0",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="50",
            DEV_MODE="true",
            **vendors.env(),
        )
        api, worker = (
            launcher.launch(kind, [kind], env, home / f"{kind}.log") for kind in ("api", "worker")
        )
        for child in (api, worker):
            stack.callback(_end, child)
        make = ["workspaces", "create", "acme", "-e", "production"]
        _, workspace_id, _ = launcher.run(make, env, home)
        key_of = ["workspaces", "create-key", workspace_id.strip()]
        _, key, _ = launcher.run(key_of, env, home)
        _said(worker, "worker_ready")
        made = Watched(api, worker, key.strip(), vendors, collector)
        with Customer(made.url, made.key) as customer:
            customer.webhook(receiver.url(HOOK))
        yield made


def test_a_run_is_counted_from_its_submission_to_its_webhook(
    watched: Watched, receiver: Receiver
) -> None:
    before = {child: _scrape(child) for child in (watched.api, watched.worker)}
    with Customer(watched.url, watched.key) as customer:
        customer.prompt("counted", "openai/gpt-5-mini")

        run_id = customer.submit("counted", priority="onsite")

        customer.finished(run_id)
        receiver.of_run(HOOK, run_id)
        usage = customer.run(run_id)["tokenUsage"]
        cost = customer.run(run_id)["cost"]["total"]

    model = {"provider": "openai", "model": "gpt-5-mini"}
    route = {"method": "POST", "route": "/api/v1/prompts/{slug}/{version}/runs"}
    sent = {"result": "succeeded", "reason": "2xx"}
    until(lambda: _of(_scrape(watched.worker), "runlane_delivery_tries_total", **sent))
    api, worker = (_grown(before[child], _scrape(child)) for child in before)
    assert [1, 1, 1] == [
        _of(api, "runlane_runs_submitted_total", lane="onsite"),
        _of(api, "runlane_http_requests_total", **route, status="200"),
        _of(api, "runlane_http_request_duration_seconds_count", **route),
    ]
    assert [1, 1, 1, 1, 1, 1, 1] == [
        _of(worker, "runlane_runs_claimed_total", lane="onsite"),
        _of(worker, "runlane_run_wait_seconds_count", lane="onsite", threaded="no"),
        _of(worker, "runlane_provider_calls_total", **model, outcome="succeeded"),
        _of(worker, "runlane_provider_call_duration_seconds_count", **model),
        _of(worker, "runlane_runs_ended_total", status="succeeded", reason=""),
        _of(worker, "runlane_delivery_tries_total", **sent),
        _of(worker, "runlane_delivery_duration_seconds_count"),
    ]
    assert [usage["input"], usage["output"], cost] == [
        _of(worker, "runlane_tokens_total", **model, kind="input"),
        _of(worker, "runlane_tokens_total", **model, kind="output"),
        pytest.approx(_of(worker, "runlane_cost_usd_total", **model)),
    ]


def test_every_process_says_what_it_is_and_how_the_lanes_are(watched: Watched) -> None:
    for child, pool in ((watched.api, "api"), (watched.worker, "worker")):
        found = _measured(child)
        lanes = {lane: _of(found, "runlane_lane_depth", lane=lane) for lane in ("onsite", "low")}

        assert {"onsite": 0, "low": 0} == lanes
        assert 0 == _of(found, "runlane_lane_oldest_due_seconds", lane="normal")
        assert 1 == _of(found, "runlane_dependency_up", dependency="postgresql")
        assert 1 == _of(found, "runlane_dependency_up", dependency="redis")
        assert 1 == sum(value for (name, _), value in found.items() if name == "runlane_build_info")
        assert 0 < _of(found, "runlane_pool_connections", pool=pool, state="idle")
        assert 0 < _of(found, "process_resident_memory_bytes")
    assert 1 == _of(_scrape(watched.worker), "runlane_sweeper_leads")


def test_one_trace_leads_from_the_submission_to_the_webhook(
    watched: Watched, receiver: Receiver
) -> None:
    trace, callers = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with Customer(watched.url, watched.key) as customer:
        customer.prompt("traced", "openai/gpt-5-mini")
        customer.http.headers["traceparent"] = f"00-{trace}-{callers}-01"

        run_id = customer.submit("traced")

        del customer.http.headers["traceparent"]
        usage = customer.finished(run_id)["tokenUsage"]
    webhook = receiver.of_run(HOOK, run_id)
    request, wait, run, chat, delivery = until(lambda: _whole(watched.collector.spans(trace)))
    assert [
        ("runlane-api", "POST /api/v1/prompts/{slug}/{version}/runs", callers),
        ("runlane-worker", "wait in lane", request.id),
        ("runlane-worker", "run", request.id),
        ("runlane-worker", "chat gpt-5-mini", run.id),
        ("runlane-worker", "deliver webhook", request.id),
    ] == [(one.service, one.name, one.parent) for one in (request, wait, run, chat, delivery)]
    assert not any(one.failed for one in (request, wait, run, chat, delivery))
    assert 0 < wait.began_ns <= wait.ended_ns <= run.ended_ns
    assert run_id == run.attributes["runlane.run.id"] == delivery.attributes["runlane.run.id"]
    assert "succeeded" == run.attributes["runlane.run.status"]
    (call,) = watched.vendors.calls_of(run_id)
    assert chat.traceparent == call["headers"]["traceparent"]
    assert delivery.traceparent == webhook.headers["traceparent"]
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": usage["input"],
        "gen_ai.usage.output_tokens": usage["output"],
    }.items() <= chat.attributes.items()
    assert not any("hello" in str(one.attributes).lower() for one in (request, run, chat))


def test_without_a_trace_of_the_callers_a_run_begins_one(
    watched: Watched, receiver: Receiver
) -> None:
    with Customer(watched.url, watched.key) as customer:
        customer.prompt("begun", "openai/mock-500")

        run_id = customer.submit("begun", maxAttempts=1)

        customer.finished(run_id)
    trace = receiver.of_run(HOOK, run_id).headers["traceparent"].split("-")[1]
    request, _, run, chat, _ = until(lambda: _whole(watched.collector.spans(trace)))
    assert "" == request.parent
    assert [False, True, True] == [one.failed for one in (request, run, chat)]
    assert "provider_server_error" == run.attributes["error.type"] == chat.attributes["error.type"]


def _whole(spans: Sequence[Span]) -> Sequence[Span] | None:
    """The five spans of a run, once they are there: request, wait, run, call, delivery."""
    names = ("POST /", "wait in lane", "run", "chat ", "deliver webhook")
    found = [next((one for one in spans if one.name.startswith(name)), None) for name in names]
    return [one for one in found if one is not None] if None not in found else None


def _scrape(child: Child) -> Samples:
    port = _said(child, "metrics_ready")["port"]
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
    assert 200 == answer.status_code
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _measured(child: Child) -> Samples:
    """A scrape that has the loop's lag in it, which is measured twice a second."""
    until(lambda: _of(_scrape(child), "runlane_event_loop_lag_seconds_count"))
    return _scrape(child)


def _grown(before: Samples, after: Samples) -> Samples:
    return {one: value - before.get(one, 0) for one, value in after.items()}


def _of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0)


def _said(child: Child, event: str) -> Mapping[str, object]:
    return until(lambda: child.said(event), 30, otherwise=child.last_words)[0]


def _end(child: Child) -> None:
    child.send(signal.SIGTERM)
    until(lambda: not child.alive, 30, otherwise=child.last_words)
