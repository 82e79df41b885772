"""Vendors that answer nonsense, or far too much: a failure with its class, in bounded memory."""

import pytest

from tests.faults.rig import Rig
from tests.faults.vendors import MODEL
from tests.vendors import gzip_bomb

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("faults")]

BAD, LONG = "provider_bad_response", "provider_response_too_large"
JUNK = {
    "bad-json": BAD,
    "bad-utf8": BAD,
    "bad-gzip": BAD,
    "empty": BAD,
    "html": BAD,
    "wrong-schema": BAD,
    "empty-choices": BAD,
    "huge": LONG,
    "bomb": LONG,
}
MIB = 1024 * 1024
READ_MAX_BYTES = 20_000_000


async def test_junk_ends_runs_with_its_class_and_takes_no_memory_to_speak_of(rig: Rig) -> None:
    gzip_bomb()
    await rig.api()
    worker = await rig.worker()
    before_mib = worker.memory_mib("VmRSS")

    runs = {
        junk: await rig.customer.accepted(f"f44 {junk}", MODEL + junk, onUnknownOutcome="fail")
        for junk in JUNK
    }
    nul = await rig.customer.accepted("f44 nul", MODEL + "nul")
    rows = {junk: await rig.ended(run_id) for junk, run_id in runs.items()}
    visible = await rig.ended(nul)
    grown_mib = worker.memory_mib("VmHWM") - before_mib

    assert {junk: ("failed", "outcome_unknown", code) for junk, code in JUNK.items()} == {
        junk: (row["status"], row["error_code"], row["tried"][0]["error_code"])
        for junk, row in rows.items()
    }
    assert {1} == {len(rig.vendors.calls_of(run_id)) for run_id in runs.values()}
    assert ("succeeded", "before\\u0000after") == (visible["status"], visible["output"])
    assert grown_mib < 2 * 2 * READ_MAX_BYTES / MIB  # the two long answers at once, and joined
    assert [] == await rig.verdict()
