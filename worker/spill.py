"""Results that no database would take: kept as files, brought in by any worker of this machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from shared import log, metrics
from shared.store.ending import Outcome

_OWNER_ONLY = 0o600
_log = log.get(__name__)
_fields = msgspec.json.Decoder(dict[str, Raw])
_RAW = {field.name for field in msgspec.structs.fields(Outcome) if field.type == Raw | None}


class Spill:
    """A folder of outcomes, one file each; writing one again replaces it."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "spill"

    def write(self, outcome: Outcome) -> bool:
        """Keep an outcome; `False` when the folder cannot be written."""
        path = self._folder / f"{outcome.run_id}.{outcome.claim_no}.json"
        draft = path.with_suffix(f".{os.getpid()}.draft")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(outcome))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            _log.error("result_not_spilled", run_id=outcome.run_id, error=str(error))
            return False
        metrics.SPILLED.add()
        _log.warning("result_spilled", run_id=outcome.run_id)
        return True

    def kept(self) -> Iterator[tuple[Path, Outcome]]:
        """What is there, with its file; one that cannot be read is left for a person."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield path, _read(path.read_bytes())
            except FileNotFoundError:
                continue  # another worker has brought it in
            except (OSError, msgspec.DecodeError, TypeError) as error:
                _log.warning("spilled_result_unreadable", file=path.name, error=str(error))


def _read(data: bytes) -> Outcome:
    """Read what `write` wrote; msgspec cannot tell `Raw | None` apart by itself."""
    fields: dict[str, Any] = {
        name: Raw(bytes(value)) if name in _RAW else msgspec.json.decode(value)
        for name, value in _fields.decode(data).items()
    }
    return Outcome(**fields)
