"""`runlane doctor`: the findings as a table."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from shared.services.findings import Finding, Verdict

_STYLES = {
    Verdict.GOOD: "green",
    Verdict.WARNING: "yellow",
    Verdict.BAD: "bold red",
    Verdict.REPAIRED: "cyan",
}


def show(findings: Sequence[Finding]) -> bool:
    """Print the findings; answers whether nothing is wrong any more."""
    table = Table("check", "verdict", "what that means")
    for finding in findings:
        table.add_row(
            finding.check, f"[{_STYLES[finding.verdict]}]{finding.verdict}", finding.detail
        )
    Console(highlight=False).print(table)
    bad = [finding for finding in findings if finding.verdict is Verdict.BAD]
    if bad:
        print(f"{len(bad)} wrong. Repair what can be repaired with: runlane doctor --fix")
    return not bad
