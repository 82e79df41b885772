"""API keys: who is calling, and what may they do."""

import hmac
from datetime import datetime
from uuid import UUID

import msgspec

from shared.clock import rfc3339
from shared.deps import CheckedKey, Deps
from shared.domain import api_keys
from shared.errors import ForbiddenError, UnauthorizedError
from shared.ids import KeyId, WorkspaceId
from shared.store import database, workspaces

SCOPES = (
    "runs:write",
    "runs:read",
    "prompts:write",
    "prompts:read",
    "environments:write",
    "environments:read",
    "webhooks:write",
    "webhooks:read",
    "keys:write",
    "keys:read",
    "admin",
)


class Principal(msgspec.Struct, frozen=True):
    """The caller. Empty `environment_ids` mean every environment of the workspace.

    `expires_at` is when the key ends, if it does.
    """

    workspace_id: WorkspaceId
    key_id: KeyId
    scopes: frozenset[str]
    environment_ids: frozenset[UUID]
    expires_at: datetime | None = None

    def reaches(self, environment_id: UUID) -> bool:
        return not self.environment_ids or environment_id in self.environment_ids

    def demand(self, scope: str) -> None:
        """Raise `ForbiddenError` unless the key has the scope; writing includes reading."""
        noun, _, _ = scope.partition(":")
        if not self.scopes & {scope, f"{noun}:write", "admin"}:
            raise ForbiddenError(f"This needs the scope {scope}.", code="missing_scope")

    def demand_end(self, expires_at: datetime | None) -> None:
        """Raise `ForbiddenError` where what the caller makes would outlive the caller's key."""
        if self.expires_at is not None and (expires_at is None or expires_at > self.expires_at):
            raise ForbiddenError(
                f"This key expires at {rfc3339(self.expires_at)}: name no later expiresAt.",
                code="expiry_forbidden",
            )


async def authenticate(deps: Deps, token: str) -> Principal:
    """Tell who holds a key; raises one and the same `UnauthorizedError` for all that is wrong.

    A good answer is trusted for a few seconds, so a revocation takes effect within that time.
    """
    parsed = api_keys.parse(token)
    if parsed is None:
        raise UnauthorizedError
    now = deps.clock.monotonic()
    checked = deps.keys.get(parsed.lookup_id)
    if checked is None or now - checked.checked_at > deps.settings.key_cache_s:
        with database.nothing_written():
            known = await deps.finding_keys.get(
                parsed.lookup_id, lambda: workspaces.find_key(deps.store, parsed.lookup_id)
            )
        if known is None:
            deps.keys.discard(parsed.lookup_id)
            raise UnauthorizedError
        checked = CheckedKey(known, now)
        deps.keys.put(parsed.lookup_id, checked)
    known = checked.known
    if not hmac.compare_digest(known.digest, parsed.digest) or (
        known.expires_at is not None and known.expires_at <= deps.clock.now()
    ):
        raise UnauthorizedError
    deps.used_keys.add(known.key_id)
    return Principal(
        workspace_id=known.workspace_id,
        key_id=known.key_id,
        scopes=known.scopes,
        environment_ids=known.environment_ids,
        expires_at=known.expires_at,
    )


def was_good(deps: Deps, token: str) -> bool:
    """Whether this process has found this very key good, some time ago."""
    parsed = api_keys.parse(token)
    checked = None if parsed is None else deps.keys.get(parsed.lookup_id)
    return (
        parsed is not None
        and checked is not None
        and hmac.compare_digest(checked.known.digest, parsed.digest)
    )


async def note_uses(deps: Deps) -> None:
    """Write down which keys were used since the last call."""
    used = [KeyId(key_id) for key_id in deps.used_keys]
    deps.used_keys.clear()
    if used:
        await workspaces.touch_keys(deps.store, used)
