"""Logs: one event a line, and no secret on it, whatever it came in as."""

import json
import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest
import structlog

from shared import log
from shared.domain import api_keys, signing
from shared.settings import Settings

KEY = api_keys.make().text
SECRET = signing.new_secret()
CANARIES = {
    "our key": KEY,
    "webhook secret": SECRET,
    "vendor's key": "sk-proj-abcdefghijklmnop_-123",
    "bearer": "Bearer abc.DEF-123",
    "password in a URL": "postgres://user:hunter22@db:5432/x",
    "password with an @": "redis://:hunt@er22@cache",
}
HIDDEN = {name: text.split("://")[-1].split("@")[0] for name, text in CANARIES.items()}


def _scrubbed(**fields: object) -> dict[str, Any]:
    scrubbed = log.scrub(None, "info", {"event": "it_happened", **fields})
    assert isinstance(scrubbed, dict)
    return scrubbed


def test_who_complains_of_each_attempt_to_send_spans_is_heard_once() -> None:
    program = """
import logging
from shared import log
log.configure(as_json=True)
for number in range(3):
    logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").warning("away")
"""

    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert ["away"] == [json.loads(line)["event"] for line in done.stderr.splitlines()]


@pytest.mark.parametrize("name", CANARIES)
@pytest.mark.parametrize(
    "wrap",
    [
        str,
        lambda text: f"before {text} after",
        lambda text: [text],
        lambda text: ({"deep": [{"deeper": text}]},),
        lambda text: {"a": text},
        lambda text: text.encode(),
        lambda text: {text},
        ValueError,
    ],
)
def test_what_looks_like_a_secret_is_hidden_anywhere(name: str, wrap: Any) -> None:
    shown = json.dumps(_scrubbed(detail=wrap(CANARIES[name])))

    assert HIDDEN[name] not in shown
    assert "er22" not in shown
    assert "[hidden]" in shown


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "password",
        "db_password",
        "client_secret",
        "secrets",
        "token",
        "access_token",
        "api_key",
        "apikey",
        "openai_api_key",
        "master_key",
        "Set-Cookie",
        "webhook-signature",
    ],
)
def test_what_a_secret_name_holds_is_hidden_whatever_it_is(name: str) -> None:
    shown = _scrubbed(**{name: "plain"}, outer={name: ["plain", {"x": "plain"}]})

    assert "[hidden]" == shown[name]
    assert {name: "[hidden]"} == shown["outer"]


def test_a_secret_in_the_event_itself_is_hidden() -> None:
    scrubbed = log.scrub(None, "info", {"event": f"got {KEY}"})

    assert {"event": "got [hidden]"} == scrubbed


def test_what_is_no_secret_stays_as_it_is() -> None:
    run_id = uuid4()
    fields = {
        "runs": 3,
        "age_s": 0.5,
        "ok": True,
        "nothing": None,
        "token_usage": {"input": 3},
        "key_id": "a",
        "url": "https://example.com/a:b@c",
        "text": "rl_short, sk-, whsec_, Bearer",
        "ids": [str(run_id)],
    }

    assert {"event": "it_happened", **fields} == _scrubbed(**fields)
    assert str(run_id) == _scrubbed(run_id=run_id)["run_id"]


def test_what_postgresql_quotes_of_a_row_or_a_document_is_hidden() -> None:
    error = (
        "unsupported Unicode escape sequence\nDETAIL:  Failing row contains (my prompt).\n"
        'CONTEXT:  JSON data, line 1: {"name":"my prompt...'
    )

    shown = _scrubbed(error=error)["error"]

    assert "my prompt" not in shown
    assert shown.startswith("unsupported Unicode escape sequence")


def test_settings_do_not_print_their_secrets() -> None:
    settings = Settings(
        database_url=CANARIES["password in a URL"], master_key="k:abc", openai_api_key=KEY
    )

    shown = f"{settings!r} {settings} {settings.model_dump()} {_scrubbed(settings=settings)}"

    assert "hunter22" not in shown
    assert KEY not in shown
    assert "k:abc" not in shown


_PROGRAM = """
import logging
from shared import log
log.configure("INFO", as_json=True)
ours = log.get("tests")
ours.debug("not_shown")
ours.info("it_happened", run_id="r", detail="{secret}")
try:
    raise ValueError("{secret}")
except ValueError:
    ours.exception("it_broke")
logging.getLogger("a.library").info("not shown")
logging.getLogger("a.library").warning("they say %s", "{secret}")
try:
    raise ValueError("{secret}")
except ValueError:
    logging.getLogger("a.library").exception("they broke")
"""


def test_a_process_writes_one_json_object_a_line_to_standard_error() -> None:
    program = _PROGRAM.replace("{secret}", SECRET)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert "" == ended.stdout
    assert ["it_happened", "it_broke", "they say [hidden]", "they broke"] == [
        line["event"] for line in lines
    ]
    assert ["info", "error", "warning", "error"] == [line["level"] for line in lines]
    assert ["tests", "tests"] == [line["module"] for line in lines[:2]]
    assert ["a.library", "a.library"] == [line["logger"] for line in lines[2:]]
    assert "ValueError" in lines[1]["exception"]
    assert "ValueError" in lines[3]["exception"]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert SECRET not in ended.stderr


def test_a_spell_is_reported_when_it_begins_and_when_it_is_over() -> None:
    with structlog.testing.capture_logs() as lines:
        spell = log.Spell(structlog.get_logger(), "away", "back")
        spell.went_well()
        for _ in range(3):
            spell.failed(ValueError("no"))
        for _ in range(3):
            spell.went_well()

    assert [("away", "ValueError", None), ("back", None, 3)] == [
        (line["event"], line.get("error"), line.get("failures")) for line in lines
    ]
