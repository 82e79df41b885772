"""Calls that have to be paid for: what they may cost is held, what they did cost is charged.

The same two statements as for any call, with the money moved in them. Of a workspace the row of its
account is locked first, behind the rows of runs; whoever has it may change its holds and budgets.
"""

from collections.abc import Sequence

from shared.store.budgets import SPENT, period_start
from shared.store.claiming import Intent, Refusal, announced, announcing
from shared.store.database import Store
from shared.store.ending import Moved, Outcome, settled, settling
from shared.store.run_json import UUID7


def locked_accounts(source: str) -> str:
    """The CTE `account`: locks those of the workspaces in another CTE, as they are now."""
    return f"""
  account AS MATERIALIZED (
    SELECT l.* FROM (SELECT DISTINCT workspace_id FROM {source} ORDER BY 1) AS w
      CROSS JOIN LATERAL (SELECT a.workspace_id, a.metered,
          a.balance_nanousd - a.held_nanousd AS room
        FROM accounts a WHERE a.workspace_id = w.workspace_id FOR UPDATE) AS l
  )"""


# Of what does not all fit the small ones go first: one that is too large holds up none of them.
_RESERVE = f"""
  able AS MATERIALIZED (
    SELECT h.id, h.workspace_id, h.environment_id, h.key_id, coalesce(i.hold_nanousd, 0) AS hold
    FROM held h JOIN item i ON i.run_id = h.id AND i.claim_no = h.claim_no
    WHERE NOT h.canceled AND h.attempts = i.attempts_before AND h.calls < h.max_attempts
  ),{locked_accounts("able")},
  budget AS MATERIALIZED (
    SELECT l.* FROM account c CROSS JOIN LATERAL (SELECT b.id, b.environment_id, b.key_id,
        b.workspace_id, b.limit_nanousd - b.held_nanousd - {SPENT} AS room
      FROM budgets b WHERE b.workspace_id = c.workspace_id ORDER BY b.id FOR UPDATE) AS l
  ),
  fit AS MATERIALIZED (
    SELECT a.id, b.id AS budget_id,
      b.room > 0 AND sum(a.hold) OVER (PARTITION BY b.id ORDER BY a.hold, a.id) <= b.room AS fits
    FROM able a JOIN budget b ON b.workspace_id = a.workspace_id
      AND (b.environment_id = a.environment_id OR b.key_id = a.key_id)
  ),
  affordable AS MATERIALIZED (
    SELECT f.* FROM (SELECT a.*, coalesce(c.metered, false) AS metered, c.room,
        sum(a.hold) OVER (PARTITION BY a.workspace_id ORDER BY a.hold, a.id) AS upto
      FROM able a LEFT JOIN account c ON c.workspace_id = a.workspace_id
      WHERE a.id NOT IN (SELECT id FROM fit WHERE NOT fits)) AS f
    WHERE NOT f.metered OR (f.room > 0 AND f.upto <= f.room)
  ),"""
_KEEP = """
  kept AS (
    INSERT INTO holds (run_id, attempt, workspace_id, metered, amount_nanousd, budget_ids)
    SELECT f.id, c.attempts, f.workspace_id, f.metered, f.hold,
      ARRAY(SELECT budget_id FROM fit WHERE fit.id = f.id)
    FROM counted c JOIN affordable f ON f.id = c.id
    WHERE f.metered OR f.id IN (SELECT id FROM fit)
    RETURNING *
  ),
  reserved AS (
    UPDATE accounts a SET held_nanousd = a.held_nanousd + k.amount FROM (
      SELECT workspace_id, sum(amount_nanousd)::bigint AS amount FROM kept WHERE metered
      GROUP BY 1) AS k WHERE a.workspace_id = k.workspace_id
  ),
  earmarked AS (
    UPDATE budgets b SET held_nanousd = b.held_nanousd + k.amount FROM (
      SELECT x.id, sum(amount_nanousd)::bigint AS amount
      FROM kept CROSS JOIN LATERAL unnest(budget_ids) AS x(id) GROUP BY 1) AS k WHERE b.id = k.id
  )"""
