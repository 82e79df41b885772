"""`runlane dev` is killed, started again, and ended in order: nothing is lost, nothing stays."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import dev_env
from tests.e2e.customer import Customer
from tests.e2e.fake_vendors import FakeVendors
from tests.e2e.processes import (
    RUNLANE,
    Process,
    as_ordinary_user,
    clean_env,
    hand_over,
    servers_in,
    url_of,
)
from tests.e2e.receiver import Receiver
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("e2e-restarts")

HANGING, QUICK = 12, 40
QUESTION = {"question": "time"}
# Times as in production would let the dead worker's lease last half a minute.
SHORT_TIMES = {"LEASE_S": "4", "RENEW_S": "0.5", "SELF_FENCE_S": "3.2", "REAP_S": "0.2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an ordinary user."""
    folder = tmp_path_factory.mktemp("e2e restarts")
    hand_over(folder)
    return folder


@pytest.fixture(scope="module")
def dev(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Dev"]:
    with FakeVendors(tmp_path_factory.mktemp("home")) as vendors:
        dev = Dev(folder, vendors)
        yield dev
        dev.close()


class Dev:
    """`runlane dev` of an ordinary user, started as often as a test likes."""

    def __init__(self, folder: Path, vendors: FakeVendors) -> None:
        self.folder = folder
        self.vendors = vendors
        self.data_dir = folder / ".runlane"
        self.process = self._started()

    def kill_and_start(self) -> None:
        """SIGKILL it, leaving its servers behind, and start it again at once."""
        self.process.kill()
        self.process.forget()
        self.process = self._started()

    def customer(self) -> Customer:
        env = dev_env.read(self.data_dir / "dev.env")
        return Customer(env["RUNLANE_URL"], env["RUNLANE_API_KEY"])

    def close(self) -> None:
        self.process.__exit__()

    def _started(self) -> Process:
        # No slot beside the hanging runs', so that the quick ones wait when the process dies.
        slots = {"SLOTS": str(HANGING), "LANE_FLOORS": "[0, 0, 0]"}
        env = clean_env(self.folder, API_PORT="0", **slots, **SHORT_TIMES, **self.vendors.env())
        process = Process(as_ordinary_user([RUNLANE, "dev"]), env=env, cwd=self.folder)
        url_of(process)
        return process


def test_killed_and_started_again_it_answers_for_every_run_and_finishes_it(
    dev: Dev, receiver: Receiver
) -> None:
    with dev.customer() as before:
        secret = before.webhook(receiver.url("/killed"))
        hanging = [
            before.submit("slow", QUESTION, model="openai/mock-hang") for _ in range(HANGING)
        ]
        until(lambda: len(dev.vendors.calls()) == HANGING, otherwise=dev.process.said)
        quick = [before.submit("greeting", {"name": str(number)}) for number in range(QUICK)]
        statuses = Counter(before.run(run_id)["status"] for run_id in hanging + quick)

    dev.kill_and_start()

    with dev.customer() as after:
        answered = [after.prompt_run(run_id)["id"] for run_id in hanging + quick]
        dev.vendors.release()
        done = after.all_finished(hanging + quick)
        outcomes = [_outcomes(after.run(run_id)) for run_id in hanging + quick]
    assert {"running": HANGING, "queued": QUICK} == statuses
    assert hanging + quick == answered
    assert {"completed"} == {run["status"] for run in done}
    assert [f"You said: Say hello to {number}." for number in range(QUICK)] == [
        run["output"] for run in done[HANGING:]
    ]
    assert [["lost", "succeeded"]] * HANGING + [["succeeded"]] * QUICK == outcomes
    told = until(lambda: _all_told(receiver, hanging + quick))
    assert {1} == set(told.values())
    assert {"run.succeeded"} == {r.verified(secret)["type"] for r in receiver.at("/killed")}


def test_no_server_is_left_after_an_orderly_end(dev: Dev) -> None:
    assert any("valkey-server" in command for command in servers_in(dev.data_dir))
    assert any("postgres" in command for command in servers_in(dev.data_dir))

    dev.process.send(signal.SIGTERM)
    code = dev.process.end()

    assert 0 == code
    assert [] == servers_in(dev.data_dir)
    assert "Traceback" not in dev.process.said()


def _outcomes(run: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in run["attempts"]]


def _all_told(receiver: Receiver, run_ids: list[str]) -> "Counter[str] | None":
    told = Counter(received.run_id for received in receiver.at("/killed"))
    return told if set(run_ids) <= told.keys() else None
