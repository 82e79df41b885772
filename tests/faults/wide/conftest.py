"""What of the long scenarios this machine cannot run, and that it says so."""

from pathlib import Path

from tests.faults.checkouts import before_newest_migration

_MAY_MOUNT = 1 << 21  # CAP_SYS_ADMIN


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    granted = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(granted.split()[1], 16) & _MAY_MOUNT)


collect_ignore = [] if _may_mount() else ["test_full_disk.py"]


def pytest_report_header() -> list[str]:
    said = [f"not run, since nothing may be mounted here: {name}" for name in collect_ignore]
    if not before_newest_migration():
        said.append("not run, since the history begins later: test_two_versions.py")
    return said
