"""`runlane credits` as the operator types it, over the database."""

from pathlib import Path

import pytest

from shared.deps import Deps
from shared.settings import Settings
from tests.e2e.processes import clean_env
from tests.factories import Tenant
from tests.faults.processes import Launcher


@pytest.fixture
def credits_(launcher: Launcher, tmp_path: Path, settings: Settings) -> "Credits":
    env = clean_env(
        tmp_path,
        DATABASE_URL=settings.database_url.get_secret_value(),
        REDIS_URL=settings.redis_url.get_secret_value(),
        DATA_DIR=str(tmp_path / "data"),
    )
    return Credits(launcher, tmp_path, env)


class Credits:
    """Types `runlane credits …`; answers the exit code and what was printed."""

    def __init__(self, launcher: Launcher, folder: Path, env: dict[str, str]) -> None:
        self._launcher, self._folder, self._env = launcher, folder, env

    def __call__(self, *words: str) -> tuple[int, str]:
        code, out, err = self._launcher.run(["credits", *words], self._env, self._folder)
        return code, out + err


async def test_the_operator_meters_grants_takes_back_caps_and_sees_it(
    credits_: Credits, deps: Deps, tenant: Tenant
) -> None:
    one = str(tenant.workspace_id)

    said = [
        credits_("show", one),
        credits_("meter", one),
        credits_("grant", one, "5000000", "--comment", "an invoice"),
        credits_("grant", "--comment", "put right", "--", one, "-1000000"),
        credits_("cap", one, "2000"),
        credits_("show", one),
        credits_("settle", one, "--release"),
        credits_("cap", one),
        credits_("unmeter", one),
    ]

    assert [
        (0, "left          not metered\nheld          0\na run at most no cap\n"),
        (0, "It pays from now on. Give it credits with: runlane credits grant\n"),
        (0, "The workspace has 5000000 credits.\n"),
        (0, "The workspace has 4000000 credits.\n"),
        (0, "A run may cost 2000 credits.\n"),
        (0, "left          4000000\nheld          0\na run at most 2000\n"),
        (0, "0 calls given back.\n"),
        (0, "No cap.\n"),
        (0, "Its runs cost it nothing from now on.\n"),
    ] == said
    lines = await deps.store.fetch("SELECT amount_nanousd, comment FROM ledger ORDER BY id", {})
    assert [(5_000_000_000, "an invoice"), (-1_000_000_000, "put right")] == list(lines)


@pytest.mark.parametrize(
    "words",
    [
        ("show", "no-id"),
        ("grant", "01890000-0000-7000-8000-000000000000", "1", "--comment", "nobody's"),
        ("grant", "01890000-0000-7000-8000-000000000000", "1"),
        ("grant", "01890000-0000-7000-8000-000000000000", "much", "--comment", "x"),
        ("settle", "01890000-0000-7000-8000-000000000000"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(
    credits_: Credits, deps: Deps, words: tuple[str, ...]
) -> None:
    code, said = credits_(*words)

    assert code in {1, 2}, said
    assert "Traceback" not in said
    assert [] == list(await deps.store.fetch("SELECT 1 FROM ledger", {}))
