"""What a process looks at before it serves: findings that stop it, or that it says aloud."""

import asyncio
from ipaddress import ip_address

from redis import RedisError

from shared.deps import Deps
from shared.queue.lanes import Lanes
from shared.services.findings import Finding, Verdict
from shared.settings import Settings
from shared.store import diagnosis
from shared.vault import VaultError


async def examine(deps: Deps, lanes: Lanes) -> list[Finding]:
    """Look at settings, master key and Redis; what is `BAD` must keep the process from serving."""
    budget_s = deps.settings.ring_budget_s
    return [*settings(deps.settings), await master_key(deps), *await redis(lanes, budget_s)]


def settings(given: Settings) -> list[Finding]:
    """Combinations in which a promise would not hold; empty when there is none."""
    found = []
    if given.self_fence_s >= given.lease_s:
        detail = "SELF_FENCE_S has to be shorter than LEASE_S: two workers could own one run"
        found.append(Finding("settings", Verdict.BAD, detail))
    if given.renew_s >= given.self_fence_s:
        detail = "RENEW_S has to be shorter than SELF_FENCE_S: workers would stand still"
        found.append(Finding("settings", Verdict.BAD, detail))
    if given.webhook_timeout_s >= given.webhook_lease_s:
        detail = "WEBHOOK_TIMEOUT_S should be shorter than WEBHOOK_LEASE_S: deliveries may go twice"
        found.append(Finding("settings", Verdict.WARNING, detail))
    if given.dev_mode and not _is_loopback(given.api_host):
        detail = f"DEV_MODE at {given.api_host}: webhooks may reach this host, nothing is limited"
        found.append(Finding("settings", Verdict.WARNING, detail))
    return found


async def master_key(deps: Deps) -> Finding:
    """Whether MASTER_KEY opens what was sealed last."""
    newest = await diagnosis.newest_secret(deps.store)
    if newest is not None:
        place, sealed = newest
        try:
            deps.vault.open(sealed, *place)
        except VaultError as error:
            return Finding("master key", Verdict.BAD, str(error))
    if deps.vault.current is None:
        return Finding("master key", Verdict.WARNING, "MASTER_KEY is not set: no secrets")
    return Finding("master key", Verdict.GOOD, f"sealing with key {deps.vault.current}")


async def redis(lanes: Lanes, timeout_s: float) -> list[Finding]:
    """Whether Redis may lose or refuse rings; runs are safe either way."""
    try:
        async with asyncio.timeout(timeout_s):
            policy = await lanes.config_get("maxmemory-policy")
            append = await lanes.config_get("appendonly")
            writable = await lanes.writable()
    except (RedisError, OSError, TimeoutError) as error:
        name = type(error).__name__
        return [_warning(f"Redis cannot be inspected ({name}); runs start by the sweeper.")]
    found = []
    if policy.get("maxmemory-policy") != "noeviction":
        found.append(_warning("maxmemory-policy should be noeviction: evicted rings start late."))
    if append.get("appendonly") != "yes":
        found.append(_warning("appendonly should be yes: after a restart every run is rung again."))
    if not writable:
        found.append(_warning("Redis refuses writes, full or a replica: runs start late."))
    return found or [Finding("redis", Verdict.GOOD, "noeviction, appendonly")]


def _warning(detail: str) -> Finding:
    return Finding("redis", Verdict.WARNING, detail)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
