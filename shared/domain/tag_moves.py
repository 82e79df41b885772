"""Where a tag goes back to."""

from collections.abc import Iterable


def before(moves: Iterable[int | None]) -> int | None:
    """Find the version that a tag pointed at before its present one; `None` where none is left.

    `moves` are the numbers of the versions it was pointed at, oldest first, without those that are
    deleted; `None` is its removal, after which it began anew. A move to where it came from goes
    back on its line instead of adding to it, so that going back again goes further back.
    """
    line: list[int] = []
    for number in moves:
        if number is None:
            line.clear()
        elif line[-2:-1] == [number]:
            line.pop()
        elif line[-1:] != [number]:
            line.append(number)
    return line[-2] if len(line) > 1 else None
