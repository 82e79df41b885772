"""Every table. What must be true is a constraint here, not a hope elsewhere."""

from sqlalchemy import MetaData

from shared.store.tables.aliases import AliasRow
from shared.store.tables.audit import AuditRow
from shared.store.tables.base import Table
from shared.store.tables.money import (
    AccountRow,
    BudgetRow,
    HoldRow,
    LedgerRow,
    UsageMarkRow,
    UsageOpenRow,
    UsageSumRow,
)
from shared.store.tables.pins import PinChangeRow, PinRow
from shared.store.tables.prompts import (
    PromptAliasRow,
    PromptRow,
    PromptTagRow,
    PromptVersionRow,
    TagChangeRow,
)
from shared.store.tables.runs import (
    AttemptRow,
    IdempotencyKeyRow,
    LanePauseRow,
    MessageRow,
    RunRow,
    ThreadRow,
    TurnRow,
    WorkerSessionRow,
)
from shared.store.tables.tenants import (
    ApiKeyRow,
    EnvironmentRow,
    EnvironmentVariableRow,
    WorkspaceRow,
)
from shared.store.tables.webhooks import (
    DeliveryRow,
    DeliveryTryRow,
    EndpointRow,
    EventRow,
    FailingEndpointRow,
    WebhookSecretRow,
)

METADATA: MetaData = Table.metadata

__all__ = [
    "METADATA",
    "AccountRow",
    "AliasRow",
    "ApiKeyRow",
    "AttemptRow",
    "AuditRow",
    "BudgetRow",
    "DeliveryRow",
    "DeliveryTryRow",
    "EndpointRow",
    "EnvironmentRow",
    "EnvironmentVariableRow",
    "EventRow",
    "FailingEndpointRow",
    "HoldRow",
    "IdempotencyKeyRow",
    "LanePauseRow",
    "LedgerRow",
    "MessageRow",
    "PinChangeRow",
    "PinRow",
    "PromptAliasRow",
    "PromptRow",
    "PromptTagRow",
    "PromptVersionRow",
    "RunRow",
    "Table",
    "TagChangeRow",
    "ThreadRow",
    "TurnRow",
    "UsageMarkRow",
    "UsageOpenRow",
    "UsageSumRow",
    "WebhookSecretRow",
    "WorkerSessionRow",
    "WorkspaceRow",
]
