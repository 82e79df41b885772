"""`runlane runs submit`: each line of a file becomes one run, whatever happens on the way."""

import json
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.deps import Deps
from tests.cli.served import Api, Shell
from tests.e2e.processes import ROOT
from tests.factories import Tenant, a_prompt
from tests.faults.processes import Child
from tests.worker.lane_rig import until
from worker.main import WorkerProcess

MANY = 10_000
BATCH = ("POST", "batch")
BLOCK = re.compile(r"^```(json|sh)\n(runlane .*?|\{.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    return tmp_path / "inputs.jsonl"


def _put(path: Path, text: str) -> None:
    path.write_text(text)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, rows: Sequence[object]) -> None:
    _put(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _as_windows_does(path: Path) -> None:
    """A byte order mark, other ends of lines, and a blank line behind each."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))


def _names(count: int) -> list[dict[str, str]]:
    return [{"name": f"n{number}"} for number in range(1, count + 1)]


def _results(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head of a file of results, and its lines."""
    head, *rows = (json.loads(line) for line in path.read_text().splitlines())
    return head, rows


async def _stored(deps: Deps) -> Mapping[str, str]:
    """The runs there are: id → the name it was given."""
    rows = await deps.store.fetch("SELECT id, inputs->>'name' FROM runs", {})
    return {str(run_id): str(name) for run_id, name in rows}


def _words(inputs: Path, *more: str) -> tuple[str, ...]:
    return ("runs", "submit", "--file", str(inputs), "--prompt", "greeting", *more)


async def _goes_on(shell: Shell, inputs: Path, deps: Deps) -> None:
    """Repeat the command to its end; then each line is one run, and the results say which."""
    again = await shell.type(*_words(inputs))
    stored = await _stored(deps)
    _, rows = _results(inputs.with_name("inputs.jsonl.runs.jsonl"))

    assert 0 == again.code, again.err
    assert MANY == len(stored)
    assert list(range(1, MANY + 1)) == [row["line"] for row in rows]
    assert [f"n{number}" for number in range(1, MANY + 1)] == [stored[row["id"]] for row in rows]


async def test_ten_thousand_lines_interrupted_in_every_way_become_a_run_each(
    shell: Shell, served: Api, inputs: Path, deps: Deps
) -> None:
    _write(inputs, _names(MANY))
    results = inputs.with_name("inputs.jsonl.runs.jsonl")

    stopped = await _started(shell, served, inputs, batches=1)
    stopped.send(signal.SIGINT)
    assert 130 == await stopped.ended()
    assert "The same command again goes on" in stopped.log.read_text()

    killed = await _started(shell, served, inputs, batches=1)
    await killed.kill()
    torn = await _started(shell, served, inputs, batches=2)
    await torn.kill()
    with results.open("a") as file:
        file.write('{"line":99999,"id":"01')

    restarted = await _started(shell, served, inputs, batches=1)
    await served.stop()
    results.unlink()
    await served.start()
    await restarted.kill()

    await _goes_on(shell, inputs, deps)


async def test_a_restart_of_the_server_in_the_middle_is_waited_through(
    shell: Shell, served: Api, inputs: Path, deps: Deps
) -> None:
    _write(inputs, _names(MANY))
    child = await _started(shell, served, inputs, batches=3)

    await served.stop()
    await served.start()

    assert 0 == await child.ended(within_s=60), child.last_words()
    await _goes_on(shell, inputs, deps)


async def _started(shell: Shell, served: Api, inputs: Path, *, batches: int) -> Child:
    """A command that has sent so many batches."""
    before = served.asked[BATCH]
    child = shell.start(*_words(inputs))
    await until(lambda: served.asked[BATCH] >= before + batches or not child.alive, 30)
    assert child.alive, child.last_words()
    return child


async def test_a_line_is_inputs_or_a_whole_submission(
    shell: Shell, inputs: Path, client: httpx.AsyncClient, deps: Deps, tenant: Tenant
) -> None:
    await a_prompt(deps, tenant, "other")
    _write(
        inputs,
        [
            {"name": "Ada", "inputs": "an input of this name"},
            {"inputs": {"name": "Bo"}, "prompt": "other", "priority": "onsite", "tags": ["own"]},
        ],
    )
    _as_windows_does(inputs)

    typed = await shell.type(*_words(inputs, "--lane", "low", "--tag", "all", "--json"))

    _, rows = _results(inputs.with_name("inputs.jsonl.runs.jsonl"))
    shown = [(await client.get(f"/runs/{row['id']}")).json() for row in rows]
    assert [1, 3] == [row["line"] for row in rows]
    assert [
        ({"name": "Ada", "inputs": "an input of this name"}, "greeting", "low", ["all"]),
        ({"name": "Bo"}, "other", "onsite", ["own"]),
    ] == [(run["inputs"], run["prompt"]["slug"], run["priority"], run["tags"]) for run in shown]
    made: Any = typed.document
    assert (0, 2, 2) == (typed.code, made["lines"], made["submitted"])


async def test_standard_input_is_taken_and_may_be_repeated(
    shell: Shell, inputs: Path, deps: Deps
) -> None:
    _write(inputs, _names(3))
    out = inputs.with_name("out.jsonl")
    words = ("runs", "submit", "-f", "-", "--prompt", "greeting", "--out", str(out))

    content = _read(inputs)
    first = await shell.pipe(content, *words)
    out.unlink()
    again = await shell.pipe(content, *words)

    assert [0, 0] == [first.code, again.code]
    _, rows = _results(out)
    assert {row["id"] for row in rows} == set(await _stored(deps))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"name": ', "Line 2: "),
        ('["Ada"]', "Line 2: The body must be a JSON object"),
        ('{"name": 1}', "Line 2: Expected `str`, got `int`"),
        ('{"name": "a", "name": "b"}', "Line 2: "),
        ('{"inputs": {"name": "a"}, "nonsense": 1}', "Line 2: Object contains unknown field"),
        ('{"inputs": {"name": "a"}, "priority": "urgent"}', "Line 2: Invalid enum value"),
        ('{"inputs": {"name": "a"}, "tags": ["a", "b\\u0000"]}', "Line 2: "),
        ('{"inputs": {"name": "a"}, "prompt": null}', "Line 2: it names no prompt"),
        ('{"name": "' + "x" * 8_000_000 + '"}', "Line 2: it is longer than 8,000,000 bytes"),
    ],
)
async def test_a_line_that_will_not_do_is_named_before_anything_is_sent(
    shell: Shell, served: Api, inputs: Path, line: str, said: str
) -> None:
    _put(inputs, f'{{"name": "Ada"}}\n{line}\n{{"name": "Bo"}}\n')

    typed = await shell.type(*_words(inputs))

    assert (2, "") == (typed.code, typed.out)
    assert typed.err.startswith(said)
    assert typed.err.splitlines()[-1].startswith("1 of 3 lines cannot be submitted, so nothing was")
    assert 0 == served.asked[BATCH]


