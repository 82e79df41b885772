"""Runs, workers and endpoints put straight into the store, and rows read back as they are."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.deps import Deps, Target
from shared.domain import signing, versions
from shared.ids import (
    DeliveryId,
    EndpointId,
    RunId,
    SessionId,
    new_id,
)
from shared.services import submissions
from shared.store import claiming, deliveries, ending, sessions, submitting
from shared.store.claiming import ClaimedRun, Intent, Refusal
from shared.store.database import Store
from shared.store.deliveries import Try
from shared.store.ending import DueDelivery, Moved, Outcome
from shared.store.submitting import NewRun, Stored
from tests.factories import Tenant, a_tenant
from tests.worker.lane_rig import until

Row = dict[str, Any]

ECHO = {"model": "sim/echo", "messages": [{"role": "user", "content": "Hello {{ name }}"}]}
LEASE_IS_OVER = """
UPDATE worker_sessions SET lease_expires_at = now() - interval '1 s' WHERE id = %(id)s
"""
_PROMPT = """
WITH prompt AS (
  INSERT INTO prompts (id, workspace_id, slug, name, description, last_number)
  VALUES (%(prompt)s, %(workspace)s, 'greeting', 'greeting', '', 1)
)
INSERT INTO prompt_versions (id, workspace_id, prompt_id, number, body, published_at)
VALUES (%(version)s, %(workspace)s, %(prompt)s, 1, %(body)s, now())
"""


@dataclass(frozen=True)
class Rig:
    """A tenant with one prompt, and short words for what happens to its runs."""

    deps: Deps
    tenant: Tenant
    target: Target

    @property
    def store(self) -> Store:
        return self.deps.store

    def new(self, **changes: Any) -> NewRun:
        """A submission as the service would hand it over."""
        columns: dict[str, Any] = {
            "id": str(new_id()),
            "workspace_id": str(self.tenant.workspace_id),
            "catalog_version": self.target.catalog_version,
            "environment_id": str(self.target.environment_id),
            "prompt_id": str(self.target.prompt_id),
            "version_id": str(self.target.version_id),
            "key_id": str(self.tenant.principal.key_id),
            "priority": "normal",
            "expires_in_s": 3600,
            "max_duration_s": 3600,
            "max_attempts": 3,
            "on_unknown_outcome": "retry",
            "thread_id": str(new_id()),
            "channel": "default",
            "inputs": '{"name":"Ada"}',
            "metadata": "{}",
            "tags": (),
            "model": "sim/echo",
        }
        return NewRun(**(columns | changes))

    async def queued(self, **changes: Any) -> RunId:
        """A stored run that waits."""
        (stored,) = await submitting.insert(self.store, [self.new(**changes)])
        assert isinstance(stored, Stored)
        return stored.run_id

    async def session(self, lease_s: float = 600) -> SessionId:
        """A worker that lives for so long."""
        session = SessionId(new_id())
        await sessions.open_session(self.store, session, host="here", pid=1, lease_s=lease_s)
        return session

    async def claim(self, session: SessionId, run_id: RunId) -> ClaimedRun:
        answer = (await claiming.claim(self.store, session, [run_id]))[run_id]
        assert isinstance(answer, ClaimedRun)
        return answer

    async def claimed(self, **changes: Any) -> ClaimedRun:
        """A run in the hands of a worker of its own."""
        return await self.claim(await self.session(), await self.queued(**changes))

    async def called(self, **changes: Any) -> ClaimedRun:
        """A claimed run whose first provider call is announced."""
        run = await self.claimed(**changes)
        assert 1 == await self.intend(run)
        return run

    async def intend(self, run: ClaimedRun) -> int | Refusal:
        return (await claiming.intend(self.store, [intent(run)]))[0]

    async def settle(self, *outcomes: Outcome) -> list[Moved]:
        return await ending.settle(self.store, outcomes, lease_s=45)

    async def finished(self, **changes: Any) -> RunId:
        """A run that has succeeded; changes are those of its outcome."""
        run = await self.called()
        (moved,) = await self.settle(outcome(run, **changes))
        assert moved.applied
        return run.id

    async def die(self, session: SessionId) -> None:
        """Let a worker's lease have run out, and be noticed."""
        await self.run(LEASE_IS_OVER, id=session)
        assert [session] == await sessions.mark_dead(self.store, lease_s=0)

    async def blocked(self, count: int = 1) -> None:
        """Wait until so many statements wait for a lock."""
        await blocked(self.store, count)

    async def run(self, statement: str, **parameters: Any) -> None:
        await self.store.execute(statement, parameters)

    async def change(self, run_id: RunId, columns: str) -> None:
        """Set columns of a run by force."""
        await self.run(f"UPDATE runs SET {columns} WHERE id = %(id)s", id=run_id)

    async def rows(self, query: str, **parameters: Any) -> list[Row]:
        found = await self.store.fetch(f"SELECT to_jsonb(x)::text FROM ({query}) x", parameters)
        return [msgspec.json.decode(row[0]) for row in found]

    async def row(self, run_id: RunId) -> Row:
        (row,) = await self.rows("SELECT * FROM runs WHERE id = %(id)s", id=run_id)
        return row

    async def status(self, run_id: RunId) -> str:
        return str((await self.row(run_id))["status"])

    async def attempts(self, run_id: RunId) -> list[Row]:
        return await self.rows(
            "SELECT * FROM attempts WHERE run_id = %(id)s ORDER BY number", id=run_id
        )

    async def events(self, run_id: RunId) -> list[Row]:
        """The bodies of the run's events, decoded."""
        rows = await self.rows("SELECT * FROM events WHERE run_id = %(id)s ORDER BY id", id=run_id)
        return [msgspec.json.decode(row["body"]) for row in rows]

    async def deliveries(self) -> list[Row]:
        return await self.rows("SELECT * FROM deliveries ORDER BY id")

    async def tries(self, delivery_id: DeliveryId) -> list[Row]:
        return await self.rows(
            "SELECT * FROM delivery_tries WHERE delivery_id = %(id)s ORDER BY number",
            id=delivery_id,
        )

    async def endpoint(self, url: str = "https://example.com/hook", **columns: Any) -> EndpointId:
        """A webhook endpoint with one secret."""
        endpoint_id = EndpointId(columns.get("id") or new_id())
        values = {
            "id": endpoint_id,
            "workspace_id": self.tenant.workspace_id,
            "url": url,
            "format": "standard",
            "description": "",
            "include_output": True,
        } | columns
        names = ", ".join(values)
        places = ", ".join(f"%({name})s" for name in values)
        await self.run(f"INSERT INTO webhook_endpoints ({names}) VALUES ({places})", **values)
        await self.secret(endpoint_id)
        return endpoint_id

    async def secret(self, endpoint_id: EndpointId, expires: str = "NULL") -> str:
        """Give an endpoint one more signing secret; answers its text."""
        text, secret_id = signing.new_secret(), new_id()
        place = ("webhook_secrets", secret_id, self.tenant.workspace_id)
        await self.run(
            "INSERT INTO webhook_secrets (id, workspace_id, endpoint_id, sealed, expires_at) "
            f"VALUES (%(id)s, %(workspace)s, %(endpoint)s, %(sealed)s, {expires})",
            id=secret_id,
            workspace=self.tenant.workspace_id,
            endpoint=endpoint_id,
            sealed=self.deps.vault.seal(text.encode(), *place),
        )
        return text

    async def due(self, limit: int = 10) -> list[DueDelivery]:
        """Lease deliveries whose time has come."""
        claim = await deliveries.claim_due(self.store, limit=limit, lease_s=45)
        return list(claim.found)

    async def record(self, *tries: Try) -> list[bool]:
        """Write tries down; answers which of them counted."""
        recorded = await deliveries.record(self.store, self.deps.settings, tries)
        return [one.written for one in recorded]

    async def delivery(self, url: str = "https://example.com/hook", **columns: Any) -> DueDelivery:
        """A delivery that is leased to its finishing worker."""
        await self.endpoint(url, **columns)
        run = await self.called()
        (moved,) = await self.settle(outcome(run))
        return moved.deliveries[0]


