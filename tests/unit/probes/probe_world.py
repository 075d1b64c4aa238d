"""The probes of one stack as plain data: what a plan's steps leave, and what Kubernetes and a prober make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cos_controllers.api.probe import ProbePhase, StackProbe, StackProbeStatus
from cos_controllers.conditions import timestamp
from cos_controllers.k8s import Manifest
from cos_controllers.parsing import parse_stack
from cos_controllers.probes.plan import Doomed, Plan, decide
from cos_controllers.probes.results import Figures, Percentiles, Report, encode
from cos_controllers.probes.seen import Seen, order_for, ordered

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC: Manifest = {
    "postgres": [{"name": "prod"}],
    "redis": {},
    "elasticsearch": {},
    "traefik": {"routes": [{"name": "search", "path": "/search", "component": "elasticsearch"}]},
}
COMPONENTS = ("postgres-prod", "redis", "elasticsearch", "traefik")
FAST = Percentiles(100, 200, 300, 400)


def figures(name: str, **changes: Any) -> Figures:
    good: dict[str, Any] = {
        "latency": FAST,
        "service": FAST,
        "operations": 500,
        "elapsed": 5000,
        "client_cpu": 50,
        "lag": 90,
    }
    return Figures(name, **{**good, **changes})


@dataclass
class World:
    """Objects by name, and the clock."""

    spec: Manifest = field(default_factory=lambda: dict(SPEC))
    now: datetime = START
    created: datetime = START
    status: dict[str, Any] = field(default_factory=dict)
    image: str = "cos-operator:1"
    stack: bool = True
    probes: dict[str, Manifest] = field(default_factory=dict)
    jobs: dict[str, Manifest] = field(default_factory=dict)
    pods: dict[str, Manifest] = field(default_factory=dict)
    tidied: list[tuple[str, ...]] = field(default_factory=list)
    data: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    uids: int = 0
    overlap: int = 0

    def __post_init__(self) -> None:
        self.status = self.status or {
            "observedGeneration": 1,
            "revision": 1,
            "conditions": [self.ready("True"), self.available()],
            "components": [
                {"name": name, "ready": True, "reason": "Serving", "effectiveRevision": f"{name}-1"}
                | {"servingSince": timestamp(START), "gates": [self.gate("ConfigurationInForce", "Passed")]}
                for name in COMPONENTS
            ],
        }

    @staticmethod
    def ready(status: str) -> Manifest:
        return {
            "type": "Ready",
            "status": status,
            "reason": "Serving",
            "lastTransitionTime": timestamp(START),
        }

    @staticmethod
    def gate(name: str, verdict: str) -> Manifest:
        return {"name": name, "verdict": verdict, "since": timestamp(START)}

    @staticmethod
    def available() -> Manifest:
        return World.ready("True") | {"type": "Available"}

    def row(self, component: str) -> Manifest:
        found: Manifest = next(row for row in self.status["components"] if row["name"] == component)
        return found

    def uid(self) -> str:
        self.uids += 1
        return f"uid-{self.uids}"

    def create_probe(self, name: str, **spec: Any) -> None:
        self.add_probe({"metadata": {"name": name}, "spec": {"stackRef": {"name": "cos"}, **spec}})

    def add_probe(self, obj: Manifest) -> None:
        metadata = {
            "namespace": "cos",
            "uid": self.uid(),
            "generation": 1,
            "creationTimestamp": timestamp(self.now),
            **obj["metadata"],
        }
        self.probes.setdefault(
            metadata["name"],
            {
                "apiVersion": "cos.dev/v1alpha1",
                "kind": "StackProbe",
                "spec": obj["spec"],
                "metadata": metadata,
            },
        )

    def probe(self, name: str) -> StackProbe:
        return StackProbe.model_validate(self.probes[name])

    def phase(self, name: str) -> ProbePhase:
        return self.probe(name).status.phase

    def message(self, name: str) -> str:
        return self.probe(name).status.message

    def seen(self) -> Seen:
        raw: Manifest = {
            "apiVersion": "cos.dev/v1alpha1",
            "kind": "CosStack",
            "metadata": {
                "name": "cos",
                "namespace": "cos",
                "uid": "stack",
                "generation": 1,
                "creationTimestamp": timestamp(self.created),
            },
            "spec": self.spec,
            "status": self.status,
        }
        return Seen(
            parse_stack(raw) if self.stack else None,
            [StackProbe.model_validate(item) for item in self.probes.values()],
            list(self.jobs.values()),
            list(self.pods.values()),
            self.image,
        )

    def plan(self) -> Plan:
        return decide(self.seen(), self.now)

    def steps(self, plan: Plan) -> Iterator[Callable[[], None]]:
        """Each call that the shell makes, in its order."""
        for name, status in plan.statuses.items():
            yield lambda name=name, status=status: self.report(name, status)  # type: ignore[misc]
        for item in plan.suspend:
            yield lambda item=item: self.suspend(item)  # type: ignore[misc]
        if plan.tidy:
            yield lambda: self.tidy(plan.tidy)
        if plan.job and not self.away & set(plan.tidy):
            yield lambda: self.create_job(plan.job)
        for job, components in plan.clear:
            if not self.away & set(components):
                yield lambda components=components: self.tidy(components)  # type: ignore[misc]
                yield lambda job=job: self.delete_job(job)  # type: ignore[misc]
        if plan.create:
            yield lambda: self.add_probe(plan.create or {})
        for item in plan.probes:
            yield lambda item=item: self.probes.pop(item.name)  # type: ignore[misc]

    def run(self, *, until: int | None = None) -> Plan:
        """One pass; `until`: the operator is killed before so many calls."""
        plan = self.plan()
        for number, step in enumerate(self.steps(plan)):
            if number == until:
                break
            step()
        return plan

    def report(self, name: str, status: StackProbeStatus) -> None:
        if name in self.probes:
            self.probes[name]["status"] = status.model_dump(by_alias=True, exclude_none=True, mode="json")

    def suspend(self, item: Doomed) -> None:
        job = self.jobs[item.name]
        job["spec"]["suspend"] = True
        job["status"] = {"active": 0, "conditions": [{"type": "Suspended", "status": "True"}]}
        self.pods = {name: pod for name, pod in self.pods.items() if pod["job"] != item.name}

    def tidy(self, components: tuple[str, ...]) -> None:
        running = [pod["job"] for pod in self.pods.values() if pod["status"]["phase"] == "Running"]
        tried = {name for job in running for name in ordered(self.jobs[job])}
        assert not tried & set(components), "while load is made"
        self.tidied.append(components)
        self.data -= set(components)

    def create_job(self, job: Manifest | None) -> None:
        assert job
        name = job["metadata"]["name"]
        assert name not in self.jobs, "the API server would refuse it"
        assert not self.data & set(ordered(job)), "the place is not empty"
        metadata = {**job["metadata"], "uid": self.uid(), "creationTimestamp": timestamp(self.now)}
        self.jobs[name] = {**job, "metadata": metadata, "status": {"active": 1}}
        self.pods[f"{name}-x"] = {
            "job": name,
            "metadata": {
                "name": f"{name}-x",
                "uid": self.uid(),
                "ownerReferences": [{"uid": metadata["uid"], "controller": True}],
            },
            "status": {
                "phase": "Running",
                "containerStatuses": [{"name": "probe", "state": {"running": {}}}],
            },
        }
        running = [pod for pod in self.pods.values() if pod["status"]["phase"] == "Running"]
        self.overlap = max(self.overlap, len(running))
        self.data |= set(ordered(job))

    def delete_job(self, item: Doomed) -> None:
        job = self.jobs.get(item.name)
        if job and job["metadata"]["uid"] == item.uid:
            del self.jobs[item.name]
            self.pods = {name: pod for name, pod in self.pods.items() if pod["job"] != item.name}

    def finish(self, name: str, message: str, *, code: int = 0, reason: str = "Completed") -> None:
        """The prober ends, and its Job."""
        ended = {"exitCode": code, "reason": reason, "message": message}
        self.pods[f"{name}-x"]["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "probe", "state": {"terminated": ended}}],
        }
        kind = "Failed" if code else "Complete"
        condition = {"type": kind, "status": "True", "lastTransitionTime": timestamp(self.now)}
        self.jobs[name]["status"] = {"conditions": [condition]}

    def report_of(self, name: str, **changes: Any) -> str:
        order = self.plan_order(name)
        return encode(Report(tuple(figures(check, **changes) for check in order)))

    def plan_order(self, name: str) -> list[str]:
        stack = self.seen().stack
        assert stack
        order = order_for(self.probe(name), stack)
        return [check.name(subject.component) for subject in order.subjects for check in subject.checks]

    def settle(self, passes: int = 12) -> None:
        """Passes until nothing changes; whatever runs ends well."""
        for _ in range(passes):
            self.run()
            for name, job in list(self.jobs.items()):
                if job["status"].get("active") and name in self.probes:
                    self.finish(name, self.report_of(name))

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
