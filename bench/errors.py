"""What stops a benchmark, for a person to read."""


class BenchError(Exception):
    """A measurement cannot be made or cannot be trusted; the message says why."""


class SkippedError(Exception):
    """A part cannot run yet; the message says what is missing."""
