"""OpenAI and Anthropic as a process of their own on loopback, steered over HTTP."""

from pathlib import Path
from typing import Any, Self

import httpx

from tests.e2e.processes import BIN, ROOT, Process, clean_env


class FakeVendors:
    """A context manager; knows which calls came in and with which keys."""

    def __init__(self, home: Path) -> None:
        argv = [str(BIN / "python"), "-m", "tests.vendors", "--port", "0"]
        self._process = Process(argv, env=clean_env(home), cwd=ROOT)

    @property
    def url(self) -> str:
        """Where Anthropic is; OpenAI's base URL is `/v1` below."""
        return self._process.says("\n").split()[0]

    def env(self) -> dict[str, str]:
        """The settings that lead a Runlane here, with server's keys."""
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "ANTHROPIC_BASE_URL": self.url,
            "OPENAI_API_KEY": "sk-of-the-server",
            "ANTHROPIC_API_KEY": "sk-ant-of-the-server",
        }

    def calls_of(self, run_id: str) -> list[dict[str, Any]]:
        """The calls a run led to, in order."""
        return [call for call in self.calls() if call["runId"] == run_id]

    def keys_of(self, run_id: str) -> list[str]:
        """The credentials that a run's calls came with."""
        return [
            call["headers"].get("x-api-key")
            or call["headers"]["authorization"].removeprefix("Bearer ")
            for call in self.calls_of(run_id)
        ]

    def calls(self) -> list[dict[str, Any]]:
        ledger: list[dict[str, Any]] = httpx.get(f"{self.url}/_ledger", timeout=10).json()
        return ledger

    def release(self) -> None:
        """Let `mock-hang` answer, now and from now on."""
        httpx.post(f"{self.url}/_release", timeout=10).raise_for_status()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.forget()
