"""From one environment to another: which versions differ, and all of them moved at once."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from shared.deps import Deps
from shared.domain import flaws
from shared.domain.audit import Action
from shared.errors import Flaw, UnacceptableError
from shared.services import audit, environments
from shared.services.keys import Principal
from shared.store import pins, prompts, workspaces
from shared.store.database import Tx
from shared.store.pins import Move, Pinned
from shared.store.tables import EnvironmentRow

MAX_NAMED = 1_000


class Promotion(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The body: what is pinned in the source gets pinned in the target."""

    source_environment: str
    target_environment: str
    flow_ids: tuple[str, ...] | None = None
    comment: str | None = None


class DifferenceView(msgspec.Struct, frozen=True, rename="camel"):
    """What two environments run of a flow; null where one has no pin."""

    flow_id: str
    slug: str
    title: str
    differs: bool
    source_version: int | None
    source_version_id: str | None
    target_version: int | None
    target_version_id: str | None


class PromotedView(msgspec.Struct, frozen=True, rename="camel"):
    """A pin that was moved. `from` is null where the target had none."""

    flow_id: str
    slug: str
    from_: int | None = msgspec.field(name="from")
    to: int
    version_id: str


class PromotionView(msgspec.Struct, frozen=True, rename="camel"):
    """What a promotion did; `unchanged` flows ran the same version already."""

    source_environment: str
    target_environment: str
    comment: str
    promoted: list[PromotedView]
    unchanged: int


async def diff(deps: Deps, principal: Principal, source: str, target: str) -> list[DifferenceView]:
    """Compare what two environments pin, flow by flow, by slug."""
    async with deps.store.transaction() as tx:
        rows = [await environments.find(tx, principal, name) for name in (source, target)]
        before, after = [
            {one.slug: one for one in await pins.of_environment(tx, row.id)} for row in rows
        ]
    return [_difference(before.get(slug), after.get(slug)) for slug in sorted({*before, *after})]


async def promote(deps: Deps, principal: Principal, body: Promotion) -> PromotionView:
    """Pin in the target what the source pins: of the named flows, else of all; at once or not.

    Raises `UnacceptableError` for what does not exist, and a named flow without a pin in the
    source.
    """
    flaws.refuse(*_flaws(body))
    async with deps.store.transaction() as tx:
        await workspaces.change_catalog(tx, principal.workspace_id)
        source = await environments.given(
            tx, principal, body.source_environment, "/sourceEnvironment"
        )
        target = await environments.given(
            tx, principal, body.target_environment, "/targetEnvironment"
        )
        if source.id == target.id:
            message = "Source and target are the same environment."
            raise UnacceptableError(message, flaws=[Flaw("/targetEnvironment", message)])
        wanted = await _wanted(tx, principal, source, body.flow_ids)
        moves = await _moves(tx, principal, (source, target), wanted, body.comment or "")
        if moves:
            await pins.put(tx, moves)
            details: dict[str, audit.Detail] = {"source": source.name, "moved": len(moves)}
            on = environments.target(target)
            await audit.note(tx, principal, Action.ENVIRONMENT_PROMOTED, on, details)
    slugs = {one.pin.prompt_id: one.slug for one in wanted}
    return PromotionView(
        source_environment=source.name,
        target_environment=target.name,
        comment=body.comment or "",
        promoted=[_promoted(move, slugs[move.prompt_id]) for move in moves],
        unchanged=len(wanted) - len(moves),
    )


async def _moves(
    tx: Tx,
    principal: Principal,
    between: tuple[EnvironmentRow, EnvironmentRow],
    wanted: Sequence[Pinned],
    comment: str,
) -> list[Move]:
    """What has to move in the target; the rest runs the same version already."""
    source, target = between
    present = {one.pin.prompt_id: one for one in await pins.of_environment(tx, target.id)}
    return [
        Move(
            workspace_id=principal.workspace_id,
            environment_id=target.id,
            prompt_id=one.pin.prompt_id,
            key_id=principal.key_id,
            version_id=one.pin.version_id,
            from_number=_number(old),
            to_number=one.number,
            comment=comment,
            source_environment_id=source.id,
        )
        for one in wanted
        if (old := present.get(one.pin.prompt_id)) is None
        or old.pin.version_id != one.pin.version_id
    ]


async def _wanted(
    tx: Tx, principal: Principal, source: EnvironmentRow, named: Sequence[str] | None
) -> Sequence[Pinned]:
    found = await pins.of_environment(tx, source.id)
    if named is None:
        return found
    by_slug = {one.slug: one for one in found}
    by_id = {one.pin.prompt_id: one for one in found}
    chosen: dict[UUID, Pinned] = {}
    unknown: list[Flaw] = []
    for place, name in enumerate(named):
        pinned = by_slug.get(name)
        if pinned is None:  # an id, or a slug that the flow once had
            prompt = await prompts.find(tx, principal.workspace_id, name)
            pinned = None if prompt is None else by_id.get(prompt.id)
        if pinned is None:
            message = f"No such flow is pinned in {source.name}."
            unknown.append(Flaw(f"/flowIds/{place}", message))
        else:
            chosen[pinned.pin.prompt_id] = pinned
    flaws.refuse(*unknown)
    return list(chosen.values())


def _flaws(body: Promotion) -> list[Flaw]:
    found = flaws.of_text(body.comment, "/comment")
    if body.flow_ids is not None and not 1 <= len(body.flow_ids) <= MAX_NAMED:
        message = f"Name 1 to {MAX_NAMED:,} flows, or leave this out for all."
        found.append(Flaw("/flowIds", message))
    return found


def _number(found: Pinned | None) -> int | None:
    return None if found is None else found.number


def _promoted(move: Move, slug: str) -> PromotedView:
    return PromotedView(
        flow_id=str(move.prompt_id),
        slug=slug,
        from_=move.from_number,
        to=move.to_number or 0,
        version_id=str(move.version_id),
    )


def _difference(source: Pinned | None, target: Pinned | None) -> DifferenceView:
    ids = [None if one is None else str(one.pin.version_id) for one in (source, target)]
    either = source or target
    assert either is not None  # noqa: S101 (the flow comes from one of the two)
    return DifferenceView(
        flow_id=str(either.pin.prompt_id),
        slug=either.slug,
        title=either.title,
        differs=ids[0] != ids[1],
        source_version=_number(source),
        source_version_id=ids[0],
        target_version=_number(target),
        target_version_id=ids[1],
    )
