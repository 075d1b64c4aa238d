"""Parts that several kinds and engines share, in Kubernetes' own shapes."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from cos_controllers.api.model import ApiModel, Rule, to_camel
from cos_controllers.api.quantity import Quantity, is_positive_quantity, parse_quantity

#: Labels, annotations, node selectors: bounded, because CEL rules may walk them.
StringMap = Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)]

#: Engine parameters as the engine's own configuration names them; a newline would start another directive.
Parameters = Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=128)]

ObjectName = Annotated[str, Field(min_length=1, max_length=253)]

#: Names of objects (RFC 1123 subdomains).
_OBJECT_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
#: Keys and values of labels, as Kubernetes has them; a key of an annotation looks the same.
_LABEL_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
#: What stands before an image's repository, or is one: no scheme, no spaces. Kubelet judges the rest.
IMAGE_FORM = "^[A-Za-z0-9][-A-Za-z0-9._:/@]*$"


class PullPolicy(StrEnum):
    """When kubelet pulls an image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


#: Of a stack's name, which begins the names of Services.
MAX_STACK_NAME = 30


class LocalReference(ApiModel):
    """An object in the stack's own namespace."""

    name: ObjectName
    """Name of the object."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"self.name.matches('{_OBJECT_NAME}')",
            message="name must be the name of an object: lower-case letters, digits, dashes, dots: my-secret",
            holds=lambda self: re.fullmatch(_OBJECT_NAME, self.name) is not None,
            field_path=".name",
        ),
    )


#: A component as its row in the status of a stack is named.
ComponentName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
OptionalComponentName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)]


class Sql(ApiModel):
    """SQL for a restored Postgres before anybody uses it, as `app`, the owner of database `app`: no superuser."""

    component: OptionalComponentName = ""
    """Component that it is for, for example postgres-dev; every Postgres that is restored when empty."""
    run: Annotated[str, Field(max_length=16384)] = ""
    """Statements, all in one transaction, for example to make data anonymous. Whoever may read Jobs can read them."""
    check: Annotated[str, Field(max_length=4096)] = ""
    """A query that must say true, for example `SELECT count(*) > 0 FROM orders`. Otherwise the restore has failed, and
    nothing of the stack changes."""


class StackReference(ApiModel):
    """A stack of the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_STACK_NAME)]
    """Name of the `CosStack`."""


class Images(ApiModel):
    """Where images come from."""

    registry: Annotated[str, Field(max_length=253)] = ""
    """Registry (and path) that replaces the host of every default image, for mirrors and air-gapped
    clusters: with `registry.example.com/cos`, `redis:8.0` becomes `registry.example.com/cos/redis:8.0`."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """When kubelet pulls an image."""
    pull_secrets: Annotated[
        list[LocalReference], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """Secrets with registry credentials."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"!has(self.registry) || self.registry == '' || self.registry.matches('{IMAGE_FORM}')",
            message="registry must be a host with an optional path, without a scheme, such as registry.example.com/cos",
            holds=lambda self: not self.registry or re.fullmatch(IMAGE_FORM, self.registry) is not None,
            field_path=".registry",
        ),
    )


def _amount_rule(field: str, example: str) -> Rule:
    def holds(amounts: ResourceList) -> bool:
        return is_positive_quantity(getattr(amounts, field))

    return Rule(
        cel=f"!has(self.{field}) || (isQuantity(string(self.{field})) && "
        f"quantity(string(self.{field})).isGreaterThan(quantity('0')))",
        message=f"{field} must be a quantity above zero, for example {example}",
        holds=holds,
        field_path=f".{field}",
    )


class ResourceList(ApiModel):
    """Amounts of compute resources."""

    cpu: Quantity | None = None
    """Cores, for example 250m."""
    memory: Quantity | None = None
    """Bytes, for example 512Mi."""

    rules: ClassVar[tuple[Rule, ...]] = (_amount_rule("cpu", "250m"), _amount_rule("memory", "512Mi"))


