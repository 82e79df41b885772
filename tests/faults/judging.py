"""From a store and three ledgers to the referee's verdict."""

from collections.abc import Sequence

from tests.faults import facts, referee
from tests.faults.client import Customer
from tests.faults.receiver import Receiver
from tests.faults.referee import Case, Figures, Ledgers, SeenCall, Violation
from tests.faults.vendors import ScriptedVendors


async def judged(
    url: str,
    parties: tuple[Customer, ScriptedVendors, Receiver],
    figures: Figures,
) -> Sequence[Violation]:
    """Hold what a store says against what its customer, vendors and receiver wrote down."""
    customer, vendors, receiver = parties
    ledgers = Ledgers(
        orders=tuple(customer.orders.values()),
        calls=[
            SeenCall(call.run_id, call.attempt, call.model, call.received_at)
            for call in vendors.ledger
        ],
        hooks=tuple(receiver.ledger),
        cancels=tuple(customer.cancels),
    )
    return referee.judge(Case(await facts.read(url), ledgers, figures))
