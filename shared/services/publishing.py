"""The moment from which a version never changes."""

import msgspec

from shared.domain import versions
from shared.domain.audit import Action
from shared.domain.versions import Rules, VersionBody
from shared.errors import ConflictError
from shared.services import audit
from shared.services.keys import Principal
from shared.store import prompts
from shared.store.database import Tx
from shared.store.tables import PromptRow, PromptVersionRow


async def publish(tx: Tx, principal: Principal, prompt: PromptRow, row: PromptVersionRow) -> None:
    """Make a draft reachable and immutable; a published version stays as it is.

    Raises `ConflictError` for a draft that could not be run, `UnacceptableError` for one that could
    not be saved today.
    """
    if row.published_at is not None:
        return
    stored = msgspec.convert(row.body, VersionBody)
    flaws = versions.lacks(stored)
    if flaws:
        raise ConflictError(
            f"The version is not finished: {flaws[0].message}",
            code="version_unfinished",
            flaws=flaws,
        )
    # It may have been saved when less was looked at. Servers and aliases may have gone since.
    written = msgspec.to_builtins(versions.as_written(stored))
    versions.parse(written, Rules(providers=None))
    await prompts.publish(tx, row)
    await audit.note(tx, principal, Action.VERSION_PUBLISHED, audit.of_version(prompt, row))
