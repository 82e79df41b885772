"""The audit is read through an index, whatever is asked for and however long it is."""

import pytest

from shared.deps import Deps
from shared.domain.audit import Action
from shared.domain.paging import Page
from shared.ids import new_id
from shared.store import audit
from shared.store.audit import AuditFilter
from shared.store.database import Tx
from tests.factories import Tenant

_FILL = """
INSERT INTO audit_log (id, workspace_id, actor, key_id, action, target_kind, target_id, target_name)
SELECT gen_random_uuid(), %(workspace)s, 'key', gen_random_uuid(),
  (%(actions)s::text[])[1 + n %% cardinality(%(actions)s::text[])], 'tag',
  gen_random_uuid(), 'tag ' || n
FROM generate_series(1, 5000) n
"""
OTHERS = [action.value for action in Action if action is not Action.KEY_REVOKED]
_READ = """
SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'audit_log'
"""


@pytest.mark.parametrize(
    "wanted",
    [
        AuditFilter(),
        AuditFilter(action=Action.KEY_REVOKED),
        AuditFilter(key=new_id()),
        AuditFilter(target_id=new_id()),
        AuditFilter(target_name="nobody"),
    ],
)
async def test_a_page_reads_little_more_than_it_shows(
    deps: Deps, tenant: Tenant, wanted: AuditFilter
) -> None:
    await deps.store.execute(_FILL, {"workspace": tenant.workspace_id, "actions": OTHERS})
    await deps.store.execute("ANALYZE audit_log", {})

    async with deps.store.transaction() as tx:
        already = await _read(tx)
        await audit.listed(tx, tenant.workspace_id, wanted, Page(limit=20))
        assert await _read(tx) - already <= 21


async def _read(tx: Tx) -> int:
    """The rows that this connection has read, also those of transactions just before."""
    connection = await tx.connection()
    return int((await connection.exec_driver_sql(_READ)).scalar_one())
