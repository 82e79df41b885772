"""Settings: read from the environment once, checked at start, never changed."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.settings import Settings


def _read(tmp_path: Path, *lines: str) -> Settings:
    file = tmp_path / "env"
    file.write_text("\n".join(lines))
    return Settings(_env_file=file)


def test_names_are_the_environments_in_upper_case(tmp_path: Path) -> None:
    settings = _read(
        tmp_path,
        "DATABASE_URL=postgresql://u:p@h/d",
        "LEASE_S=7.5",
        "DEV_MODE=true",
        "SLOTS=12",
        "DATA_DIR=/var/lib/runlane",
        "SOMETHING_ELSE=ignored",
    )

    assert "postgresql://u:p@h/d" == settings.database_url.get_secret_value()
    assert (7.5, True, 12, Path("/var/lib/runlane")) == (
        settings.lease_s,
        settings.dev_mode,
        settings.slots,
        settings.data_dir,
    )


def test_lists_are_separated_by_commas(tmp_path: Path) -> None:
    settings = _read(
        tmp_path, "WEBHOOK_ALLOW_CIDRS=10.0.0.0/8, ::1/128,", "WEBHOOK_SCHEDULE_S=0, 1.5,60"
    )

    assert (IPv4Network("10.0.0.0/8"), IPv6Network("::1/128")) == settings.webhook_allow_cidrs
    assert (0, 1.5, 60) == settings.webhook_schedule_s


@pytest.mark.parametrize(
    "line",
    [
        "LEASE_S=0",
        "LEASE_S=-1",
        "LEASE_S=soon",
        "SLOTS=0",
        "SLOTS=1.5",
        "API_PORT=65536",
        "MAX_ATTEMPTS=21",
        "MAX_ATTEMPTS=0",
        "IDEMPOTENCY_DAYS=31",
        "CALL_TIMEOUT_S=3601",
        "WEBHOOK_JITTER=1.1",
        "WEBHOOK_ALLOW_CIDRS=10.0.0.1/8",
        "WEBHOOK_ALLOW_CIDRS=everywhere",
        "WEBHOOK_SCHEDULE_S=0,later",
    ],
)
def test_nonsense_stops_the_start(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValidationError):
        _read(tmp_path, line)


def test_settings_do_not_change() -> None:
    settings = Settings()

    with pytest.raises(ValidationError):
        settings.slots = 3  # type: ignore[misc] # what the test is about


def test_every_setting_says_what_it_is() -> None:
    silent = [name for name, field in Settings.model_fields.items() if not field.description]

    assert [] == silent


def test_the_defaults_fit_together() -> None:
    settings = Settings()

    assert settings.renew_s < settings.self_fence_s < settings.lease_s
    assert sum(settings.lane_floors) < 1
    assert settings.retry_backoff_s <= settings.retry_backoff_max_s
    assert settings.webhook_timeout_s < settings.webhook_lease_s
    assert settings.statement_timeout_s < settings.request_deadline_s
    assert 0 == settings.webhook_schedule_s[0]


def test_servers_are_named_in_one_variable_and_have_their_keys_in_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "PROVIDERS",
        '{"groq": {"base_url": "https://groq.example/v1"},'
        ' "my-azure": {"base_url": "https://azure.example/v1", "header": "api-key"},'
        ' "ollama": {"base_url": "http://127.0.0.1:11434/v1", "key_variable": null}}',
    )
    monkeypatch.setenv("MY_AZURE_API_KEY", "sk-azure")

    settings = Settings()

    assert ("openai", "anthropic", "sim", "groq", "my-azure", "ollama") == settings.provider_names
    assert ["GROQ_API_KEY", "MY_AZURE_API_KEY", None, None, "OPENAI_API_KEY"] == [
        settings.key_variable(name) for name in ("groq", "my-azure", "ollama", "sim", "openai")
    ]
    assert ["", "sk-azure", ""] == [
        settings.server_key(name) for name in ("groq", "my-azure", "ollama")
    ]


@pytest.mark.parametrize(
    "providers",
    [
        '{"openai": {"base_url": "https://x.example/v1"}}',
        '{"Groq": {"base_url": "https://x.example/v1"}}',
        '{"a/b": {"base_url": "https://x.example/v1"}}',
        '{"groq": {"base_url": "ftp://x.example/v1"}}',
        '{"groq": {"base_url": "https://x.example/v1", "header": "cookie"}}',
        '{"groq": {"base_url": "https://x.example/v1", "key": "sk"}}',
    ],
)
def test_a_server_that_cannot_be_meant_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, providers: str
) -> None:
    monkeypatch.setenv("PROVIDERS", providers)

    with pytest.raises(ValueError, match="providers"):
        Settings()
