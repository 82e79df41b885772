"""Moments as people type them."""

import re
from datetime import timedelta

import typer

from shared.clock import SystemClock, rfc3339

_SPAN = re.compile(r"([0-9]{1,6})([hd])")


def ahead(text: str) -> str:
    """Write a span (`90d`, `12h`) as the moment that far ahead; anything else stays as it is."""
    span = _SPAN.fullmatch(text)
    if span is None:
        return text
    hours = int(span[1]) * (24 if span[2] == "d" else 1)
    try:
        return rfc3339(SystemClock().now() + timedelta(hours=hours))
    except OverflowError as error:
        raise typer.BadParameter(f"{text} is too far ahead.") from error
