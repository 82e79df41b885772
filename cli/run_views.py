"""Runs for a person's eyes."""

from typing import Any

from cli import output

COLUMNS = ("ID", "STATUS", "PROMPT", "CREATED", "COST $", "ENVIRONMENT", "LANE", "MODEL")
_ATTEMPT_COLUMNS = ("CALL", "OUTCOME", "STARTED", "MODEL", "TOKENS", "COST $", "BILLED", "ERROR")

Run = dict[str, Any]
Row = tuple[object, ...]


def row(run: Run) -> Row:
    """A run as a row of `COLUMNS`."""
    return (
        run["id"],
        run["status"],
        _prompt(run),
        output.moment(run["createdAt"]),
        _dollars(run["cost"]),
        run["environment"],
        run["priority"],
        run["model"],
    )


def show(run: Run) -> None:
    """Print what a run is, each of its calls, and its output."""
    output.fields(
        {
            "Run": run["id"],
            "Status": status_of(run),
            "Error": _error(run["error"]),
            "Prompt": _prompt(run),
            "Environment": run["environment"],
            "Lane": run["priority"],
            "Model": run["model"],
            "Thread": run["thread"],
            "Tags": run["tags"] or None,
            "Metadata": _pairs(run["metadata"]),
            "Inputs": _pairs(run["inputs"]),
            "Created": output.moment(run["createdAt"]),
            "Started": output.moment(run["startedAt"]),
            "Finished": output.moment(run["finishedAt"]),
            "Replay of": run["replayedFrom"],
            "Tokens": _tokens(run["tokenUsage"]),
            "Cost": _cost(run["cost"]),
        }
    )
    if run["attempts"]:
        output.blank()
        output.table(_ATTEMPT_COLUMNS, [_attempt(one) for one in run["attempts"]])
    if run["output"] is not None:
        output.blank()
        output.text(run["output"])


def status_of(run: Run) -> str:
    """The status, and what there is to say about it."""
    parts = [run["statusReason"], run["incompleteReason"]]
    if run["nextAttemptAt"]:
        parts.append(f"next try {output.moment(run['nextAttemptAt'])}")
    if run["cancelRequestedAt"] and not run["done"]:
        parts.append("stopping")
    known = ", ".join(part for part in parts if part)
    return f"{run['status']} ({known})" if known else str(run["status"])


def sentence_of(run: Run) -> str:
    """How a run that did not succeed ended, and why."""
    error = _error(run["error"])
    return f"Run {run['id']} is {status_of(run)}" + (f": {error}" if error else ".")


def _prompt(run: Run) -> str:
    prompt = run["prompt"]
    tag = f" ({prompt['tag']})" if prompt["tag"] else ""
    return f"{prompt['slug']} v{prompt['version']}{tag}"


def _attempt(attempt: dict[str, Any]) -> Row:
    usage, error = attempt["usage"], attempt["error"]
    outcome = attempt["outcome"] or "under way"
    return (
        attempt["number"],
        f"{outcome}, late" if attempt["late"] else outcome,
        output.moment(attempt["startedAt"]),
        attempt["model"],
        None if usage is None else usage["total"],
        _dollars(attempt["cost"]),
        attempt["billed"],
        None if error is None else f"{error['code']}: {error['message']}",
    )


def _error(error: dict[str, Any] | None) -> str | None:
    return None if error is None else f"{error['message']} ({error['code']}, {error['origin']})"


def _tokens(usage: dict[str, Any] | None) -> str | None:
    if usage is None:
        return None
    cached = f" ({usage['inputCached']:,} of them cached)" if usage["inputCached"] else ""
    reasoning = f" ({usage['reasoning']:,} of them reasoning)" if usage["reasoning"] else ""
    return f"{usage['total']:,}: {usage['input']:,} in{cached}, {usage['output']:,} out{reasoning}"


def _cost(cost: dict[str, Any] | None) -> str | None:
    if cost is None:
        return None
    lost = cost["retries"]["total"]
    return f"${_dollars(cost)}" + (f", ${lost:.6f} of it for calls that failed" if lost else "")


def _dollars(cost: dict[str, Any] | None) -> str | None:
    return None if cost is None else f"{cost['total']:.6f}"


def _pairs(values: dict[str, Any]) -> str | None:
    return ", ".join(f"{name}={_short(value)}" for name, value in values.items()) or None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 (a line's worth)
