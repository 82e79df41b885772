"""Names that stand for models."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Integer, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from shared.domain.aliases import Strategy
from shared.store.tables.base import Table, TextArray, UtcDateTime, one_of


class AliasRow(Table, table=True):
    """A workspace's name for some models, and how one of them is chosen."""

    __tablename__ = "model_aliases"
    __table_args__ = (
        one_of("strategy", Strategy),
        CheckConstraint("cardinality(models) > 0", name="stands_for_something"),
        CheckConstraint(
            "(strategy = 'WeightedRandom') = (weights IS NOT NULL)", name="weights_iff_weighted"
        ),
        CheckConstraint(
            "weights IS NULL OR cardinality(weights) = cardinality(models)", name="weights_fit"
        ),
    )

    workspace_id: UUID = Field(primary_key=True, sa_column_args=(ForeignKey("workspaces.id"),))
    alias: str = Field(primary_key=True, sa_type=Text)
    models: list[str] = Field(sa_type=TextArray)
    strategy: str = Field(sa_type=Text)
    weights: list[int] | None = Field(default=None, sa_type=ARRAY(Integer))
    description: str | None = Field(default=None, sa_type=Text)
    updated_at: datetime = Field(
        default=None, sa_type=UtcDateTime, sa_column_kwargs={"server_default": func.now()}
    )
