"""Where a tag goes back to, after any moves by hand and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain import tag_moves

_MOVES = st.lists(st.integers(1, 4) | st.none(), max_size=25)


def _rolled_back_to_the_end(moves: list[int | None]) -> list[int | None]:
    """The moves, and those that rolling back adds until nothing is left."""
    moves = [*moves]
    while (number := tag_moves.before(moves)) is not None:
        moves.append(number)
    return moves


@pytest.mark.parametrize(
    ("moves", "before"),
    [
        ([], None),
        ([1], None),
        ([1, 1, 1], None),
        ([1, 2], 1),
        ([1, 2, 3], 2),
        ([1, 2, 3, 2], 1),
        ([1, 2, 3, 2, 1], None),
        ([1, 2, 3, 1], 3),
        ([1, 2, 3, 2, 4], 2),
        ([1, 2, 3, 2, 4, 2], 1),
        ([1, 2, None], None),
        ([1, 2, None, 3], None),
        ([1, 2, None, 2, 1], 2),
    ],
)
def test_tag_goes_back_to_where_it_came_from(moves: list[int | None], before: int | None) -> None:
    assert before == tag_moves.before(moves)


@given(moves=_MOVES)
def test_going_back_ends_and_never_takes_a_version_that_is_pointed_at(
    moves: list[int | None],
) -> None:
    ended = _rolled_back_to_the_end(moves)

    back = ended[len(moves) :]
    assert len(back) < max(1, len(moves))
    assert all(
        one != other for one, other in zip(ended[len(moves) - 1 :], back, strict=False) if moves
    )


@given(moves=_MOVES, number=st.integers(1, 4))
def test_going_back_undoes_a_move_to_a_version_new_to_the_tag(
    moves: list[int | None], number: int
) -> None:
    """So that a rollout that fails is taken back to exactly what was there before it."""
    moves = [move for move in moves if move != number]
    present = moves[-1] if moves else None

    assert present == tag_moves.before([*moves, number])


@given(moves=_MOVES)
def test_versions_new_to_the_tag_are_gone_back_through_in_reverse(moves: list[int | None]) -> None:
    fresh = [5, 6, 7, 8]
    base = [*moves, *fresh]

    assert [7, 6, 5] == _rolled_back_to_the_end(base)[len(base) :][:3]
