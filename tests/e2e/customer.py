"""An application that uses Runlane over HTTP and nothing else."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpx

from tests.waiting import until

NO_PRICE = {
    "input": 0,
    "cachedInput": 0,
    "cacheWrite": 0,
    "output": 0,
    "webSearch": 0,
    "total": 0,
}


class Customer:
    """A base URL and a key; every call fails the test unless it is answered as it should be."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=10
        )

    def prompt(self, slug: str, model: str, content: str = "Say hello to {{ name }}.") -> None:
        """Make a prompt with one version, published and tagged `production`."""
        self._post("/prompts", 201, {"slug": slug, "name": slug})
        version = {"model": model, "messages": [{"role": "user", "content": content}]}
        made = self._post(f"/prompts/{slug}/versions", 201, version)
        tagged = self.http.put(f"/prompts/{slug}/tags/production", json={"version": made["number"]})
        assert 200 == tagged.status_code, tagged.text

    def webhook(self, url: str, **fields: object) -> str:
        """Register an endpoint; its secret."""
        return str(self._post("/webhooks", 201, {"url": url, **fields})["secret"])

    def variable(self, environment: str, name: str, value: str) -> None:
        path = f"/environments/{environment}/variables/{name}"
        answer = self.http.put(path, json={"value": value})
        assert 200 == answer.status_code, answer.text

    def submit(self, slug: str, inputs: dict[str, str] | None = None, **fields: object) -> str:
        """Submit a run of the version tagged `production`; its id."""
        given = {"name": "Ada"} if inputs is None else inputs
        path = f"/prompts/{slug}/production/runs"
        return str(self._post(path, 200, {"inputs": given, **fields})["id"])

    def prompt_run(self, run_id: str) -> dict[str, Any]:
        return self._get(f"/promptruns/{run_id}")

    def run(self, run_id: str) -> dict[str, Any]:
        return self._get(f"/runs/{run_id}")

    def finished(self, run_id: str, timeout_s: float = 20) -> dict[str, Any]:
        """Poll the prompts door until a run is not pending any more."""
        return until(
            lambda: _unless_pending(self.prompt_run(run_id)),
            timeout_s,
            otherwise=lambda: str(self.run(run_id)),
        )

    def all_finished(self, run_ids: Iterable[str], timeout_s: float = 60) -> list[dict[str, Any]]:
        return [self.finished(run_id, timeout_s) for run_id in run_ids]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def _get(self, path: str) -> dict[str, Any]:
        answer = self.http.get(path)
        assert 200 == answer.status_code, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def _post(self, path: str, expected: int, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert expected == answer.status_code, answer.text
        document: dict[str, Any] = answer.json()
        return document


def _unless_pending(run: dict[str, Any]) -> dict[str, Any] | None:
    return None if run["status"] == "pending" else run
