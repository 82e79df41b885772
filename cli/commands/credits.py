"""`runlane credits`: what workspaces may spend, for the operator."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="What workspaces may spend, for the operator.")

Workspace = Annotated[str, typer.Argument(help="The workspace's id.")]


@app.command("show")
def show(workspace: Workspace) -> None:
    """Show what a workspace has left, what calls under way hold, and what one run may cost."""
    from cli import operator

    for line in operator.credit_lines(operator.configured(), workspace):
        print(line)


@app.command("grant")
def grant(
    workspace: Workspace,
    amount: Annotated[
        int, typer.Argument(help="Credits: 1,000,000 are a dollar; below 0 takes them away.")
    ],
    comment: Annotated[str, typer.Option(help="What for; kept in the ledger.")],
) -> None:
    """Give credits to a workspace; runs that wait for them start.

    Take some away with a negative number: `runlane credits grant --comment … -- ID -5000000`.
    """
    from cli import operator

    left = operator.grant_credits(operator.configured(), workspace, amount, comment)
    print(f"The workspace has {left} credits.")


@app.command("meter")
def meter(workspace: Workspace) -> None:
    """Let a workspace pay for its runs with its credits, from now on."""
    from cli import operator

    operator.meter(operator.configured(), workspace, metered=True)
    print("It pays from now on. Give it credits with: runlane credits grant")


@app.command("unmeter")
def unmeter(workspace: Workspace) -> None:
    """Let the runs of a workspace cost it nothing, from now on."""
    from cli import operator

    operator.meter(operator.configured(), workspace, metered=False)
    print("Its runs cost it nothing from now on.")


@app.command("cap")
def cap(
    workspace: Workspace,
    amount: Annotated[
        int | None, typer.Argument(help="Credits that any one run may cost; none: no cap.")
    ] = None,
) -> None:
    """Cap what one run of a workspace may cost: it fails before the call that might cost more."""
    from cli import operator

    operator.cap_requests(operator.configured(), workspace, amount)
    print("No cap." if amount is None else f"A run may cost {amount} credits.")


@app.command("settle")
def settle(
    workspace: Workspace,
    *,
    charge: Annotated[
        bool, typer.Option("--charge/--release", help="Charge what is held, or give it back.")
    ],
) -> None:
    """Settle the calls of which nobody knows what they cost, such as those of lost workers."""
    from cli import operator

    count = operator.settle_credits(operator.configured(), workspace, charge=charge)
    print(f"{count} calls {'charged with what was held' if charge else 'given back'}.")
