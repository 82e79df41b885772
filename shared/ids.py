"""Identifiers: UUIDv7 (RFC 9562), one NewType per noun."""

from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid7

WorkspaceId = NewType("WorkspaceId", UUID)
KeyId = NewType("KeyId", UUID)
EnvironmentId = NewType("EnvironmentId", UUID)
PromptId = NewType("PromptId", UUID)
VersionId = NewType("VersionId", UUID)
ThreadId = NewType("ThreadId", UUID)
RunId = NewType("RunId", UUID)
EventId = NewType("EventId", UUID)
EndpointId = NewType("EndpointId", UUID)
DeliveryId = NewType("DeliveryId", UUID)
SessionId = NewType("SessionId", UUID)


def new_id() -> UUID:
    """Make an id that sorts by the moment it was made."""
    return uuid7()


def parse(text: str) -> UUID | None:
    """Read a UUID in its canonical 36-character form; anything else is `None`."""
    if len(text) != 36:  # noqa: PLR2004 (the canonical form's length)
        return None
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None