async def test_bad_lines_may_be_left_out_and_are_kept_with_their_errors(
    shell: Shell, inputs: Path, deps: Deps
) -> None:
    _write(inputs, [{"name": "Ada"}, {"name": 1}, {"other": "x"}, {"name": "Bo"}])

    first = await shell.type(*_words(inputs, "--skip-bad"))
    again = await shell.type(*_words(inputs, "--skip-bad"))

    _, rows = _results(inputs.with_name("inputs.jsonl.runs.jsonl"))
    assert [1, 1] == [first.code, again.code]
    assert "2 lines were skipped" in again.err
    assert {"Ada", "Bo"} == set((await _stored(deps)).values())
    assert [None, "bad_line", "missing_inputs", None] == [
        row.get("error", {}).get("code") for row in rows
    ]
    assert 4 == len(rows)


async def test_a_line_the_server_refuses_can_be_mended_and_the_others_stay_submitted(
    shell: Shell, inputs: Path, deps: Deps
) -> None:
    rows: list[dict[str, str]] = _names(2500)
    _write(inputs, [*rows[:1499], {"nome": "typo"}, *rows[1500:]])

    refused = await shell.type(*_words(inputs))
    _write(inputs, rows)
    mended = await shell.type(*_words(inputs))

    assert 1 == refused.code
    assert "Line 1500: Inputs are missing: name. (missing_inputs at /inputs/name)" in refused.err
    assert 0 == mended.code
    assert sorted(row["name"] for row in rows) == sorted((await _stored(deps)).values())


