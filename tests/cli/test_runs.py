"""`runlane run` and `runlane runs` against a real API."""

import signal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from shared.deps import Deps
from tests.cli.served import Api, Shell
from tests.factories import Tenant, a_key, a_prompt
from tests.worker.lane_rig import until
from worker.main import WorkerProcess

NOBODY = "00000000-0000-7000-8000-000000000000"


async def _submitted(client: httpx.AsyncClient, **fields: object) -> str:
    body = {"inputs": {"name": "Ada"}, **fields}
    answer = await client.post("/prompts/greeting/1/runs", json=body)
    return str(answer.json()["id"])


async def test_a_run_is_submitted_with_all_that_was_typed(
    shell: Shell, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "name.txt").write_text("Ada\nLovelace\n")
    typed = await shell.type(
        *("run", "greeting", "1", "-i", f"name=@{tmp_path}/name.txt", "-i", "mail=@@ada=x"),
        *("-e", "production", "--lane", "onsite", "--model", "sim/slow", "-t", "a", "-t", "b"),
        *("--metadata", "order=17"),
    )

    run = (await client.get(f"/runs/{typed.out.strip()}")).json()
    assert (0, "") == (typed.code, typed.err)
    assert {"name": "Ada\nLovelace\n", "mail": "@ada=x"} == run["inputs"]
    assert ("production", "onsite", "sim/slow", ["a", "b"], {"order": "17"}) == (
        run["environment"],
        run["priority"],
        run["model"],
        run["tags"],
        run["metadata"],
    )


async def test_waiting_prints_the_answer_and_nothing_else(
    shell: Shell, worker: WorkerProcess
) -> None:
    typed = await shell.type("run", "greeting", "-i", "name=Ada", "--wait")

    assert (0, "") == (typed.code, typed.err)
    assert "Hello Ada" in typed.out


async def test_a_run_that_fails_says_why_and_ends_with_one(
    shell: Shell, worker: WorkerProcess
) -> None:
    typed = await shell.type("run", "greeting", "-i", "name=A", "--model", "sim/refuse", "--wait")

    assert (1, "") == (typed.code, typed.out)
    assert " is failed: " in typed.err
    assert 1 == len(typed.err.splitlines())


async def test_json_is_one_document(shell: Shell, worker: WorkerProcess) -> None:
    accepted = await shell.type("run", "greeting", "-i", "name=Ada", "--json")
    whole = await shell.type("run", "greeting", "-i", "name=Ada", "--wait", "--json")

    assert {"id", "thread", "status", "links"} == _keys(accepted.document)
    assert {"output", "attempts", "tokenUsage"} <= _keys(whole.document)


async def test_the_same_key_is_the_same_run(shell: Shell) -> None:
    words = ("run", "greeting", "-i", "name=Ada", "--idempotency-key", "order 17")

    first, second = await shell.type(*words), await shell.type(*words)
    other = await shell.type(*words, "-i", "more=x")

    assert first.out == second.out
    assert (1, True) == (other.code, "(idempotency_key_reused, request " in other.err)


