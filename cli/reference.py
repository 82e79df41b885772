"""`make docs`: the pages of `docs/reference/` that are made from the code."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from api import examples, openapi
from api.app import create_litestar
from api.auth import SCOPE
from api.error_catalog import REQUEST_ERRORS
from api.run_error_catalog import RUN_ERRORS
from cli import reference_database
from cli.main import app as command_line
from shared import metrics
from shared.domain import audit, parameters
from shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
ENV_EXAMPLE = ROOT / "deploy" / "env.example"
REQUIRED = ("database_url", "redis_url", "master_key")
TESTS = "For tests"
_MADE = "<!-- Made from the code by `make docs`: change the code, not this page. -->"
_TARGET = re.compile(r"^(?P<name>[a-z][a-z0-9-]*):(?!=).*?## (?P<text>.+)$", re.MULTILINE)
_SECTION = re.compile(r"^    # (?P<section>.+)$|^    (?P<field>[a-z_]+): ", re.MULTILINE)


def main() -> None:
    """Write every page that differs from the code, and the example of an environment."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = {FOLDER / name: text for name, text in pages().items()}
    for path, text in (made | {ENV_EXAMPLE: env_example()}).items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"Wrote {path.relative_to(ROOT)}.", file=sys.stderr)


def pages() -> Mapping[str, str]:
    """Every page's text, by its file's name."""
    made: Mapping[str, Callable[[], Iterable[str]]] = {
        "audit.md": _audit,
        "cli.md": _cli,
        "database.md": reference_database.lines,
        "errors.md": _errors,
        "events.md": _events,
        "make.md": _make,
        "parameters.md": _parameters,
        "metrics.md": _metrics,
        "routes.md": _routes,
        "settings.md": _settings,
    }
    return {name: "\n".join((_MADE, "", *lines())).rstrip() + "\n" for name, lines in made.items()}


def env_example() -> str:
    """Every setting as a line of an environment file, commented out where it has a default."""
    lines = [
        "# Made from the code by `make docs`: change the code, not this file.",
        "# Every setting with its default; docs/reference/settings.md has them as a table.",
    ]
    for section, names in _sections():
        if section == TESTS:
            continue
        lines += ["", f"## {section}"]
        for name in names:
            field = Settings.model_fields[name]
            value = _default(field).strip("`")
            mark = "" if name in REQUIRED else "#"
            lines += [f"# {_one_line(str(field.description))}", f"{mark}{name.upper()}={value}"]
    return "\n".join(lines) + "\n"


def _settings() -> Iterable[str]:
    yield "# Settings"
    yield ""
    yield (
        "Read once, at start, from environment variables. Durations end in `_S` and are seconds;"
        " lists are separated by commas, but for those of three, which stand in brackets."
        " Where a value cannot be used, the process says so in one sentence and exits with 1."
    )
    for section, names in _sections():
        yield ""
        yield f"## {section}"
        yield ""
        rows = [
            (
                f"`{name.upper()}`",
                _default(Settings.model_fields[name]),
                str(Settings.model_fields[name].description),
            )
            for name in names
        ]
        yield from table(("Variable", "Default", "Meaning"), rows)


def _sections() -> Iterable[tuple[str, Sequence[str]]]:
    """The settings under the headings that stand as comments in their class."""
    section, found = "Settings", list[tuple[str, str]]()
    for match in _SECTION.finditer(inspect.getsource(Settings)):
        section = match["section"] or section
        if match["field"] in Settings.model_fields:
            found.append((section, match["field"]))
    for heading, pairs in groupby(found, key=lambda pair: pair[0]):
        yield heading, [name for _, name in pairs]


def _default(field: FieldInfo) -> str:
    """Write a default as it would stand in the environment."""
    value = "" if field.default is None else field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        text = ",".join(f"{one:g}" for one in value)
        text = text if NoDecode in field.metadata else f"[{text}]"
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else ""


