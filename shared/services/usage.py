"""What a workspace has used: calls, tokens and cost, added up from its provider calls."""

from datetime import datetime

import msgspec

from shared.clock import rfc3339
from shared.deps import Deps
from shared.domain import credits as rules
from shared.domain.usage import DEFAULT_SPAN, MAX_SPAN, GroupBy
from shared.errors import BadRequestError, Flaw
from shared.services.keys import Principal
from shared.store import usage
from shared.store.usage import Sum


class UsageSumView(msgspec.Struct, frozen=True, rename="camel"):
    """What a group used; `runs` are those whose first call is in it, `cost` adds up exactly."""

    name: str | None
    calls: int
    runs: int
    input_tokens: int
    output_tokens: int
    cost_nanousd: int
    credits: int


class UsageView(msgspec.Struct, frozen=True, rename="camel"):
    """What was used by calls that were begun from `since` on and before `until`."""

    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")
    group_by: GroupBy
    total: UsageSumView
    groups: list[UsageSumView]


async def read(
    deps: Deps,
    principal: Principal,
    by: GroupBy,
    since: datetime | None,
    until: datetime | None,
) -> UsageView:
    """Add up what was used; a limited key sees its environments only.

    The last 30 days where no time is given. Raises `BadRequestError` for a span that ends before it
    begins, or is longer than 366 days.
    """
    end = until or deps.clock.now()
    begin = since or end - DEFAULT_SPAN
    if not begin < end <= begin + MAX_SPAN:
        message = "The time ends after it begins, within 366 days."
        raise BadRequestError(message, flaws=[Flaw("from", message)])
    total, groups = await usage.sums(
        deps.store, principal.workspace_id, by, (begin, end), principal.environment_ids
    )
    return UsageView(
        since=rfc3339(begin),
        until=rfc3339(end),
        group_by=by,
        total=_view(total),
        groups=[_view(group) for group in groups],
    )


def _view(found: Sum) -> UsageSumView:
    whole = rules.credits_of(found.cost_nanousd)
    return UsageSumView(**msgspec.structs.asdict(found), credits=whole)
