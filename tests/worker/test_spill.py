"""Results that no database takes: kept in files at the end, brought in later."""

import stat
from pathlib import Path

import msgspec

from shared.store.ending import Outcome
from worker.spill import Spill

OUTCOME = Outcome(
    run_id="01a203f4-b832-712d-bea3-ff6aeb08df74",
    session_id="01a203f4-b832-712d-bea3-ff6aeb08df75",
    claim_no=1,
    status="succeeded",
    output="paid for",
    token_usage=msgspec.Raw(b'{"input":1}'),
)


def test_a_kept_result_is_read_back_whole_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    spill = Spill(tmp_path)

    assert spill.write(OUTCOME)

    ((path, kept),) = spill.kept()
    assert msgspec.json.encode(OUTCOME) == msgspec.json.encode(kept)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "spill").write_text("a file where the folder should be")

    assert not Spill(tmp_path).write(OUTCOME)


def test_a_file_that_is_no_result_is_left_alone(tmp_path: Path) -> None:
    spill = Spill(tmp_path)
    spill.write(OUTCOME)
    strange = tmp_path / "spill" / "strange.json"
    strange.write_text("{")

    assert 1 == len(list(spill.kept()))
    assert strange.exists()