async def test_a_file_of_results_is_never_mixed_up_with_another_batch(
    shell: Shell, inputs: Path, deps: Deps
) -> None:
    _write(inputs, _names(2))
    await shell.type(*_words(inputs))
    results = inputs.with_name("inputs.jsonl.runs.jsonl")
    before = _read(results)

    _write(inputs, [{"name": "n1"}, {"name": "changed"}])
    changed = await shell.type(*_words(inputs))
    _write(inputs, _names(1))
    shorter = await shell.type(*_words(inputs))
    _write(inputs, _names(2))
    renamed = await shell.type(*_words(inputs, "--name", "second"))
    elsewhere = await shell.type(
        *_words(inputs, "--url", shell.url.replace("127.0.0.1", "localhost"))
    )
    foreign = await shell.type(*_words(inputs, "--out", str(inputs)))

    assert [2] * 5 == [one.code for one in (changed, shorter, renamed, elsewhere, foreign)]
    assert "is of other lines: line 2" in changed.err
    assert "knows more lines" in shorter.err
    assert "is of the batch" in renamed.err
    assert "holds runs of" in elsewhere.err
    assert "is no file of results" in foreign.err
    assert (2, before) == (len(await _stored(deps)), _read(results))


async def test_another_name_runs_the_same_lines_again(
    shell: Shell, inputs: Path, deps: Deps
) -> None:
    _write(inputs, _names(2))
    out = str(inputs.with_name("second.jsonl"))

    await shell.type(*_words(inputs))
    await shell.type(*_words(inputs, "--out", out))
    assert 2 == len(await _stored(deps))
    await shell.type(*_words(inputs, "--out", f"{out}.2", "--name", "second"))

    assert 4 == len(await _stored(deps))


async def test_waiting_puts_every_output_into_the_results(
    shell: Shell, inputs: Path, worker: WorkerProcess
) -> None:
    _write(inputs, [*_names(40), {"inputs": {"name": "x"}, "model": "sim/nothing"}])

    first = await shell.type(*_words(inputs, "--wait"))
    results = inputs.with_name("inputs.jsonl.runs.jsonl")
    before = _read(results)
    again = await shell.type(*_words(inputs, "--wait"))

    _, rows = _results(results)
    assert [1, 1] == [first.code, again.code]
    assert "1 of 41 runs did not succeed" in first.err
    assert ["succeeded"] * 40 + ["failed"] == [row["status"] for row in rows]
    assert all(f"n{row['line']}" in row["output"] for row in rows[:40])
    assert before == _read(results)


async def test_large_lines_go_out_in_requests_that_the_server_takes(
    shell: Shell, served: Api, inputs: Path, deps: Deps
) -> None:
    _write(inputs, [{"name": f"n{n}", "text": "x," * 100_000} for n in range(30)])

    typed = await shell.type(*_words(inputs))

    assert (0, 30) == (typed.code, len(await _stored(deps))), typed.err
    assert 4 <= served.asked[BATCH]


async def test_an_empty_file_and_a_missing_one_are_told(shell: Shell, inputs: Path) -> None:
    missing = await shell.type(*_words(inputs))
    _put(inputs, "\n \n")
    empty = await shell.type(*_words(inputs))

    assert [2, 2] == [missing.code, empty.code]
    assert "cannot be read (No such file or directory)" in missing.err
    assert "There is no line to submit.\n" == empty.err


async def test_the_how_to_page_holds_as_it_is_written(
    shell: Shell, inputs: Path, deps: Deps
) -> None:
    page = (ROOT / "docs/how-to/submit-many-runs.md").read_text()
    blocks = dict(
        re.findall(r"^```(json|sh)\n(runlane .*?|\{.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    _put(inputs, blocks["json"])
    words = [str(inputs) if w == inputs.name else w for w in blocks["sh"].split()[1:]]

    typed = await shell.type(*words)

    assert 0 == typed.code, typed.err
    assert {"Ada", "Bo", "Cy"} == set((await _stored(deps)).values())
    _, rows = _results(inputs.with_name("inputs.jsonl.runs.jsonl"))
    assert [1, 2, 3] == [row["line"] for row in rows]
