"""Circuit breakers: after enough failures a model is left alone for a while, then probed once."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shared.clock import Clock
from shared.settings import Settings

SIM = "sim"
MAX_CIRCUITS = 10_000  # beyond it those that are closed start counting anew
Key = tuple[str, str, str]
"""Provider, credential (a digest, never the key itself), model."""


@dataclass(slots=True)
class _Second:
    at: int
    calls: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Circuit:
    seconds: deque[_Second] = field(default_factory=deque)
    calls: int = 0
    failures: int = 0
    open_until: float | None = None
    probing: bool = False

    def count(self, now: float, window_s: float, *, failed: bool) -> None:
        """Add one call and forget the seconds before the window; a second costs one entry."""
        while self.seconds and self.seconds[0].at < now - window_s:
            old = self.seconds.popleft()
            self.calls -= old.calls
            self.failures -= old.failures
        if not self.seconds or self.seconds[-1].at != int(now):
            self.seconds.append(_Second(int(now)))
        self.calls += 1
        self.failures += failed
        self.seconds[-1].calls += 1
        self.seconds[-1].failures += failed


class Breakers:
    """One circuit per (provider, credential, model), in this process only.

    The simulated vendor has none: it fails on demand, and nobody is spared by waiting.
    """

    def __init__(
        self, settings: Settings, clock: Clock, opened: Callable[[Key], object] = lambda _: None
    ) -> None:
        self._opened = opened
        self._settings = settings
        self._clock = clock
        self._circuits: dict[Key, _Circuit] = {}

    def wait_s(self, key: Key) -> float:
        """How long to stay away; 0 when a call may be made. The first caller after that probes."""
        circuit = self._circuits.get(key)
        if circuit is None or circuit.open_until is None:
            return 0
        left_s = circuit.open_until - self._clock.monotonic()
        if left_s > 0:
            return left_s
        if circuit.probing:
            return self._settings.breaker_open_s / 10
        circuit.probing = True
        return 0

    def release(self, key: Key) -> None:
        """A call that was let through was not made after all."""
        circuit = self._circuits.get(key)
        if circuit is not None:
            circuit.probing = False

    def record(self, key: Key, *, failed: bool, at_once: bool = False) -> bool:
        """Note how a call ended; answers whether that opened the circuit.

        `at_once` opens it whatever came before: the credential is bad.
        """
        if key[0] == SIM:
            return False
        if len(self._circuits) >= MAX_CIRCUITS:
            self._circuits = {k: c for k, c in self._circuits.items() if c.open_until is not None}
        circuit = self._circuits.setdefault(key, _Circuit())
        now = self._clock.monotonic()
        if circuit.open_until is not None and circuit.probing and not failed:
            del self._circuits[key]
            return False
        reopened = circuit.probing and failed
        circuit.probing = False
        circuit.count(now, self._settings.breaker_window_s, failed=failed)
        too_many = (
            failed
            and circuit.failures >= self._settings.breaker_failures
            and 2 * circuit.failures >= circuit.calls
        )
        if not (at_once or too_many or reopened):
            return False
        circuit.open_until = now + self._settings.breaker_open_s
        self._opened(key)
        return True

    def open_now(self) -> Mapping[str, int]:
        """How many circuits of each provider are open."""
        now = self._clock.monotonic()
        found = self._circuits.items()
        return Counter(key[0] for key, one in found if one.open_until and one.open_until > now)
