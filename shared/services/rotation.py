"""Rotating the master key: every secret is sealed anew under the newest one (decision 0009).

Each batch is a transaction, and what is under the newest key is not looked at again: a rotation
that was cut off is simply repeated.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from shared import crashpoints
from shared.deps import Deps
from shared.domain.audit import Action
from shared.services import audit
from shared.services.audit import Operator, Target
from shared.store import sealed
from shared.store.sealed import Column, Sealed
from shared.vault import Vault, VaultError

BATCH: Final = 100
_PASSES: Final = 3  # what changed under our hands is there in the next

Progress = Callable[[str, int, int], None]
"""Is told a table, how many of its secrets are done, and how many there were to do."""


class Unopened(msgspec.Struct, frozen=True):
    """A secret that no configured master key opens, named by its row."""

    table: str
    key: str
    reason: str


class Rotated(msgspec.Struct, frozen=True):
    """What a rotation did: secrets sealed anew, those that cannot be, those under another key yet.

    Something is left when a process that does not know the newest key went on sealing with an older
    one.
    """

    count: int
    unopened: tuple[Unopened, ...]
    left: int


class Standing(msgspec.Struct, frozen=True):
    """How many secrets there are, and how many of them under each key but the newest."""

    total: int
    others: dict[str, int]


async def rotate(deps: Deps, progress: Progress) -> Rotated:
    """Seal everything anew that is not under the newest master key.

    Safe beside processes that run: a secret that is changed meanwhile keeps its change. Raises
    `VaultError` where no master key is set.
    """
    newest = _newest(deps.vault)
    count = 0
    unopened: dict[tuple[str, str], Unopened] = {}
    for _ in range(_PASSES):
        before = count
        for column in sealed.COLUMNS:
            keys = await sealed.under_other_keys(deps.store, column, newest)
            done = 0
            for start in range(0, len(keys), BATCH):
                batch = keys[start : start + BATCH]
                rows = await sealed.read(deps.store, column, batch)
                pairs, failed = _sealed_anew(deps.vault, column, rows)
                unopened |= {(one.table, one.key): one for one in failed}
                count += await _replace(deps, column, pairs, first=count == 0)
                done += len(batch)
                progress(column.table, done, len(keys))
        if count == before:
            break
    standing = await stand(deps)
    left = sum(standing.others.values()) - len(unopened)
    return Rotated(count, tuple(unopened.values()), max(left, 0))


async def stand(deps: Deps) -> Standing:
    """Count the secrets under each master key."""
    total, others = 0, dict[str, int]()
    for column in sealed.COLUMNS:
        for key_id, count in (await sealed.counts(deps.store, column)).items():
            total += count
            if key_id != deps.vault.current:
                others[key_id] = others.get(key_id, 0) + count
    return Standing(total, others)


def _newest(vault: Vault) -> str:
    if vault.current is None:
        raise VaultError("No MASTER_KEY is set, so there is nothing to rotate to.")
    return vault.current


def _sealed_anew(
    vault: Vault, column: Column, rows: Sequence[Sealed]
) -> tuple[list[tuple[Sealed, bytes]], list[Unopened]]:
    pairs: list[tuple[Sealed, bytes]] = []
    failed: list[Unopened] = []
    for row in rows:
        try:
            plain = vault.open(row.sealed, *row.place)
        except VaultError as error:
            key = " ".join(map(str, row.key))
            failed.append(Unopened(f"{column.table}.{column.column}", key, str(error)))
        else:
            pairs.append((row, vault.seal(plain, *row.place)))
    return pairs, failed


async def _replace(
    deps: Deps, column: Column, pairs: Sequence[tuple[Sealed, bytes]], *, first: bool
) -> int:
    """One batch; the first that changes something stands in the audit for the whole rotation."""
    if not pairs:
        return 0
    async with deps.store.transaction() as tx:
        replaced = await sealed.replace(tx, column, pairs)
        if replaced and first:
            target = Target("master key", None, _newest(deps.vault))
            details = {"to": deps.vault.current}
            await audit.note(tx, Operator(), Action.SECRETS_ROTATED, target, details)
    crashpoints.reach("rotate_mid_batch")
    return replaced