_INTEND = announcing(
    of_run=", r.workspace_id, r.environment_id, r.key_id, r.calls, r.max_attempts",
    checks=_RESERVE,
    only="AND r.id IN (SELECT id FROM affordable)",
    then="," + _KEEP,
    short="""i.run_id IN (SELECT id FROM able)
    AND i.run_id NOT IN (SELECT id FROM affordable)""",
)


def charge(comment: str = "NULL") -> str:
    """CTEs that charge what is in `spent`, of accounts that are locked, and take the holds away.

    A hold that was settled before is put right by the difference.
    """
    return f"""
  line AS (
    INSERT INTO ledger (id, workspace_id, kind, amount_nanousd, run_id, attempt, comment)
    SELECT {UUID7}, s.workspace_id,
      CASE WHEN s.settled_nanousd IS NULL THEN 'charge' ELSE 'correction' END,
      coalesce(s.settled_nanousd, 0) - s.cost, s.run_id, s.attempt, {comment}
    FROM spent s WHERE s.metered AND s.cost <> coalesce(s.settled_nanousd, 0)
  ),
  paid AS (
    UPDATE accounts a SET balance_nanousd = a.balance_nanousd - x.cost,
      held_nanousd = a.held_nanousd - x.amount
    FROM (SELECT s.workspace_id, sum(s.cost - coalesce(s.settled_nanousd, 0))::bigint AS cost,
        coalesce(sum(s.amount_nanousd) FILTER (WHERE s.settled_nanousd IS NULL), 0)::bigint
          AS amount
      FROM spent s WHERE s.metered GROUP BY 1) AS x
    WHERE a.workspace_id = x.workspace_id
  ),
  counted_in AS (
    UPDATE budgets b SET spent_nanousd = {SPENT} + x.cost,
      period_from = greatest(b.period_from, {period_start("b")}),
      held_nanousd = b.held_nanousd - x.amount
    FROM (SELECT u.id, sum(s.cost - coalesce(s.settled_nanousd, 0))::bigint AS cost,
        coalesce(sum(s.amount_nanousd) FILTER (WHERE s.settled_nanousd IS NULL), 0)::bigint
          AS amount
      FROM spent s CROSS JOIN LATERAL unnest(s.budget_ids) AS u(id) GROUP BY 1) AS x
    WHERE b.id = x.id
  )"""


_SETTLE = settling(
    f"""{locked_accounts("closed")},
  spent AS MATERIALIZED (
    SELECT l.*, CASE WHEN c.billed = 'yes' THEN coalesce(c.cost_nanousd, 0) ELSE 0 END AS cost
    FROM closed c JOIN account k ON k.workspace_id = c.workspace_id
      CROSS JOIN LATERAL (SELECT h.* FROM holds h WHERE h.run_id = c.run_id
        AND h.attempt = c.number AND h.workspace_id = k.workspace_id FOR UPDATE) AS l
    WHERE c.billed <> 'unknown'
  ),{charge()},
  released AS (
    DELETE FROM holds h USING spent s WHERE h.run_id = s.run_id AND h.attempt = s.attempt
  ),"""
)


async def intend(store: Store, intents: Sequence[Intent]) -> list[int | Refusal]:
    """Like `claiming.intend`, for calls that are paid for: holds what they may cost.

    What does not fit into the balance, or into a budget, is refused for want of money.
    """
    return await announced(store, _INTEND, intents)


async def settle(store: Store, outcomes: Sequence[Outcome], *, lease_s: float) -> list[Moved]:
    """Like `ending.settle`, for calls that are paid for: charges what is known to have been billed.

    What nobody knows stays held.
    """
    return await settled(store, _SETTLE, outcomes, lease_s=lease_s)
