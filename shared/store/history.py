"""What a run is told of its thread: whole turns, the newest that are within all limits."""

from uuid import UUID

from shared.domain.history import (
    BYTES_PER_TOKEN,
    HISTORY_BYTES,
    HISTORY_ROWS,
    NO_LIMITS,
    TOKENS_PER_MESSAGE,
    TURN_ROWS,
    History,
)
from shared.ids import RunId
from shared.store.database import Store
from shared.store.run_json import EARLIER

_OF_RUN = "SELECT * FROM runs WHERE id = %(run)s"
# A run to come: its turn is after all others.
_OF_THREAD = """SELECT %(workspace)s::uuid AS workspace_id, %(thread)s::uuid AS thread_id,
    %(channel)s::text AS channel, %(environment)s::uuid AS environment_id, 2147483647 AS turn"""


def _statement(run: str) -> str:
    """Sizes first, of the newest messages only: octet_length() reads no long text.

    A turn that the limit of rows may have cut apart is left out. Then the texts of turns that fit.
    """
    return f"""
WITH r AS MATERIALIZED ({run}),
  recent AS MATERIALIZED (
    SELECT l.turn, l.bytes FROM r CROSS JOIN LATERAL (
      SELECT m.turn, octet_length(m.content) AS bytes FROM messages m WHERE {EARLIER}
      ORDER BY m.turn DESC, m.position DESC LIMIT %(rows)s) AS l
  ),
  sized AS (
    SELECT turn, count(*) OVER newer AS turns, sum(sum(bytes)) OVER newer AS bytes,
      sum(sum((bytes + {BYTES_PER_TOKEN - 1}) / {BYTES_PER_TOKEN} + {TOKENS_PER_MESSAGE}))
        OVER newer AS tokens
    FROM recent GROUP BY turn WINDOW newer AS (ORDER BY turn DESC)
  ),
  kept AS (
    SELECT min(turn) AS turn FROM sized WHERE bytes <= %(bytes)s
      AND turns <= coalesce(%(turns)s::int, turns) AND tokens <= coalesce(%(tokens)s::int, tokens)
      AND (turn > (SELECT min(turn) FROM recent) OR (SELECT count(*) FROM recent) < %(rows)s)
  )
SELECT coalesce((SELECT turn FROM kept), r.turn), coalesce((
    SELECT json_agg(json_build_object('role', m.role, 'content', m.content)
      ORDER BY m.turn, m.position) FROM messages m
    WHERE {EARLIER} AND m.turn >= (SELECT turn FROM kept)), '[]')::text
FROM r
"""


_BEFORE_RUN = _statement(_OF_RUN)
_IN_THREAD = _statement(_OF_THREAD)


async def before(store: Store, run_id: RunId, limits: History = NO_LIMITS) -> tuple[int, str]:
    """The first turn that a run is told, its own for none, and a JSON list of messages."""
    rows = await store.fetch(_BEFORE_RUN, {"run": run_id} | _values(limits))
    first, messages = rows[0]
    return first, messages


async def now(
    store: Store, thread: tuple[UUID, UUID, str], environment_id: UUID, limits: History
) -> str:
    """What a run would be told if it came now, as a JSON list of messages.

    `thread` is the workspace, the thread and the channel.
    """
    names = ("workspace", "thread", "channel")
    values = dict(zip(names, thread, strict=True)) | {"environment": environment_id}
    rows = await store.fetch(_IN_THREAD, values | _values(limits))
    return str(rows[0][1])


def _values(limits: History) -> dict[str, object]:
    turns = limits.max_turns
    return {
        "rows": min((turns or HISTORY_ROWS) * TURN_ROWS + 1, HISTORY_ROWS),
        "bytes": HISTORY_BYTES,
        "turns": turns,
        "tokens": limits.max_tokens,
    }