def _errors() -> Iterable[str]:
    yield "# Errors"
    yield ""
    yield (
        "Every error is a problem document (RFC 9457, `application/problem+json`) with `type`,"
        " `title`, `status`, `detail`, `code`, `requestId`, `errors` (RFC 6901 pointers into the"
        " body) and `error` (`detail` again). Compare `code`: it is stable; texts are not."
        " A running server shows this list at `/docs/errors`."
    )
    yield ""
    yield "## Of requests"
    yield ""
    rows = [
        (
            f"`{error.code}`",
            str(error.status),
            error.meaning + (" Reserved: not sent by this version." if error.reserved else ""),
            error.remedy,
        )
        for error in REQUEST_ERRORS
    ]
    yield from table(("Code", "Status", "Meaning", "What helps"), rows)
    yield ""
    yield "## Of runs"
    yield ""
    yield (
        "A failed run says why in `error` (`code`, `message`, `origin`), each of its attempts"
        " likewise. `origin` tells who has to act: `caller`, `template`, `provider`, `platform` or"
        " `policy`."
    )
    yield ""
    runs = [(f"`{error.code}`", error.origin, error.meaning) for error in RUN_ERRORS]
    yield from table(("Code", "Origin", "Meaning"), runs)


def _events() -> Iterable[str]:
    document = openapi.document(create_litestar())
    yield "# Events"
    yield ""
    yield (
        "An event is written in the transaction that ends a run, and delivered to every webhook"
        " endpoint that wants its type and its environment. A `ping` is sent to one endpoint, when"
        " somebody asks for it. `GET /api/v1/events` has the same bodies in a fixed order."
    )
    yield ""
    yield from table(
        ("Event", "Meaning"), [(f"`{event.name}`", event.meaning) for event in examples.EVENTS]
    )
    for event in examples.EVENTS:
        hook = document["webhooks"][event.name]["post"]
        example = hook["requestBody"]["content"]["application/json"]["example"]
        yield ""
        yield f"## {event.name}"
        yield ""
        yield from table(
            ("Header", "Meaning"), [(f"`{name}`", text) for name, text in event.headers]
        )
        yield ""
        yield "```json"
        yield json.dumps(example, indent=2, ensure_ascii=False)
        yield "```"


def _routes() -> Iterable[str]:
    application = create_litestar()
    yield "# Routes"
    yield ""
    yield (
        "Everything the API answers. Parameters, bodies and examples are at `/docs` of a running"
        " server, and in its OpenAPI document, `/openapi.json`. A scope ending in `:write`"
        " includes the one ending in `:read`; `admin` includes all."
    )
    found = sorted(openapi.operations(application), key=openapi.place)
    for noun, group in groupby(found, key=lambda one: one.noun):
        yield ""
        yield f"## {noun.capitalize()}"
        yield ""
        rows = [
            (
                f"`{one.method.upper()} {one.path}`",
                _sentence(one.handler.fn),
                f"`{one.handler.opt[SCOPE]}`" if SCOPE in one.handler.opt else "",
            )
            for one in group
        ]
        yield from table(("Route", "What it does", "Scope"), rows)
    others = {
        (f"`{one.method.upper()} {one.path}`", _sentence(one.handler.fn))
        for one in openapi.operations(application, described=False)
        if one.handler.fn.__module__.startswith("api.")
    }
    yield ""
    yield "## Without a key"
    yield ""
    yield from table(("Route", "What it does"), sorted(others))


def _audit() -> Iterable[str]:
    yield "# The audit"
    yield ""
    yield (
        "`GET /api/v1/audit` lists who did what to the workspace, newest first: the moment by the"
        " database's clock, the key with the name it had, what it was done to, the id of the"
        " request. An entry is written in the transaction that does the thing, so there is neither"
        " without the other; what was refused, or changed nothing, leaves none. `details` hold no"
        " secret and no text of a template. It takes the scope `admin`; a key that is limited to"
        " environments sees what concerns those alone. What the operator did to the workspace from"
        " the command line has the actor `operator`; lanes and master keys concern every workspace"
        " and are shown to none, but stand in the table `audit_log`. Submitting, canceling and"
        " replaying runs is use, not change: the runs themselves say when, and by which key they"
        " were made. Entries are kept for good: this version removes none."
    )
    yield ""
    yield from table(
        ("Action", "What happened"), [(f"`{one}`", audit.MEANINGS[one]) for one in audit.Action]
    )


def _make() -> Iterable[str]:
    yield "# Make targets"
    yield ""
    yield (
        "`make` alone lists them too. Each sets up what it needs in `.venv` first; Python 3.11 or"
        " newer and make are all a machine has to have."
    )
    yield ""
    rows = [
        (f"`make {match['name']}`", match["text"])
        for match in _TARGET.finditer((ROOT / "Makefile").read_text())
    ]
    yield from table(("Target", "What it does"), rows)


