"""The operator's settings, from environment variables with the prefix ``COS_``."""

from __future__ import annotations

import re
import secrets
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_PREFIX = "COS_"
#: Kubernetes mounts the pod's own namespace here.
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class SettingsError(Exception):
    """A setting has a wrong value; the message names each variable and what is wrong with it."""


class LogFormat(StrEnum):
    """How log lines are written."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least severe log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _process_identity() -> str:
    """Host name (in a pod: its name) and a random part: no two processes may compete under one identity."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"


class OperatorSettings(BaseSettings):
    """Everything that can be set. Durations are seconds. Use `load`, which explains wrong values."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Namespaces to serve, separated by commas. Empty: all of the cluster."
    )
    kubeconfig: str | None = Field(
        default=None, description="Path of a kubeconfig. Unset: the pod's service account, else kubectl's."
    )
    context: str | None = Field(
        default=None, description="Context of the kubeconfig. Unset: its current one."
    )
    leader_elect: bool = Field(
        default=True, description="Whether to reconcile only while holding the lease. Off: only ever run one."
    )
    lease_name: str = Field(default="cos-operator", min_length=1, description="Name of the Lease.")
    lease_namespace: str = Field(
        default="", description="Namespace of the Lease. Empty: the pod's, outside of a cluster `default`."
    )
    identity: str = Field(
        default_factory=_process_identity,
        min_length=1,
        description="Name of this process as holder of the Lease; no other may have it. Unset: a random one.",
    )
    http_host: str = Field(default="", description="Address that health and metrics listen on. Empty: all.")
    http_port: int = Field(default=8080, ge=0, le=65535, description="Port for it. 0: any free one.")
    probe_image: str = Field(
        default="", description="Image of the Jobs that make load: the operator's own. Empty: no probes."
    )
    workers: int = Field(default=4, ge=1, le=64, description="Stacks that are reconciled at once.")
    resync_seconds: float = Field(
        default=600, gt=0, le=600, description="Longest time until a stack is looked at without an event."
    )
    reconcile_timeout_seconds: float = Field(
        default=60, ge=5, le=600, description="Time limit for reconciling a stack once."
    )
    log_level: LogLevel = Field(default=LogLevel.INFO, description="Least severe log lines that are written.")
    log_format: LogFormat = Field(default=LogFormat.JSON, description="`json`, or `console` for people.")

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("namespaces")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _NAMESPACE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a namespace")
        return tuple(dict.fromkeys(value))

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _ignore_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Settings from the environment; `overrides` (from a command line) win. Raises `SettingsError`."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            problems = [
                f"{_PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']} (it is {problem['input']!r})"
                for problem in error.errors()
            ]
            raise SettingsError("; ".join(problems)) from None

    def home_namespace(self) -> str:
        """Namespace of the Lease: as set, else the pod's, else ``default``."""
        if self.lease_namespace:
            return self.lease_namespace
        try:
            return _POD_NAMESPACE.read_text(encoding="utf-8").strip() or "default"
        except OSError:
            return "default"
