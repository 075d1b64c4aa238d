"""`StackProbe`: one bounded run of load against the engines of a stack, and what was measured."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cos_controllers.api.common import ComponentName, ResourceList, Resources, StackReference
from cos_controllers.api.metadata import Metadata
from cos_controllers.api.model import ApiModel, Rule
from cos_controllers.api.status import Condition

#: The name of a Job and of its pods, and the value of a label: room for what Kubernetes adds to it.
MAX_PROBE_NAME = 52

#: As many as have room in a Job's report beside eight databases.
MAX_ROUTES = 4


class Load(StrEnum):
    """How requests are made."""

    PACED = "Paced"
    SATURATING = "Saturating"


class ProbeSettings(ApiModel):
    """What is tried, and how hard."""

    components: Annotated[
        list[ComponentName], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = []
    """Components to try, for example redis or postgres-prod; all of the stack when empty."""
    load: Load = Load.PACED
    """`Paced`: a fixed number of requests a second, a little above what the stack is to reach; applications hardly
    notice it. `Saturating`: as many as the engines answer, for comparison with redis-benchmark, pgbench and wrk;
    applications do notice it."""
    seconds_per_check: Annotated[int, Field(ge=1, le=60)] = 5
    """Seconds that each check makes load for."""
    connections: Annotated[int, Field(ge=1, le=32)] = 4
    """Connections at once, in checks that use several; at most a quarter of those that the engine has for
    applications."""
    routes: Annotated[
        list[Annotated[str, Field(max_length=40)]],
        Field(max_length=MAX_ROUTES, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = []
    """Routes of Traefik to send GET requests through; the first of those to a component of the stack when empty."""
    resources: Resources = Resources(
        requests=ResourceList(cpu="100m", memory="96Mi"), limits=ResourceList(memory="256Mi")
    )
    """Compute resources of the Job. A limit of CPU makes measurements `Inconclusive` where it is reached."""


class StackProbeSpec(ProbeSettings):
    """One run. It does not change: create another one."""

    stack_ref: StackReference
    """The `CosStack` of this namespace."""
    starting_deadline_seconds: Annotated[int, Field(ge=30, le=86400)] = 900
    """Seconds from creation until it must have started: until its components serve, and no other probe of the stack
    runs. How long it may run follows from its checks."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self == oldSelf",
            message="a probe does not change: delete it, or create another one",
            holds=lambda _: True,
        ),
    )


class ProbePhase(StrEnum):
    """How far a probe or a check is, or how it ended."""

    PENDING = "Pending"
    """It waits; the message says for what."""
    RUNNING = "Running"
    """Its Job makes load, or its result is read."""
    SUCCESSFUL = "Successful"
    """Everything was measured. Whether that is good enough is for objectives to say."""
    FAILED = "Failed"
    """An engine did none of what it was asked."""
    INCONCLUSIVE = "Inconclusive"
    """There are figures, and they say nothing of the engine: too few, or the prober itself was too slow."""
    ERROR = "Error"
    """It could not run, or was broken off: nothing is known of the engine."""


class Latency(ApiModel):
    """Percentiles of all requests that were answered, exact (nearest rank), in microseconds."""

    p50_microseconds: int
    """Half of them took no longer."""
    p95_microseconds: int
    """19 of 20 took no longer."""
    p99_microseconds: int
    """99 of 100 took no longer."""
    max_microseconds: int
    """The slowest one."""


class CheckStatus(ApiModel):
    """What one check measured."""

    name: Annotated[str, Field(max_length=128)]
    """Component, check, and route if it is of one: redis/Latency, traefik/Route/search."""
    phase: ProbePhase
    """How it ended."""
    message: Annotated[str, Field(max_length=512)] = ""
    """A sentence for a person, unless all is well."""
    latency: Latency | None = None
    """From when each request was due by its schedule, so that those that had to wait for a slow one count (with
    `Saturating` load there is no schedule: from when it was sent)."""
    service_time: Latency | None = None
    """From when each request was sent."""
    operations: int = 0
    """Requests that succeeded."""
    errors: int = 0
    """Requests that failed."""
    missed: int = 0
    """Requests that were due and could not be sent before the time was over. They count in `latency`, as if they had
    been answered then."""
    per_second: int = 0
    """Requests that succeeded, a second, rounded."""
    elapsed_milliseconds: int = 0
    """How long it made load for."""
    client_cpu_milliseconds: int = 0
    """CPU time of the prober itself meanwhile."""


class UsageStatus(ApiModel):
    """What a component took while it was tried, as far as the engine says."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the component."""
    revision: str = ""
    """Revision that ran."""
    cpu_milliseconds: int | None = None
    """CPU time of the engine, all that it did meanwhile."""
    memory_growth_bytes: int | None = None
    """By how much its memory grew from before the first to after the last check; negative if it shrank."""
    connections: int | None = None
    """Connections, the prober's included, after the last check."""
    connections_limit: int | None = None
    """How many it takes."""


class StackProbeStatus(ApiModel):
    """The observed state of a probe."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status speaks of."""
    phase: ProbePhase = ProbePhase.PENDING
    """How far it is; once it has ended the worst of its checks: Failed, then Error, then Inconclusive."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for a person."""
    stack_revision: int | None = None
    """Number of the stack's ControllerRevision when it started."""
    start_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When its turn came (RFC 3339)."""
    completion_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it had ended (RFC 3339)."""
    conditions: Annotated[
        list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})
    ] = []
    """`Complete`: it has ended, in whatever phase."""
    client_cpu_milliseconds: int | None = None
    """CPU time of the prober from its start to its end."""
    checks: Annotated[
        list[CheckStatus], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """A row per check."""
    components: Annotated[
        list[UsageStatus], Field(max_length=16, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = []
    """A row per component that was tried."""


class StackProbe(ApiModel):
    """One bounded run of load against the engines of a `CosStack`: latencies, throughput and errors, measured."""

    api_version: str
    kind: Literal["StackProbe"]
    metadata: Metadata
    spec: StackProbeSpec
    status: StackProbeStatus = StackProbeStatus()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=f"size(self.metadata.name) <= {MAX_PROBE_NAME} && !self.metadata.name.contains('.')",
            message=f"metadata.name must be at most {MAX_PROBE_NAME} lower-case letters, digits and dashes: it names "
            "a Job",
            holds=lambda self: len(self.metadata.name) <= MAX_PROBE_NAME and "." not in self.metadata.name,
        ),
    )


class Probes(ApiModel):
    """When the stack is probed by itself."""

    interval_seconds: Annotated[int, Field(ge=300, le=604800)] | None = None
    """Seconds from one probe to the next, by a clock of the stack's own; none when absent. One that is missed is not
    made up for."""
    after_change: bool = False
    """Probe also once a changed stack is ready, and a new one."""
    history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """Ended probes that are kept, of those that were made by themselves."""
    template: ProbeSettings = ProbeSettings()
    """What is tried, and how hard."""
