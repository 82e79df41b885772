"""What end-to-end tests share: a receiver, and processes that speak up when a test fails."""

from collections.abc import Generator, Iterator

import pytest

from tests.e2e import processes
from tests.e2e.receiver import Receiver


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as receiver:
        yield receiver


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes of a failed test said."""
    report = yield
    if report.failed:
        for process in processes.running:
            report.sections.append((f"{process.name} ({process.pid})", process.said()))
    return report