async def test_time_that_is_up_leaves_the_run_alone(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    typed = await shell.type("run", "greeting", "-i", "name=Ada", "--timeout", "1", "--json")

    run: Any = typed.document
    assert (1, "queued") == (typed.code, run["status"])
    assert f"goes on. Look at it with: runlane runs show {run['id']}" in typed.err
    assert "queued" == (await client.get(f"/runs/{run['id']}")).json()["status"]


async def test_ctrl_c_while_waiting_leaves_the_run_and_says_how_to_look(
    shell: Shell, served: Api, client: httpx.AsyncClient
) -> None:
    child = shell.start("run", "greeting", "-i", "name=Ada", "--wait")
    await _waited_for(served)

    child.send(signal.SIGINT)
    code = await child.ended()

    (run,) = (await client.get("/runs")).json()["data"]
    told = f"Run {run['id']} goes on. Look at it with: runlane runs show {run['id']}\n"
    assert (130, told, "queued") == (code, child.log.read_text(), run["status"])


async def test_a_restart_of_the_api_is_waited_through(
    shell: Shell, served: Api, worker: WorkerProcess
) -> None:
    words = ("--model", "sim/slow", "--wait")
    child = shell.start("run", "greeting", "-i", "name=Ada", *words)
    await _waited_for(served)

    await served.stop()
    await served.start()

    assert 0 == await child.ended()
    assert "Hello Ada" in child.log.read_text()


async def test_the_list_takes_every_filter_of_the_api(
    shell: Shell, client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant, "other")
    thread = "0190a5c0-0000-7000-8000-000000000001"
    wanted = await _submitted(
        client, tags=["x"], metadata={"order": "17"}, priority="low", thread=thread
    )
    await _submitted(client)

    filters = [
        ("--prompt", "greeting", "--tag", "x"),
        ("--version", "1", "--metadata", "order=17"),
        ("--environment", "production", "--lane", "low"),
        ("--status", "queued", "--status", "running", "--thread", thread),
    ]
    for given in filters:
        typed = await shell.type("runs", "list", *given)
        assert [wanted] == [line.split("\t")[0] for line in typed.out.splitlines()], given
    for empty in (
        ("--created-before", "2020-01-01T00:00:00Z"),
        ("--created-after", "2100-01-01T00:00:00Z"),
        ("--prompt", "other"),
        ("--status", "failed"),
    ):
        assert "" == (await shell.type("runs", "list", *empty)).out


async def test_the_list_follows_cursors_as_far_as_asked(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    item = {"prompt": "greeting", "version": 1, "inputs": {"name": "Ada"}}
    await client.post("/runs/batch", json={"runs": [item] * 230})

    counts = [
        len((await shell.type("runs", "list", *given)).out.splitlines())
        for given in ((), ("--limit", "150"), ("--all",), ("--all", "--json"))
    ]

    assert [20, 150, 230, 230] == counts


async def test_show_is_readable_and_json_is_the_whole_run(
    shell: Shell, client: httpx.AsyncClient, worker: WorkerProcess
) -> None:
    made = await shell.type("run", "greeting", "-i", "name=Ada", "--wait", "--json")
    run: Any = made.document

    shown = await shell.type("runs", "show", run["id"])
    whole = await shell.type("runs", "show", run["id"], "--json")

    lines = shown.out.splitlines()
    assert [f"Run\t{run['id']}", "Status\tsucceeded"] == lines[:2]
    assert "Inputs\tname=Ada" in lines
    assert [True] == [line.startswith("1\tsucceeded\t") for line in lines if "sim/echo\t" in line]
    assert shown.out.endswith(f"\n\n{run['output']}\n")
    assert (await client.get(f"/runs/{run['id']}")).json() == whole.document


async def test_cancel_says_what_became_of_each_and_names_the_unknown(
    shell: Shell, client: httpx.AsyncClient
) -> None:
    first, second = await _submitted(client), await _submitted(client)

    typed = await shell.type("runs", "cancel", first, NOBODY, second)

    assert 1 == typed.code
    assert {f"{first}\tcanceled", f"{second}\tcanceled"} == set(typed.out.splitlines())
    assert f"Run {NOBODY}: " in typed.err
    assert typed.err.endswith("\n1 of 3 could not be done.\n")


async def test_a_replay_is_a_new_run_that_may_be_waited_for(
    shell: Shell, client: httpx.AsyncClient, worker: WorkerProcess
) -> None:
    old = await _submitted(client)

    typed = await shell.type("runs", "replay", old, "--version", "current", "--wait", "--json")

    new: Any = typed.document
    assert (0, old, "succeeded") == (typed.code, new["replayedFrom"], new["status"])


async def test_waiting_for_several_says_how_each_ended(
    shell: Shell, client: httpx.AsyncClient, worker: WorkerProcess
) -> None:
    good, bad = await _submitted(client), await _submitted(client, model="sim/refuse")

    both = await shell.type("runs", "wait", good, bad)
    one = await shell.type("runs", "wait", good)

    assert {f"{good}\tsucceeded", f"{bad}\tfailed"} == set(both.out.splitlines())
    assert (1, "1 of 2 did not succeed.\n") == (both.code, both.err)
    assert (0, "") == (one.code, one.err)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "nothing"), 1, "Prompt nothing, version __latest__: "),
        (("run", "greeting", "7"), 1, "Prompt greeting, version 7: "),
        (("run", "greeting"), 1, "Inputs are missing: name. (missing_inputs, request "),
        (("run", "greeting", "-i", "name"), 2, "'name' is no name=value"),
        (("run", "greeting", "-i", "name=@/nowhere/x"), 2, "/nowhere/x cannot be read"),
        (("run", "greeting", "-i", "a=1", "-i", "a=2"), 2, "'a' is given twice"),
        (("run", "greeting", "-i", "name=A", "-e", "x"), 1, "(unknown_environment, request "),
        (("runs", "show", NOBODY), 1, f"Run {NOBODY}: "),
        (("runs", "show", "nonsense/../x"), 1, "Run nonsense/../x: "),
        (("runs", "list", "--thread", "x"), 1, "(bad_request, request "),
        (("runs", "list", "--status", "nonsense"), 2, "nonsense"),
        (("runs", "wait", NOBODY), 1, f"Run {NOBODY}: "),
    ],
)
async def test_what_will_not_do_is_said_in_a_sentence(
    shell: Shell, words: tuple[str, ...], code: int, said: str
) -> None:
    typed = await shell.type(*words)

    assert (code, "") == (typed.code, typed.out)
    assert said in " ".join(typed.err.split())
    assert "Traceback" not in typed.err


async def test_keys_and_servers_that_will_not_do_have_exit_codes_of_their_own(
    shell: Shell, deps: Deps, tenant: Tenant
) -> None:
    reader, _ = await a_key(deps, tenant.workspace_id, ("prompts:read",))

    wrong = await shell.type("runs", "list", RUNLANE_API_KEY="rl_wrong")
    scope = await shell.type("runs", "list", RUNLANE_API_KEY=reader)
    away = await shell.type("runs", "list", "--url", "127.0.0.1:9")
    unset = await shell.type("runs", "list", RUNLANE_URL="", RUNLANE_API_KEY="")

    assert [1, 1, 3, 2] == [one.code for one in (wrong, scope, away, unset)]
    assert "does not accept the key" in wrong.err
    assert "runs:read" in scope.err
    assert "connection refused" in away.err
    assert unset.err.startswith("Which server? Set RUNLANE_URL")
    assert [1] * 4 == [len(one.err.splitlines()) for one in (wrong, scope, away, unset)]


async def _waited_for(served: Api) -> None:
    """Wait until the command has its run's id and asks for the end."""
    await until(lambda: served.asked["GET", "run"] > 0, 20)


def _keys(document: object) -> set[str]:
    return set(msgspec.convert(document, dict[str, Any]))
