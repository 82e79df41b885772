"""The straightforward program's tables."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import DateTime, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel


class ApiKey(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    workspace_id: UUID = Field(index=True)
    key_hash: str = Field(unique=True)


class Prompt(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    workspace_id: UUID = Field(index=True)
    slug: str = Field(index=True)


class PromptVersion(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    prompt_id: UUID = Field(foreign_key="prompt.id", index=True)
    tag: str = Field(index=True)
    model: str
    system_instruction: str = Field(sa_type=Text)
    user_message: str = Field(sa_type=Text)


class WebhookEndpoint(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    workspace_id: UUID = Field(index=True)
    url: str
    secret: str


class Run(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    workspace_id: UUID = Field(index=True)
    version_id: UUID = Field(foreign_key="promptversion.id")
    status: str = Field(default="queued", index=True)
    priority: str = "normal"
    inputs: dict[str, str] = Field(sa_type=JSONB)
    output: str | None = Field(default=None, sa_type=Text)
    error: str | None = Field(default=None, sa_type=Text)
    input_tokens: int | None = None
    output_tokens: int | None = None
    created_at: datetime | None = Field(
        default=None,
        sa_type=DateTime(timezone=True),
        sa_column_kwargs={"server_default": func.now()},
    )
    started_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    finished_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class WebhookDelivery(SQLModel, table=True):
    id: UUID = Field(default_factory=uuid4, primary_key=True)
    endpoint_id: UUID = Field(foreign_key="webhookendpoint.id", index=True)
    run_id: UUID = Field(foreign_key="run.id", index=True)
    status: str = "pending"
    status_code: int | None = None
