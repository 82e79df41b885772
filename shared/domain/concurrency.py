"""How many requests one endpoint gets at once: more while it answers fast, half when it fails."""


def after_success(limit: int, *, fast: bool, start: int, most: int) -> int:
    """One more after a fast answer, up to `most`; below `start` any answer will do."""
    if limit < start or (fast and limit < most):
        return limit + 1
    return limit


def after_failure(limit: int) -> int:
    """Half, and always one."""
    return max(limit // 2, 1)
