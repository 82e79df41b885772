"""Whether everything that should hold does: what `runlane doctor` looks at, and can repair."""

import asyncio
from uuid import UUID

import msgspec
from redis import RedisError

from shared.deps import Deps
from shared.queue.lanes import Lanes
from shared.queue.port import Ring
from shared.services import rotation, self_check
from shared.services.findings import Finding, Verdict
from shared.store import diagnosis, schema, sessions

MAX_SKEW_S = 2.0
REDIS_S = 5.0
_FIRST = UUID(int=0)


class Visit(msgspec.Struct, frozen=True):
    """What a check is given."""

    deps: Deps
    lanes: Lanes
    fix: bool


async def examine(deps: Deps, lanes: Lanes, *, fix: bool) -> list[Finding]:
    """Make every check; with `fix` repair what can be repaired.

    Raises `psycopg.Error` when the database is away: without it nothing can be said.
    """
    visit = Visit(deps, lanes, fix)
    findings: list[Finding] = []
    for check in (
        _schema,
        _settings,
        _clock,
        _master_key,
        _secrets,
        _redis,
        _workers,
        _orphans,
        _rings,
        _events,
        _feed,
        _books,
    ):
        findings += await check(visit)
    return findings


async def _schema(visit: Visit) -> list[Finding]:
    found = await schema.revision(visit.deps.store)
    if found == schema.EXPECTED:
        return [Finding("schema", Verdict.GOOD, found)]
    if schema.serves(found):
        detail = f"{found}, newer than this version's {schema.EXPECTED}: replace what still runs it"
        return [Finding("schema", Verdict.WARNING, detail)]
    detail = f"{found}, but this version needs {schema.EXPECTED}"
    return [Finding("schema", Verdict.BAD, detail)]


async def _settings(visit: Visit) -> list[Finding]:
    found = self_check.settings(visit.deps.settings)
    return found or [Finding("settings", Verdict.GOOD, "they go together")]


async def _clock(visit: Visit) -> list[Finding]:
    skew_s = await diagnosis.seconds(visit.deps.store) - visit.deps.clock.now().timestamp()
    good = abs(skew_s) <= MAX_SKEW_S
    detail = f"this host is {-skew_s:+.1f} s off the database's clock"
    if not good:
        detail += ": an API here judges runAt, deadline and expiry by that"
    return [Finding("clock", Verdict.GOOD if good else Verdict.WARNING, detail)]


async def _master_key(visit: Visit) -> list[Finding]:
    return [await self_check.master_key(visit.deps)]


async def _secrets(visit: Visit) -> list[Finding]:
    name = "secrets"
    vault, standing = visit.deps.vault, await rotation.stand(visit.deps)
    told = ", ".join(f"{key} ({count})" for key, count in sorted(standing.others.items()))
    lost = [key for key in standing.others if key not in vault.key_ids]
    if lost:
        detail = f"MASTER_KEY lacks keys that secrets are under: {told}"
        return [Finding(name, Verdict.BAD, detail)]
    if standing.others:
        detail = f"of {standing.total}, under older keys: {told}; run `runlane secrets rotate`"
        return [Finding(name, Verdict.WARNING, f"{detail} before you take those away")]
    detail = f"all {standing.total} are under the newest master key"
    return [Finding(name, Verdict.GOOD, detail)]


async def _redis(visit: Visit) -> list[Finding]:
    return await self_check.redis(visit.lanes, REDIS_S)


async def _workers(visit: Visit) -> list[Finding]:
    live, led = await diagnosis.workers(visit.deps.store)
    if not live:
        return [Finding("workers", Verdict.BAD, "no worker holds a lease: nothing will run")]
    if not led:
        return [Finding("workers", Verdict.BAD, f"{live} live, but none sweeps")]
    return [Finding("workers", Verdict.GOOD, f"{live} live, one of them sweeps")]


async def _orphans(visit: Visit) -> list[Finding]:
    name = "running runs"
    lost = await diagnosis.orphans(visit.deps.store)
    if not lost:
        return [Finding(name, Verdict.GOOD, "each belongs to a live worker")]
    if not visit.fix:
        return [Finding(name, Verdict.BAD, f"{lost} belong to no live worker")]
    settings = visit.deps.settings
    await sessions.mark_dead(visit.deps.store, lease_s=settings.lease_s)
    taken = await sessions.reap(visit.deps.store, poison_deaths=settings.poison_deaths)
    return [Finding(name, Verdict.REPAIRED, f"{len(taken)} of {lost} taken back")]


async def _rings(visit: Visit) -> list[Finding]:
    name = "waiting runs"
    missing, waiting, after = 0, 0, _FIRST
    try:
        async with asyncio.timeout(60):
            while found := await diagnosis.waiting(visit.deps.store, after):
                waiting, after = waiting + len(found), found[-1][0]
                batch = [Ring(*run) for run in found]
                unrung = await visit.lanes.missing(batch)
                missing += len(unrung)
                if visit.fix and unrung:
                    await visit.lanes.ring_many(unrung)
    except (RedisError, OSError, TimeoutError) as error:
        return [Finding(name, Verdict.BAD, f"Redis cannot be asked ({type(error).__name__})")]
    if not missing:
        return [Finding(name, Verdict.GOOD, f"{waiting} could start, all are rung")]
    verdict = Verdict.REPAIRED if visit.fix else Verdict.BAD
    return [Finding(name, verdict, f"{missing} of {waiting} are not rung")]


async def _feed(visit: Visit) -> list[Finding]:
    name = "feed"
    hidden = await diagnosis.foreign_events(visit.deps.store)
    if not hidden:
        return [Finding(name, Verdict.GOOD, "shows every event")]
    if not visit.fix:
        detail = f"{hidden} events, restored from another server, are not shown"
        return [Finding(name, Verdict.BAD, detail)]
    settled = 0
    while batch := await diagnosis.settle_events(visit.deps.store):
        settled += batch
    return [Finding(name, Verdict.REPAIRED, f"{settled} restored events are shown again")]


async def _books(visit: Visit) -> list[Finding]:
    name = "books"
    accounts, balances, held, budgets = await diagnosis.books(visit.deps.store)
    wrong = {
        "balances are not the sum of their ledger": balances,
        "accounts do not hold what calls under way hold": held,
        "budgets do not hold what calls under way hold": budgets,
    }
    told = [f"{count} {what}" for what, count in wrong.items() if count]
    if told:
        return [Finding(name, Verdict.BAD, "; ".join(told))]
    return [Finding(name, Verdict.GOOD, f"{accounts} accounts, each adds up")]


async def _events(visit: Visit) -> list[Finding]:
    findings = []
    silent = await diagnosis.eventless(visit.deps.store)
    if silent and visit.fix:
        made = 0
        while batch := await diagnosis.make_events(visit.deps.store):
            made += batch
        findings.append(Finding("events", Verdict.REPAIRED, f"{made} events made"))
    elif silent:
        findings.append(Finding("events", Verdict.BAD, f"{silent} ended runs have no event"))
    else:
        findings.append(Finding("events", Verdict.GOOD, "each ended run has one"))
    late = await diagnosis.overdue_deliveries(visit.deps.store)
    detail = f"{late} should have been tried ten minutes ago" if late else "none is late"
    findings.append(Finding("deliveries", Verdict.BAD if late else Verdict.GOOD, detail))
    return findings