def _within_limit_rule(field: str) -> Rule:
    def holds(resources: Resources) -> bool:
        request, limit = getattr(resources.requests, field), getattr(resources.limits, field)
        return request is None or limit is None or parse_quantity(request) <= parse_quantity(limit)

    request, limit = f"self.requests.{field}", f"self.limits.{field}"
    return Rule(
        cel=f"!has({request}) || !has({limit}) || !isQuantity(string({request})) || "
        f"!isQuantity(string({limit})) || "
        f"quantity(string({request})).compareTo(quantity(string({limit}))) <= 0",
        message=f"requests.{field} must not exceed limits.{field}: lower the request or raise the limit",
        holds=holds,
        field_path=f".requests.{field}",
    )


class Resources(ApiModel):
    """Compute resources of one engine container."""

    requests: ResourceList = ResourceList()
    """What the scheduler sets aside."""
    limits: ResourceList = ResourceList()
    """What the container may use at most."""

    rules: ClassVar[tuple[Rule, ...]] = (_within_limit_rule("cpu"), _within_limit_rule("memory"))


def class_rule(field: str, kind: str) -> Rule:
    """A field that may name an object of a kind that belongs to the cluster."""

    def holds(model: ApiModel) -> bool:
        name = getattr(model, field)
        return name is None or re.fullmatch(_OBJECT_NAME, name) is not None

    wire = to_camel(field)
    return Rule(
        cel=f"!has(self.{wire}) || self.{wire}.matches('{_OBJECT_NAME}')",
        message=f"{wire} must be the name of a {kind}, or be left out",
        holds=holds,
        field_path=f".{wire}",
    )


class Storage(ApiModel):
    """The volume of one engine instance."""

    size: Quantity
    """Size of the volume. It can grow where the StorageClass allows it, and never shrinks."""
    storage_class_name: Annotated[str, Field(max_length=253)] | None = None
    """StorageClass of a new volume; the cluster's default when absent."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="isQuantity(string(self.size)) && quantity(string(self.size)).isGreaterThan(quantity('0'))",
            message="size must be a quantity above zero, for example 10Gi",
            holds=lambda self: is_positive_quantity(self.size),
            field_path=".size",
        ),
        class_rule("storage_class_name", "StorageClass"),
    )


def syntax_rule(field: str, *, name: str, values: bool) -> Rule:
    """Keys, and `values` too, of a map of labels or annotations."""

    def holds(model: ApiModel) -> bool:
        return all(
            re.fullmatch(_LABEL_KEY, key) and (not values or re.fullmatch(_LABEL_VALUE, value))
            for key, value in getattr(model, field).items()
        )

    wire = to_camel(field)
    value = f" && self.{wire}[k].matches('{_LABEL_VALUE}')" if values else ""
    what = "keys and values" if values else "keys"
    return Rule(
        cel=f"!has(self.{wire}) || self.{wire}.all(k, k.matches('{_LABEL_KEY}'){value})",
        message=f"{wire}: {what} of {name} are at most 63 letters, digits, '-', '_' and '.', with a letter or digit at "
        "both ends; a key may have a prefix such as example.com/",
        holds=holds,
        field_path=f".{wire}",
    )


def _owned_rule(field: str, prefixes: tuple[str, ...]) -> Rule:
    def holds(metadata: PodMetadata) -> bool:
        return not any(key.startswith(prefixes) for key in getattr(metadata, field))

    starts = " || ".join(f"k.startsWith('{prefix}')" for prefix in prefixes)
    return Rule(
        cel=f"!has(self.{field}) || !self.{field}.exists(k, {starts})",
        message=f"{field} under {' and '.join(prefixes)} belong to the operator: remove them",
        holds=holds,
        field_path=f".{field}",
    )


class PodMetadata(ApiModel):
    """Labels and annotations that are added to pods; the operator's own keys win."""

    labels: StringMap = {}
    """Added labels."""
    annotations: StringMap = {}
    """Added annotations."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _owned_rule("labels", ("cos.dev/", "app.kubernetes.io/")),
        _owned_rule("annotations", ("cos.dev/",)),
        syntax_rule("labels", name="labels", values=True),
        syntax_rule("annotations", name="annotations", values=False),
    )
