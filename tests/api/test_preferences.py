"""`Prefer: wait=N` is found where RFC 7240 has it, and nowhere else."""

import pytest

from api import preferences


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["wait=5"], 5),
        (["WAIT = 5"], 5),
        (['wait="5"'], 5),
        (["respond-async, wait=5"], 5),
        (["respond-async", "wait=5"], 5),
        (["wait=5; x=1, foo"], 5),
        (['a=1 ;b; c="d" ,, wait=5'], 5),
        (["wait=5, wait=9"], 5),
        (["wait=100000000"], 100_000_000),
        ([], None),
        ([""], None),
        (["x;wait=5"], None),
        (["x; y=1; wait=5"], None),
        (['x="a, wait=5"'], None),
        (['x="\\", wait=5, \\""'], None),
        (["await=5"], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=1e9"], None),
        (["wait=5s"], None),
        (["wait=\u0665"], None),
        (["wait=10000000000"], None),
        (["(comment), wait=5"], None),
        (["wait=x, wait=5"], None),
    ],
)
def test_only_a_preference_of_this_name_is_a_wait(fields: list[str], expected: int | None) -> None:
    assert expected == preferences.wait_s(fields)


@pytest.mark.parametrize("piece", [", ", "; ", "x=", "x ", ";x", ' = "'])
def test_a_long_field_is_judged_at_once(piece: str) -> None:
    assert preferences.wait_s([piece * 5_000 + "\x00"]) is None
