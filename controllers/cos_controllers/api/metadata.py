"""What the operator reads of the metadata of its own kinds."""

from __future__ import annotations

from cos_controllers.api.model import ApiModel


class OwnerReference(ApiModel):
    """What the operator reads of an owner reference."""

    uid: str = ""
    """UID of the owner."""
    controller: bool = False
    """Whether the owner manages the object."""


class ManagedFields(ApiModel):
    """What the operator reads of who has written an object."""

    subresource: str = ""
    """The part that was written, "" for all but it."""
    time: str = ""
    """When something was last changed (RFC 3339)."""


class Metadata(ApiModel):
    """What the operator reads of an object's metadata."""

    name: str
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""
    uid: str = ""
    """UID that the API server gave."""
    resource_version: str = ""
    """Version of the object."""
    generation: int = 0
    """Generation of the spec."""
    labels: dict[str, str] = {}
    """Its labels."""
    creation_timestamp: str = ""
    """When it was created (RFC 3339)."""
    owner_references: list[OwnerReference] = []
    """Its owners."""
    managed_fields: list[ManagedFields] = []
    """Who has written it, and when."""
    deletion_timestamp: str | None = None
    """When deletion was asked for (RFC 3339)."""
