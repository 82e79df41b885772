"""What end-to-end tests share: a receiver."""

from collections.abc import Iterator

import pytest

from tests.e2e.receiver import Receiver


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as receiver:
        yield receiver