def _parameters() -> Iterable[str]:
    yield "# Model parameters"
    yield ""
    yield (
        "What `modelParams` of a template and `params` of a run may name, by the provider of the"
        " model, and what becomes of it in the request. Servers of `PROVIDERS` are like OpenAI, but"
        " that they are told `max_tokens`. What a provider does not take is refused with 422 when"
        " the version is saved or the run is submitted, never left out; with `fallbacks` every"
        " model has to take it. `modelParams.sim` steers the simulated provider, and nobody else."
    )
    yield ""
    vendors = (parameters.Kind.OPENAI, parameters.Kind.ANTHROPIC)
    rows = [
        (f"`{name}`", *(_taken(parameters.TAKEN[kind].get(field)) for kind in vendors))
        for field, name in parameters.OUTSIDE.items()
    ]
    yield from table(("Parameter", "`openai/…`", "`anthropic/…`"), rows)


def _taken(taken: parameters.Taken | None) -> str:
    if taken is None:
        return "refused"
    said = f"`{taken.name}`"
    if taken.most is not None:
        said += f", up to {taken.most:g}"
    if taken.words is not None:
        said += ": " + ", ".join(
            f"`{word}`" if word == theirs else f"`{word}` (`{theirs}`)"
            for word, theirs in taken.words.items()
        )
    return said


def _metrics() -> Iterable[str]:
    yield "# Metrics"
    yield ""
    yield (
        "Each process answers `GET /metrics` on a port of its own, `METRICS_PORT`, in the format of"
        " Prometheus; how to set that up is told in [Watch it](../how-to/watch-it.md). All"
        " processes have all of them: what a process does not do stays at 0, or has no series."
        " Levels of lanes, pauses and dependencies are the same in every process, so take their"
        " `max`; add up the rest. Counters begin at 0 with their process, and what a process"
        " counted while its commit's answer got lost may be missing: the truth is in the database."
        " No label holds what a tenant chose, but for models: those the price book knows have"
        f" series of their own, up to {metrics.MAX_MODELS} a process; all others are"
        f" `{metrics.OTHER}`."
    )
    yield ""
    rows = [
        (f"`{one.name}`", one.kind, ", ".join(f"`{name}`" for name in one.labels), one.text)
        for one in metrics.DESCRIBED
    ]
    yield from table(("Metric", "Kind", "Labels", "Meaning"), rows)
    yield ""
    yield (
        "A histogram is queried as `…_bucket` (with the label `le`), `…_sum` and `…_count`."
        " Linux adds `process_cpu_seconds_total`, `process_resident_memory_bytes`,"
        " `process_virtual_memory_bytes`, `process_start_time_seconds`, `process_open_fds` and"
        " `process_max_fds`."
    )


def _cli() -> Iterable[str]:
    yield "# The command line"
    yield ""
    yield (
        "`runlane` reads its [settings](settings.md) from the environment. What goes wrong is said"
        " in one sentence on standard error, with exit status 1."
    )
    yield ""
    yield (
        "Commands with `--url` and `--key` speak to a server over its API, and exit with 0 when all"
        " is well, 1 when the server refused or a run did not succeed, 2 when what was typed or set"
        " will not do, 3 when no Runlane answers, and 130 after Ctrl-C. `--json` prints one JSON"
        " document, or one a line for lists, and nothing else. Tables are for terminals: through a"
        " pipe there are no headings, and tabs between the columns."
    )
    for name, command in _commands("runlane", typer.main.get_command(command_line)):
        yield ""
        yield f"## `{name}`"
        yield ""
        yield _one_line(command.help or "")
        rows = [
            (_parameter(one), _one_line(getattr(one, "help", None) or ""))
            for one in command.params
            if one.name != "help"
        ]
        if rows:
            yield ""
            yield from table(("Parameter", "Meaning"), rows)


def _commands(name: str, command: Any) -> Iterable[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, inner in below.items():
        yield from _commands(f"{name} {word}", inner)


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _sentence(function: Any) -> str:
    return _one_line((inspect.getdoc(function) or "").partition("\n\n")[0])


def _one_line(text: str) -> str:
    return " ".join(text.split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Write a table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    main()
