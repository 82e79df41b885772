"""A platform under test: where it listens, how a run is submitted, which processes it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench import client, cpu
from bench.peers import NORMAL
from bench.processes import Child

PATH = "/api/v1/prompts/greeting/production/runs"
_PLACE = NORMAL + "0" * 8


@dataclass(frozen=True)
class System:
    """Running processes of one platform, with the servers it stands on."""

    name: str
    url: str
    key: str
    database_url: str
    processes: Mapping[str, list[Child]]
    servers: Mapping[str, list[int]] = field(default_factory=dict)

    def groups(self) -> cpu.Groups:
        own = {name: [one.pid for one in found] for name, found in self.processes.items()}
        return {**own, **self.servers}

    def submission(self, priority: str = "normal") -> "Submission":
        return Submission(self.key, priority)


class Submission:
    """The bytes of a submission, put together once: tokens are all of one length."""

    def __init__(self, key: str, priority: str) -> None:
        body = {"inputs": {"name": f"#{_PLACE}#"}, "priority": priority}
        self._before, _, self._after = client.request("POST", PATH, key, body).partition(
            _PLACE.encode()
        )

    def of(self, token: str) -> bytes:
        return self._before + token.encode() + self._after
