"""Signs of life for whoever watches a process: systemd, and probes that look at a file."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cli.serve import StartError
from shared.settings import Settings
from shared.tasks import end

SHOW_S = 1.0


@asynccontextmanager
async def shown(settings: Settings) -> AsyncIterator[None]:
    """Say that the process is ready and, until the block ends, every second that its loop runs.

    A database that is away does not count: a restart would not bring it back, and would lose what
    the process has in hand. Raises `StartError` when the file cannot be written.
    """
    file = Path(settings.alive_file) if settings.alive_file else None
    try:
        _touch(file)
    except OSError as error:
        raise StartError(f"ALIVE_FILE cannot be written ({error}).") from error
    _tell(settings.notify_socket, b"READY=1")
    showing = asyncio.create_task(_show_forever(file, settings.notify_socket))
    try:
        yield
    finally:
        await end([showing])


async def _show_forever(file: Path | None, notify_socket: str) -> None:
    while True:
        await asyncio.sleep(SHOW_S)
        with suppress(OSError):  # whoever looks at the file sees that it grows old
            _touch(file)
        _tell(notify_socket, b"WATCHDOG=1")


def _touch(file: Path | None) -> None:
    if file is not None:
        file.touch()


def _tell(notify_socket: str, state: bytes) -> None:
    """Speak the protocol of sd_notify(3)."""
    if not notify_socket:
        return
    address = f"\0{notify_socket[1:]}" if notify_socket.startswith("@") else notify_socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking, suppress(OSError):
        speaking.settimeout(0)
        speaking.sendto(state, address)
