"""The audit: who did what to the workspace."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import SCOPE
from api.paging import DEPENDENCIES, Asked, Cursors, Listing
from shared import ids
from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.submissions import Moment
from shared.errors import BadRequestError, Flaw
from shared.services import audit
from shared.services.audit import AuditEntryView
from shared.services.keys import Principal
from shared.store.audit import AuditFilter


@get("/audit", opt={SCOPE: "admin"}, dependencies=DEPENDENCIES, summary="Read the audit")
async def list_audit(  # noqa: PLR0913, PLR0917 (one parameter for each filter)
    asked: NamedDependency[Asked],
    principal: NamedDependency[Principal],
    deps: NamedDependency[Deps],
    action: Annotated[
        str | None, QueryParameter(description="An action, such as `tag.moved`.")
    ] = None,
    key: Annotated[str | None, QueryParameter(description="The id of the key that did it.")] = None,
    target: Annotated[
        str | None, QueryParameter(description="The id or the name of what it was done to.")
    ] = None,
    created_after: Annotated[
        str | None, QueryParameter(name="createdAfter", description="A moment.")
    ] = None,
    created_before: Annotated[
        str | None, QueryParameter(name="createdBefore", description="A moment.")
    ] = None,
) -> Listing[AuditEntryView]:
    """What was done in the workspace by which key, newest first.

    A key that is limited to environments sees what concerns those alone.
    """
    wanted = _filter(
        action=action,
        key=key,
        target=target,
        created_after=created_after,
        created_before=created_before,
    )
    cursors = Cursors(principal.workspace_id, "audit", wanted)
    found = await audit.listed(deps, principal, wanted, asked.page(cursors))
    return asked.listing(cursors, found)


_FIELDS: dict[str, Any] = {
    "action": Action,
    "key": UUID,
    "created_after": Moment,
    "created_before": Moment,
}


def _filter(*, target: str | None, **given: str | None) -> AuditFilter:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        try:
            values[name] = msgspec.convert(value, _FIELDS[name], strict=False)
        except msgspec.ValidationError as error:
            message = f"The filter {name} is not understood: {error}."
            raise BadRequestError(message, flaws=[Flaw("", message)]) from error
    if target is not None:
        target_id = ids.parse(target)
        values |= {"target_name": target} if target_id is None else {"target_id": target_id}
    return AuditFilter(**values)


HANDLERS = [list_audit]
