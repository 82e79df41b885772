"""How many requests an endpoint gets at once: ten, more while it is fast, half when it fails."""

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import EndpointId, new_id
from shared.settings import Settings
from worker.rooms import KEPT_S, Rooms

SETTINGS = Settings()
ONE, OTHER = EndpointId(new_id()), EndpointId(new_id())


def _fill(rooms: Rooms, endpoint_id: EndpointId = ONE) -> int:
    """Begin as many requests as there is room for."""
    begun = 0
    while rooms.enter(endpoint_id, 0):
        begun += 1
    return begun


def _answer(rooms: Rooms, count: int, *, succeeded: bool | None, took_s: float = 0.1) -> None:
    for _ in range(count):
        rooms.leave(ONE, succeeded=succeeded, took_s=took_s)


def test_an_endpoint_gets_ten_at_once_whatever_others_have() -> None:
    rooms = Rooms(SETTINGS)

    assert [10, 10] == [_fill(rooms), _fill(rooms, OTHER)]
    assert 20 == rooms.busy


def test_fast_answers_make_room_up_to_a_hundred() -> None:
    rooms = Rooms(SETTINGS)
    found = []
    for _ in range(6):
        found.append(_fill(rooms))
        _answer(rooms, found[-1], succeeded=True)

    assert [10, 20, 40, 80, 100, 100] == found


def test_slow_answers_leave_it_at_ten() -> None:
    rooms = Rooms(SETTINGS)
    _answer(rooms, _fill(rooms), succeeded=True, took_s=1.5)

    assert 10 == _fill(rooms)


def test_each_failure_halves_it_down_to_one_and_slow_answers_lead_back_to_ten() -> None:
    rooms = Rooms(SETTINGS)
    found = []
    for _ in range(5):
        rooms.enter(ONE, 0)
        _answer(rooms, 1, succeeded=False)
        found.append(_fill(rooms))
        _answer(rooms, found[-1], succeeded=None)
    for _ in range(12):
        rooms.enter(ONE, 0)
        _answer(rooms, 1, succeeded=True, took_s=3)

    assert [5, 2, 1, 1, 1] == found
    assert 10 == _fill(rooms)


def test_a_claim_asks_for_what_is_free_and_hears_of_more_where_it_got_it_all() -> None:
    rooms = Rooms(SETTINGS)
    for _ in range(4):
        rooms.enter(ONE, 0)
    asked = rooms.ask()
    rooms.learn(asked, {ONE: 6, OTHER: 3})

    assert {ONE: 6} == asked
    assert (True, False) == (rooms.calls(ONE), rooms.calls(OTHER))


def test_who_is_full_calls_only_when_half_is_free() -> None:
    rooms = Rooms(SETTINGS)
    _fill(rooms)
    rooms.crowd(ONE)
    found = []
    for _ in range(5):
        _answer(rooms, 1, succeeded=None)
        found.append(rooms.calls(ONE))

    assert [False, False, False, False, True] == found


def test_what_nobody_uses_is_forgotten_but_never_what_is_under_way() -> None:
    rooms = Rooms(SETTINGS)
    rooms.enter(ONE, 0)
    rooms.enter(OTHER, 0)
    rooms.leave(OTHER, succeeded=False, took_s=0)
    before = rooms.ask()
    rooms.forget_idle(KEPT_S + 1)

    assert ({ONE: 9, OTHER: 5}, {ONE: 9}) == (before, rooms.ask())


@given(st.lists(st.sampled_from(["enter", "well", "slow", "failed", "nothing"]), max_size=300))
def test_room_is_never_below_one_nor_above_the_most_nor_overdrawn(steps: list[str]) -> None:
    rooms, busy = Rooms(SETTINGS), 0
    succeeded = {"well": True, "slow": True, "failed": False, "nothing": None}
    for step in steps:
        if step == "enter":
            busy += rooms.enter(ONE, 0)
        elif busy:
            rooms.leave(ONE, succeeded=succeeded[step], took_s=5 if step == "slow" else 0.1)
            busy -= 1
        assert busy == rooms.busy
        assert 0 <= busy <= 100
    free = _fill(rooms)
    assert 1 <= max(busy, busy + free) <= 100
