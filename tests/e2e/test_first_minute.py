"""The first minute: `runlane dev` in an empty folder, the lines it prints, a signed webhook."""

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli import dev_env
from tests.e2e.customer import NO_PRICE, Customer
from tests.e2e.processes import (
    ROOT,
    RUNLANE,
    Process,
    clean_env,
    free_port,
    run,
    served,
    spare_curl,
)
from tests.e2e.receiver import Receiver
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("e2e-first-minute")

PATH_LENGTH = 200
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Dev:
    """A running `runlane dev` and the folder it was started in."""

    folder: Path
    url: str
    process: Process
    env: dict[str, str]

    @property
    def key(self) -> str:
        return dev_env.read(self.folder / ".runlane" / "dev.env")["RUNLANE_API_KEY"]

    def printed(self, start: str) -> str:
        """The command of the printed text that starts so, with its continued lines."""
        text = self.process.said()
        found = re.search(rf"^  ({re.escape(start)}(?:.*\\\n)*.*)$", text, re.MULTILINE)
        assert found, text
        return found[1]

    def types(self, *commands: str) -> str:
        """Type commands into one shell in the folder; what they print."""
        code, out, err = run("/bin/bash", "-ec", "\n".join(commands), env=self.env, cwd=self.folder)
        assert (0, "") == (code, err)
        return out


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of mode 0700, as a home often is."""
    closed = tmp_path_factory.mktemp("e2e") / "closed"
    closed.mkdir(mode=0o700)
    return closed


@pytest.fixture(scope="module")
def dev(closed: Path) -> Iterator[Dev]:
    """`runlane dev` on a free port in a folder whose path is 200 characters long."""
    folder = closed / ("x" * (PATH_LENGTH - len(str(closed)) - 1))
    folder.mkdir()
    (folder / ".venv").symlink_to(sys.prefix)
    home = closed / "home"
    home.mkdir()
    spare = closed / "bin"
    spare.mkdir()
    spare_curl(spare)
    env = clean_env(home, API_PORT="0", METRICS_PORT=str(free_port())) | {
        "PATH": f"{os.defpath}:{spare}"
    }
    process = Process([RUNLANE, "dev"], env=env, cwd=folder)
    with served(process) as url:
        yield Dev(folder, url, process, env)


@pytest.fixture(scope="module")
def customer(dev: Dev) -> Iterator[Customer]:
    with Customer(dev.url, dev.key) as customer:
        yield customer


def test_one_port_has_the_metrics_of_both_halves(dev: Dev) -> None:
    def both_halves() -> bool:
        answer = httpx.get(f"http://127.0.0.1:{dev.env['METRICS_PORT']}/metrics", timeout=10)
        pools = set(
            re.findall(r'^runlane_pool_connections\{pool="(\w+)"', answer.text, re.MULTILINE)
        )
        return pools == {"api", "worker"}

    assert until(both_halves)


def test_printed_lines_submit_a_run_and_read_its_answer(dev: Dev) -> None:
    source, submit, read = (
        dev.printed(start)
        for start in (
            "source ",
            'curl -s "$RUNLANE_URL/api/v1/prompts/',
            'curl -s "$RUNLANE_URL/api/v1/promptruns/',
        )
    )

    readme = (ROOT / "README.md").read_text()
    assert all(f"  {command}\n" in readme for command in (source, submit, read))
    accepted = dev.types(source, submit)
    done = until(lambda: _completed(dev.types(source, read)))

    assert re.match(rf'{{"id":"{UUID}","thread":"{UUID}"', accepted)
    assert '"output" : "You said: Say hello to Ada."' in done


def test_printed_receiver_says_that_signatures_are_right(dev: Dev, customer: Customer) -> None:
    argv = dev.printed(".venv/bin/runlane receive").split()

    with Process(argv, env=dev.env, cwd=dev.folder) as receive:
        receive.says("Receiving webhooks at http://127.0.0.1:")
        run_id = customer.submit("greeting")
        told = receive.says(run_id)

    line = told.splitlines()[-1]
    assert f'signature ok  run.succeeded  run {run_id}  "You said: Say hello to Ada."' == line
    assert [] == [
        hook for hook in customer.http.get("/webhooks").json()["data"] if hook["description"]
    ]


def test_completed_run_has_output_tokens_and_cost_in_the_promised_shape(
    customer: Customer,
) -> None:
    run_id = customer.submit("greeting", {"name": "Zoë 🎈"})
    done = customer.finished(run_id)

    text = "You said: Say hello to Zoë 🎈."
    moments = [done.pop(name) for name in ("createdAt", "finishedAt")]
    usage, cost = done.pop("tokenUsage"), done.pop("cost")
    assert {
        "id": run_id,
        "status": "completed",
        "output": text,
        "emitted": [],
        "transcript": [{"type": "text", "content": text, "citations": []}],
        "error": None,
    } == done
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at) for at in moments)
    assert usage["input"] > 0
    assert usage["output"] > 0
    assert {
        "input": usage["input"],
        "inputCached": 0,
        "inputCacheWrite": 0,
        "output": usage["output"],
        "reasoning": 0,
        "total": usage["input"] + usage["output"],
        "serviceTier": None,
    } == usage
    assert {"success", "retries", "total"} == cost.keys()
    assert NO_PRICE.keys() == cost["success"].keys()
    assert NO_PRICE == cost["retries"]
    assert cost["total"] == cost["success"]["total"] > 0


def test_submission_answers_200_with_the_place_of_the_run(customer: Customer) -> None:
    answer = customer.http.post(
        "/prompts/story/production/runs",
        json={"inputs": {"topic": "a cat", "sentences": "two"}},
    )

    body = answer.json()
    assert (200, f"/api/v1/runs/{body['id']}") == (
        answer.status_code,
        answer.headers["location"],
    )
    customer.finished(body["id"])
    assert [
        {"role": "system", "content": "Write for children, in two sentences."},
        {"role": "user", "content": "Tell a story about a cat."},
    ] == customer.run(body["id"])["messages"]


def test_standard_webhook_verifies_and_carries_the_run(
    customer: Customer, receiver: Receiver
) -> None:
    secret = customer.webhook(receiver.url("/standard"))

    run_id = customer.submit("greeting")

    received = receiver.of_run("/standard", run_id)
    event = received.verified(secret)
    assert {"id", "type", "timestamp", "environment", "data"} == event.keys()
    assert (received.headers["webhook-id"], "run.succeeded", "production") == (
        event["id"],
        event["type"],
        event["environment"],
    )
    told = event["data"]["run"]
    assert (run_id, "succeeded", "You said: Say hello to Ada.") == (
        told["id"],
        told["status"],
        told["output"],
    )
    assert {"inputs", "messages", "attempts"}.isdisjoint(told)
    assert told["cost"] == customer.prompt_run(run_id)["cost"]


def test_promptjuggler_webhook_is_exactly_id_and_status(
    customer: Customer, receiver: Receiver
) -> None:
    secret = customer.webhook(receiver.url("/juggler"), format="promptjuggler")

    run_id = customer.submit("greeting")

    received = receiver.of_run("/juggler", run_id)
    assert f'{{"id":"{run_id}","status":"completed"}}'.encode() == received.body
    signed_at_s = received.promptjuggler_time_s(secret)
    assert signed_at_s is not None
    assert abs(signed_at_s - time.time()) < 60  # noqa: TID251 (a receiver's own clock)


def test_only_endpoints_of_the_runs_environment_fire(
    customer: Customer, receiver: Receiver
) -> None:
    customer.webhook(receiver.url("/production"), environments=["production"])
    customer.webhook(receiver.url("/staging"), environments=["staging"])
    customer.webhook(receiver.url("/everything"))

    first = customer.submit("greeting", environment="production")
    receiver.of_run("/everything", first)
    receiver.of_run("/production", first)
    second = customer.submit("greeting", environment="staging")
    receiver.of_run("/everything", second)
    receiver.of_run("/staging", second)
    third = customer.submit("greeting")
    receiver.of_run("/everything", third)
    receiver.of_run("/production", third)

    assert [first, third] == [received.run_id for received in receiver.at("/production")]
    assert [second] == [received.run_id for received in receiver.at("/staging")]
    assert [first, second, third] == [r.run_id for r in receiver.at("/everything")]


def test_failing_model_leaves_an_error_and_no_output(
    customer: Customer, receiver: Receiver
) -> None:
    customer.prompt("failing", "sim/500")
    standard = customer.webhook(receiver.url("/failed"))
    juggler = customer.webhook(receiver.url("/juggler-failed"), format="promptjuggler")

    run_id = customer.submit("failing")

    done = customer.finished(run_id)
    assert ("failed", None, [], "This model always fails.") == _ending(done)
    assert 3 == len(customer.run(run_id)["attempts"])
    event = receiver.of_run("/failed", run_id).verified(standard)
    assert ("run.failed", "failed") == (event["type"], event["data"]["run"]["status"])
    told = receiver.of_run("/juggler-failed", run_id)
    assert {"id": run_id, "status": "failed"} == told.document
    assert told.promptjuggler_time_s(juggler)


def test_once_failing_model_completes_and_keeps_error_and_cost(customer: Customer) -> None:
    customer.prompt("flaky", "sim/flaky")

    done = customer.finished(customer.submit("flaky"))

    text = "You said: Say hello to Ada."
    transcript = [{"type": "text", "content": text, "citations": []}]
    error = "The first call of each run fails here, after having been billed."
    assert ("completed", text, transcript, error) == _ending(done)
    cost = done["cost"]
    assert cost["retries"]["total"] > 0
    assert cost["total"] == pytest.approx(cost["success"]["total"] + cost["retries"]["total"])


def test_second_instance_names_the_first_ones_pid_and_url(dev: Dev) -> None:
    code, out, err = run(RUNLANE, "dev", env=dev.env, cwd=dev.folder)

    assert (1, "") == (code, out)
    assert 1 == len(err.splitlines())
    assert f"process {dev.process.pid} at {dev.url}" in err


def test_folders_stay_as_closed_as_they_were(dev: Dev, closed: Path) -> None:
    data = dev.folder / ".runlane"

    modes = [
        stat.S_IMODE(path.stat().st_mode)
        for path in (closed, data, data / "dev.env", data / "master.key")
    ]

    assert PATH_LENGTH == len(str(dev.folder))
    assert [0o700, 0o700, 0o600, 0o600] == modes


def _completed(printed: str) -> str | None:
    return printed if '"status" : "completed"' in printed else None


def _ending(run: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(run[name] for name in ("status", "output", "transcript", "error"))
