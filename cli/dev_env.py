"""The file in which `runlane dev` notes its address and its key."""

from pathlib import Path


def read(env_file: Path) -> dict[str, str]:
    """What an earlier start wrote: `RUNLANE_URL` and `RUNLANE_API_KEY`, or nothing."""
    if not env_file.exists():
        return {}
    lines = env_file.read_text().splitlines()
    pairs = (line.removeprefix("export ").partition("=") for line in lines)
    return {name: value.strip() for name, found, value in pairs if found}