async def a_rig(
    deps: Deps, body: dict[str, Any] | None = None, *, server_credentials: bool = False
) -> Rig:
    """A workspace with an admin key, the environment `production`, and the prompt `greeting`.

    Written as plain rows: a hundred tests' worth of ORM sessions would take longer than the tests.
    """
    tenant = await a_tenant(deps, server_credentials=server_credentials)
    prompt = {
        "workspace": tenant.workspace_id,
        "prompt": new_id(),
        "version": new_id(),
        "body": versions.to_json(versions.parse(body or ECHO)).decode(),
    }
    await deps.store.execute(_PROMPT, prompt)
    target = await submissions.resolve(deps, tenant.workspace_id, "greeting", "1", None)
    return Rig(deps, tenant, target)


def intent(run: ClaimedRun, **changes: Any) -> Intent:
    columns: dict[str, Any] = {
        "run_id": str(run.id),
        "session_id": str(run.session_id),
        "claim_no": run.claim_no,
        "attempts_before": run.attempts,
        "provider": "sim",
        "model": "echo",
    }
    return Intent(**(columns | changes))


def outcome(run: ClaimedRun, **changes: Any) -> Outcome:
    """The first attempt of a run has answered `Hello`."""
    columns: dict[str, Any] = {
        "run_id": str(run.id),
        "session_id": str(run.session_id),
        "claim_no": run.claim_no,
        "status": "succeeded",
        "attempt": 1,
        "output": "Hello",
        "outcome": "succeeded",
        "billed": "yes",
    }
    return Outcome(**(columns | changes))


def back(run: ClaimedRun, **changes: Any) -> Outcome:
    """The run goes back to the queue; no call belongs to that."""
    nothing = {"attempt": 0, "output": None, "outcome": None, "billed": None}
    return outcome(run, **({"status": "queued"} | nothing | changes))


def failed(run: ClaimedRun, **changes: Any) -> Outcome:
    """The run's first attempt was refused, and the run with it."""
    columns: dict[str, Any] = {
        "status": "failed",
        "output": None,
        "outcome": "refused",
        "billed": "no",
        "error_code": "provider_refused",
        "error_message": "No.",
        "error_origin": "provider",
    }
    return outcome(run, **(columns | changes))


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def applied(moved: Sequence[Moved]) -> list[bool]:
    return [one.applied for one in moved]


async def blocked(store: Store, count: int = 1) -> None:
    """Wait until so many statements of the store's database wait for a lock."""
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )

    async def found() -> bool:
        return len(await store.fetch(waiting, {})) >= count

    await until(found)
