"""Identifiers: sorted by their making, and read in one spelling only."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import ids

ID = "01a203ee-a133-777b-b2a6-4ae3a76d2d5a"


def test_new_ids_are_of_version_7_and_sort_by_their_making() -> None:
    made = [ids.new_id() for _ in range(1000)]

    assert {7} == {one.version for one in made}
    assert sorted(made) == made
    assert len(made) == len(set(made))
    assert {UUID} == {type(one) for one in made}


@given(st.uuids())
def test_the_canonical_form_is_read_in_either_case(given_id: UUID) -> None:
    assert given_id == ids.parse(str(given_id))
    assert given_id == ids.parse(str(given_id).upper())


@given(st.text(max_size=40))
def test_other_text_is_no_id(text: str) -> None:
    parsed = ids.parse(text)

    assert parsed is None or str(parsed) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ID.replace("-", ""),
        "{" + ID[:34] + "}",
        f"urn:uuid:{ID}",
        "01a203ee-a133-777b-b2a6-4ae3a76d2d5\u0661",
        "01a203ee-a133-777b-b2a6-4ae3a76d2d5g",
        "01a203eea-133-777b-b2a6-4ae3a76d2d5a",
        "01a203ee-a133-777b-b2a6-4ae3a76d2d5a\n",
        " 1a203ee-a133-777b-b2a6-4ae3a76d2d5a",
        "+1a203ee-a133-777b-b2a6-4ae3a76d2d5a",
        "0_a203ee-a133-777b-b2a6-4ae3a76d2d5a",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    assert ids.parse(text) is None
