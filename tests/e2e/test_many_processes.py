"""Two APIs and two workers as processes of their own over one PostgreSQL and one Valkey."""

import base64
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from cli.embedded import EmbeddedServers
from tests import servers as private_servers
from tests.e2e.customer import NO_PRICE, Customer
from tests.e2e.fake_vendors import FakeVendors
from tests.e2e.processes import RUNLANE, Process, clean_env, run
from tests.e2e.receiver import Receiver
from tests.faults.processes import Launcher
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("e2e-many-processes")

RUNS = 60
MODELS = {"openai": "openai/gpt-5-mini", "anthropic": "anthropic/claude-sonnet-4-5"}


@dataclass(frozen=True)
class Installation:
    """What an operator has after following the steps for production."""

    env: dict[str, str]
    key: str
    vendors: FakeVendors
    apis: tuple[Process, ...]
    workers: tuple[Process, ...]
    launcher: Launcher

    def url(self, number: int) -> str:
        """Where one of the APIs answers, as it logs it."""
        found = re.search(r'"url": "(http://[^"]+)"', self.apis[number].says("api_ready"))
        assert found, self.apis[number].said()
        return found[1]


@pytest.fixture(scope="module")
def installation(
    servers: EmbeddedServers, launcher: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("e2e-many")
    private_servers.empty_redis(servers)
    name = f"e2e_{uuid4().hex}"
    with ExitStack() as stack:
        vendors = stack.enter_context(FakeVendors(home))
        database_url = servers.postgres.create_database(name)
        stack.callback(servers.postgres.drop_database, name)
        env = clean_env(
            home,
            DATABASE_URL=database_url,
            REDIS_URL=servers.redis_url,
            MASTER_KEY="e2e:" + base64.b64encode(bytes(range(32))).decode(),
            API_PORT="0",
            DEV_MODE="true",
            RETRY_BACKOFF_S="0.05",
            **vendors.env(),
        )
        code, out, err = run(RUNLANE, "migrate", env=env)
        assert (0, "") == (code, err)
        assert re.fullmatch(r"The database has schema \w+\.\n", out)
        commands = ("api", "api", "worker", "worker")
        started = [stack.enter_context(Process([RUNLANE, name], env=env)) for name in commands]
        key = _new_workspace(launcher, env, "acme")
        for worker in started[2:]:
            worker.says("worker_ready")
        yield Installation(env, key, vendors, tuple(started[:2]), tuple(started[2:]), launcher)


@pytest.fixture(scope="module")
def customer(installation: Installation) -> Iterator[Customer]:
    with Customer(installation.url(0), installation.key) as customer:
        for vendor, model in MODELS.items():
            customer.prompt(vendor, model)
        yield customer


def test_runs_given_to_both_apis_are_each_done_once(
    installation: Installation, customer: Customer, receiver: Receiver
) -> None:
    secret = customer.webhook(receiver.url("/both"))
    with Customer(installation.url(1), installation.key) as other:
        run_ids = [
            (customer, other)[number % 2].submit("openai", {"name": f"number {number}"})
            for number in range(RUNS)
        ]

        done = other.all_finished(run_ids)

    assert [f"Say hello to number {number}." for number in range(RUNS)] == [
        run["output"].rpartition("You said: ")[2] for run in done
    ]
    assert dict.fromkeys(run_ids, 1) == {
        run_id: len(installation.vendors.calls_of(run_id)) for run_id in run_ids
    }
    told = until(lambda: _told(receiver, run_ids))
    assert dict.fromkeys(run_ids, 1) == told
    assert {"run.succeeded"} == {got.verified(secret)["type"] for got in receiver.at("/both")}


@pytest.mark.parametrize("vendor", MODELS)
def test_vendor_answers_with_usage_and_cost(
    customer: Customer, installation: Installation, vendor: str
) -> None:
    run_id = customer.submit(vendor)
    done = customer.finished(run_id)

    text = "Here is the answer. You said: Say hello to Ada."
    assert ("completed", text, None) == (done["status"], done["output"], done["error"])
    usage, cost = done["tokenUsage"], done["cost"]
    assert usage["total"] == usage["input"] + usage["output"]
    assert min(usage["input"], usage["output"]) > 0
    assert NO_PRICE == cost["retries"]
    assert min(cost["success"][part] for part in ("input", "output", "total")) > 0
    (call,) = installation.vendors.calls_of(run_id)
    assert (vendor, MODELS[vendor].partition("/")[2]) == (call["vendor"], call["model"])
    (attempt,) = customer.run(run_id)["attempts"]
    assert attempt["providerRequestId"] == f"req_{call['number']}"


@pytest.mark.parametrize("vendor", MODELS)
def test_failing_vendor_gives_failed_with_error_and_a_webhook(
    customer: Customer, receiver: Receiver, vendor: str
) -> None:
    secret = customer.webhook(receiver.url(f"/failing-{vendor}"))
    run_id = customer.submit(vendor, model=f"{vendor}/mock-500")

    done = customer.finished(run_id)

    assert ("failed", None, []) == tuple(done[n] for n in ("status", "output", "transcript"))
    assert "500" in done["error"]
    event = receiver.of_run(f"/failing-{vendor}", run_id).verified(secret)
    assert ("run.failed", "failed") == (event["type"], event["data"]["run"]["status"])


def test_refused_call_is_not_repeated(customer: Customer, installation: Installation) -> None:
    run_id = customer.submit("openai", model="openai/mock-400")

    done = customer.finished(run_id)

    assert "failed" == done["status"]
    assert 1 == len(installation.vendors.calls_of(run_id))


def test_once_failing_run_completes_with_error_kept_and_cost_under_retries(
    customer: Customer,
) -> None:
    done = customer.finished(customer.submit("openai", model="sim/flaky"))

    assert ("completed", "You said: Say hello to Ada.") == (done["status"], done["output"])
    assert "The first call of each run fails" in done["error"]
    cost = done["cost"]
    assert min(cost["retries"]["total"], cost["success"]["total"]) > 0
    assert cost["total"] == pytest.approx(cost["retries"]["total"] + cost["success"]["total"])


@pytest.mark.parametrize(
    ("vendor", "name"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")]
)
def test_credentials_of_run_environment_and_server_win_in_this_order(
    customer: Customer, installation: Installation, vendor: str, name: str
) -> None:
    customer.variable("staging", name, "sk-of-the-environment")
    of_server = customer.submit(vendor)
    of_environment = customer.submit(vendor, environment="staging")
    of_run = customer.submit(vendor, environment="staging", envVars={name: "sk-of-the-run"})
    customer.all_finished([of_server, of_environment, of_run])

    servers_own = installation.env[name]
    assert [[servers_own], ["sk-of-the-environment"], ["sk-of-the-run"]] == [
        installation.vendors.keys_of(run_id) for run_id in (of_server, of_environment, of_run)
    ]
    assert "sk-of-the-run" not in str(customer.run(of_run))


def test_second_workspace_may_not_use_the_servers_keys(installation: Installation) -> None:
    key = _new_workspace(installation.launcher, installation.env, "second")
    with Customer(installation.url(0), key) as second:
        second.prompt("greeting", MODELS["openai"])
        run_id = second.submit("greeting")

        done = second.finished(run_id)

    assert "failed" == done["status"]
    assert [] == installation.vendors.calls_of(run_id)


def test_one_api_and_one_worker_may_end_while_the_others_go_on(
    installation: Installation,
) -> None:
    codes = [installation.apis[0].end(), installation.workers[0].end()]

    with Customer(installation.url(1), installation.key) as customer:
        done = customer.all_finished([customer.submit("openai") for _ in range(10)])

    assert [0, 0] == codes
    assert {"completed"} == {run["status"] for run in done}


def _new_workspace(launcher: Launcher, env: dict[str, str], name: str) -> str:
    """Make a workspace and a key as the operator does; the key."""
    make = ["workspaces", "create", name, "-e", "production", "-e", "staging"]
    code, workspace_id, err = launcher.run(make, env, Path(env["HOME"]))
    assert (0, "") == (code, err)
    key_of = ["workspaces", "create-key", workspace_id.strip()]
    code, key, err = launcher.run(key_of, env, Path(env["HOME"]))
    assert (0, "") == (code, err)
    return key.strip()


def _told(receiver: Receiver, run_ids: list[str]) -> dict[str, int] | None:
    told = Counter(got.run_id for got in receiver.at("/both"))
    return dict(told) if set(run_ids) <= told.keys() else None
