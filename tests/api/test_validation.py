"""Each rule of `CosStack` with a manifest that it accepts and one that it refuses, at the real API server.

The operator applies the same rules to stored objects: each refused spec is refused by the models too.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any, cast, get_args

import pytest
from pydantic import ValidationError

from cos_controllers.api.crd import _models as models_below
from cos_controllers.api.model import ApiModel
from cos_controllers.api.stack import CosStack
from cos_controllers.parsing import InvalidStack, parse_stack

ROUTES: dict[str, Any] = {"elasticsearch": {}}


def traefik(*routes: dict[str, Any]) -> dict[str, Any]:
    return {**ROUTES, "traefik": {"routes": list(routes)}}


def route(name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "component": "elasticsearch", **fields}


def slo(**fields: Any) -> dict[str, Any]:
    objective = {"name": "o", "check": "redis/Latency", **fields}
    return {"redis": {}, "slo": {"objectives": [objective]}}


def spread(skew: int, otherwise: str) -> dict[str, Any]:
    return {"maxSkew": skew, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": otherwise}


def bucket(**fields: Any) -> dict[str, Any]:
    s3 = {
        "endpoint": "https://s3.example.com:9000",
        "bucket": "my-backups",
        "credentialsSecretRef": {"name": "s3"},
    }
    return {"redis": {}, "backup": {"repositories": [{"name": "main", "s3": {**s3, **fields}}]}}


def scheduled(**fields: Any) -> dict[str, Any]:
    schedule = {"name": "nightly", "schedule": "0 3 * * *", "keep": {"last": 3}, **fields}
    repositories = [{"name": "main", "volume": {"size": "1Gi"}}]
    return {"redis": {}, "backup": {"repositories": repositories, "schedules": [schedule]}}


def archived(repository: str = "", parameters: dict[str, str] | None = None, **s3: Any) -> dict[str, Any]:
    where = {
        "endpoint": "https://s3.example.com",
        "bucket": "bbb",
        "credentialsSecretRef": {"name": "s3"},
        **s3,
    }
    repositories = [{"name": "main", "volume": {"size": "1Gi"}}, {"name": "away", "s3": where}]
    instance = {"name": "prod", "archive": {"repository": repository}, "parameters": parameters or {}}
    return {"postgres": [instance], "backup": {"repositories": repositories}}


def verified(**fields: Any) -> dict[str, Any]:
    repositories = [{"name": "main", "volume": {"size": "1Gi"}}]
    verification = {"schedule": "0 5 * * 6", **fields}
    return {"redis": {}, "backup": {"repositories": repositories, "verification": verification}}


def maintained(**fields: Any) -> dict[str, Any]:
    repositories = [{"name": "main", "volume": {"size": "1Gi"}}]
    return {"redis": {}, "backup": {"repositories": repositories, "maintenance": fields}}


#: name: (accepted spec, refused spec, the field and words of the refusal)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "name of a Secret": (
        {"redis": {"authSecretRef": {"name": "my.secret-1"}}},
        {"redis": {"authSecretRef": {"name": "a/b"}}},
        ("spec.redis.authSecretRef.name", "must be the name of an object"),
    ),
    "repository of a volume or a bucket": (
        {"redis": {}, "backup": {"repositories": [{"name": "main", "volume": {"size": "1Gi"}}]}},
        {"redis": {}, "backup": {"repositories": [{"name": "main"}]}},
        ("spec.backup.repositories[0]", "needs exactly one of volume or s3"),
    ),
    "schedule of backups": (
        scheduled(schedule="*/30 1-5 * * MON-FRI"),
        scheduled(schedule="every night"),
        ("spec.backup.schedules[0].schedule", "a cron expression of five fields"),
    ),
    "time zone of backups": (
        scheduled(timeZone="America/Argentina/Buenos_Aires"),
        scheduled(timeZone="Mars/Base"),
        ("spec.backup.schedules[0]", "unknown time zone Mars/Base", "timeZone must be a name"),
    ),
    "offset in the place of a time zone": (
        scheduled(timeZone="Etc/GMT-2"),
        scheduled(timeZone="+02:00"),
        ("spec.backup.schedules[0].timeZone", "timeZone must be a name"),
    ),
    "numbers of a schedule": (
        scheduled(schedule="0,30 3 29 feb sun"),
        scheduled(schedule="61 * * * *"),
        ("spec.backup.schedules[0].schedule", "a cron expression of five fields"),
    ),
    "time of maintenance": (
        maintained(schedule="0 4 * * SUN"),
        maintained(schedule="every sunday"),
        ("spec.backup.maintenance.schedule", "a cron expression of five fields"),
    ),
    "time zone of maintenance": (
        maintained(timeZone="Asia/Tokyo"),
        maintained(timeZone="Tokyo"),
        ("spec.backup.maintenance", "unknown time zone Tokyo"),
    ),
    "time of verification": (
        verified(schedule="0 5 * * SAT"),
        verified(schedule="on saturdays"),
        ("spec.backup.verification.schedule", "a cron expression of five fields"),
    ),
    "time zone of verification": (
        verified(timeZone="Asia/Tokyo"),
        verified(timeZone="Tokyo"),
        ("spec.backup.verification", "unknown time zone Tokyo"),
    ),
    "repository of verification": (
        verified(repository="main"),
        verified(repository="other"),
        ("spec.backup.verification", "names a repository that is not in repositories"),
    ),
    "how many backups are kept": (
        scheduled(keep={"monthly": 3}),
        scheduled(keep={"last": 0}),
        ("spec.backup.schedules[0].keep", "write for example last: 7"),
    ),
    "repository of a schedule": (
        scheduled(repository="main"),
        scheduled(repository="other"),
        ("spec.backup.schedules", "names a repository that is not in repositories"),
    ),
    "endpoint of a bucket": (
        bucket(),
        bucket(endpoint="https://s3.example.com/bucket"),
        ("spec.backup.repositories[0].s3.endpoint", "a URL of scheme, host and port only"),
    ),
    "bucket": (
        bucket(bucket="my.backups-1"),
        bucket(bucket="My_Backups"),
        ("spec.backup.repositories[0].s3.bucket", "3 to 63 lower-case letters"),
    ),
    "region of a bucket": (
        bucket(region="eu-central-1"),
        bucket(region="eu central"),
        ("spec.backup.repositories[0].s3.region", "for example eu-central-1"),
    ),
    "prefix in a bucket": (
        bucket(prefix="backups/prod.1"),
        bucket(prefix="../other"),
        ("spec.backup.repositories[0].s3.prefix", "a path without / at its ends"),
    ),
    "label of a pod": (
        {"redis": {"podMetadata": {"labels": {"example.com/team": "a_b.c-1", "empty": ""}}}},
        {"redis": {"podMetadata": {"labels": {"team": "a b"}}}},
        ("spec.redis.podMetadata.labels", "keys and values of labels"),
    ),
    "annotation of a pod": (
        {"redis": {"podMetadata": {"annotations": {"example.com/note": "any words, any signs!"}}}},
        {"redis": {"podMetadata": {"annotations": {"a note": "x"}}}},
        ("spec.redis.podMetadata.annotations", "keys of annotations"),
    ),
    "node selector": (
        {"redis": {"scheduling": {"nodeSelector": {"kubernetes.io/os": "linux"}}}},
        {"redis": {"scheduling": {"nodeSelector": {"-os": "linux"}}}},
        ("spec.redis.scheduling.nodeSelector", "keys and values of labels"),
    ),
    "toleration": (
        {"redis": {"scheduling": {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}]}}},
        {"redis": {"scheduling": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}}},
        ("spec.redis.scheduling.tolerations", "Exists, without a value"),
    ),
    "toleration of everything by mistake": (
        {"redis": {"scheduling": {"tolerations": [{"key": "a", "effect": "NoSchedule"}]}}},
        {"redis": {"scheduling": {"tolerations": [{"value": "b"}]}}},
        ("spec.redis.scheduling.tolerations", "Equal, with a key"),
    ),
    "effect of a toleration": (
        {"redis": {"scheduling": {"tolerations": [{"key": "a", "effect": "NoExecute"}]}}},
        {"redis": {"scheduling": {"tolerations": [{"key": "a", "effect": "Never"}]}}},
        ("spec.redis.scheduling.tolerations", "effect is NoSchedule"),
    ),
    "skew": (
        {"redis": {"scheduling": {"topologySpreadConstraints": [spread(1, "DoNotSchedule")]}}},
        {"redis": {"scheduling": {"topologySpreadConstraints": [spread(0, "DoNotSchedule")]}}},
        ("spec.redis.scheduling.topologySpreadConstraints", "maxSkew is 1 or more"),
    ),
    "what a spread does when it cannot be": (
        {"redis": {"scheduling": {"topologySpreadConstraints": [spread(2, "ScheduleAnyway")]}}},
        {"redis": {"scheduling": {"topologySpreadConstraints": [spread(2, "Perhaps")]}}},
        ("spec.redis.scheduling.topologySpreadConstraints", "DoNotSchedule or ScheduleAnyway"),
    ),
    "priority class": (
        {"redis": {"scheduling": {"priorityClassName": "system-cluster-critical"}}},
        {"redis": {"scheduling": {"priorityClassName": "Very High"}}},
        ("spec.redis.scheduling.priorityClassName", "name of a PriorityClass"),
    ),
    "storage class": (
        {"redis": {"storage": {"size": "1Gi", "storageClassName": "fast.ssd"}}},
        {"redis": {"storage": {"size": "1Gi", "storageClassName": "fast ssd"}}},
        ("spec.redis.storage.storageClassName", "name of a StorageClass"),
    ),
    "image": (
        {"redis": {"image": "registry.example.com:5000/cos/redis@sha256:0a1b"}},
        {"redis": {"image": " redis:8"}},
        ("spec.redis.image", "must be a reference such as"),
    ),
    "empty image": (
        {"traefik": {"image": "traefik"}},
        {"traefik": {"image": ""}},
        ("spec.traefik.image", "or be left out"),
    ),
    **{
        f"image of {name}": (
            {name: [{"name": "a", "image": "x"}] if name == "postgres" else {"image": "x"}},
            {name: [{"name": "a", "image": "a b"}] if name == "postgres" else {"image": "a b"}},
            ("must be a reference such as",),
        )
        for name in ("postgres", "elasticsearch", "neo4j")
    },
    "registry": (
        {"redis": {}, "images": {"registry": "registry.example.com:5000/cos"}},
        {"redis": {}, "images": {"registry": "https://bad registry"}},
        ("spec.images.registry", "without a scheme"),
    ),
    "pull secrets once each": (
        {"redis": {}, "images": {"pullSecrets": [{"name": "a"}, {"name": "b"}]}},
        {"redis": {}, "images": {"pullSecrets": [{"name": "a"}, {"name": "a"}]}},
        ("spec.images.pullSecrets[1]", "Duplicate value"),
    ),
    "control characters": (
        {"redis": {"parameters": {"hz": "10"}}},
        {"redis": {"parameters": {"hz": "1\u0000"}}},
        ("spec.redis.parameters", "values on one line"),
    ),
    "unsafe durability": (
        {"postgres": [{"name": "dev", "parameters": {"synchronous_commit": "off"}}]},
        {"postgres": [{"name": "dev", "parameters": {"fsync": "off"}}]},
        ("spec.postgres[0].parameters", "fsync"),
    ),
    "host with an empty label": (
        {"traefik": {"routes": [{"name": "a", "host": "a.b", "service": {"name": "w", "port": 80}}]}},
        {"traefik": {"routes": [{"name": "a", "host": "a..b", "service": {"name": "w", "port": 80}}]}},
        ("spec.traefik.routes[0].host", "host must be a host name"),
    ),
    "at least one component": (
        {"redis": {}},
        {},
        ("spec", "at least one component", "redis: {}"),
    ),
    "deletion policy": (
        {"redis": {}, "deletionPolicy": "Delete"},
        {"redis": {}, "deletionPolicy": "Keep"},
        ("spec.deletionPolicy", '"Retain", "Delete"'),
    ),
    "max clients": (
        {"redis": {"maxClients": 1}},
        {"redis": {"maxClients": 0}},
        ("spec.redis.maxClients", "greater than or equal to 1"),
    ),
    "redis version": (
        {"redis": {"version": "8.0.2"}},
        {"redis": {"version": "7.2"}},
        ("spec.redis.version",),
    ),
    "redis reserved parameter": (
        {"redis": {"parameters": {"appendfsync": "always"}}},
        {"redis": {"parameters": {"requirepass": "x"}}},
        ("spec.redis.parameters", "what the operator owns", "requirepass"),
    ),
    "redis parameter on one line": (
        {"redis": {"parameters": {"notify-keyspace-events": "Ex $"}}},
        {"redis": {"parameters": {"appendfsync": "always\nrequirepass x"}}},
        ("spec.redis.parameters", "on one line"),
    ),
    "redis memory": (
        {"redis": {"resources": {"limits": {"memory": "64Mi"}}}},
        {"redis": {"resources": {"limits": {"memory": "16Mi"}}}},
        ("spec.redis.resources.limits.memory", "32Mi or more"),
    ),
    "memory limit is set": (
        {"neo4j": {"resources": {"limits": {"memory": "2Gi"}}}},
        {"neo4j": {"resources": {"limits": {"cpu": 2}}}},
        ("spec.neo4j.resources.limits.memory", "768Mi or more", "heap"),
    ),
    "elasticsearch memory": (
        {"elasticsearch": {"resources": {"limits": {"memory": "1Gi"}}}},
        {"elasticsearch": {"resources": {"limits": {"memory": "512Mi"}}}},
        ("spec.elasticsearch.resources.limits.memory", "768Mi or more"),
    ),
    "cpu is a quantity": (
        {"redis": {"resources": {"requests": {"cpu": 1}, "limits": {"memory": "64Mi"}}}},
        {"redis": {"resources": {"requests": {"cpu": "one"}, "limits": {"memory": "64Mi"}}}},
        ("spec.redis.resources.requests.cpu", "for example 250m"),
    ),
    "cpu request within limit": (
        {"redis": {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": 2, "memory": "64Mi"}}}},
        {"redis": {"resources": {"requests": {"cpu": "3"}, "limits": {"cpu": 2, "memory": "64Mi"}}}},
        ("spec.redis.resources.requests.cpu", "must not exceed limits.cpu"),
    ),
    "redis reserved prefix": (
        {"redis": {"parameters": {"hz": "20"}}},
        {"redis": {"parameters": {"tls-port": "6380"}}},
        ("spec.redis.parameters", "tls-*"),
    ),
    "request within limit": (
        {"redis": {"resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}}}},
        {"redis": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "64Mi"}}}},
        ("spec.redis.resources.requests.memory", "must not exceed limits.memory"),
    ),
    "storage size": (
        {"redis": {"storage": {"size": "1.5Gi"}}},
        {"redis": {"storage": {"size": "0"}}},
        ("spec.redis.storage.size", "for example 10Gi"),
    ),
    "operator's labels": (
        {"redis": {"podMetadata": {"labels": {"team": "cos"}}}},
        {"redis": {"podMetadata": {"labels": {"app.kubernetes.io/name": "x"}}}},
        ("spec.redis.podMetadata.labels", "belong to the operator"),
    ),
    "operator's annotations": (
        {"redis": {"podMetadata": {"annotations": {"note": "x"}}}},
        {"redis": {"podMetadata": {"annotations": {"cos.dev/template-hash": "x"}}}},
        ("spec.redis.podMetadata.annotations", "belong to the operator"),
    ),
    "postgres name": (
        {"postgres": [{"name": "prod"}]},
        {"postgres": [{"name": "Prod-1"}]},
        ("spec.postgres[0].name",),
    ),
    "postgres is no engine": (
        {"postgres": [{"name": "dev"}]},
        {"postgres": [{"name": "redis"}]},
        ("spec.postgres[0].name", "name of an engine"),
    ),
    "a log that says enough": (
        archived(parameters={"wal_level": "logical"}),
        archived(parameters={"wal_level": "MINIMAL"}),
        ("spec.postgres[0].parameters", "wal_level must be replica or logical"),
    ),
    "a log that is not kept may say less": (
        {"postgres": [{"name": "prod", "parameters": {"wal_level": "minimal", "max_wal_senders": "0"}}]},
        archived(parameters={"archive_timeout": "1"}),
        ("spec.postgres[0].parameters", "archive_timeout"),
    ),
    "a log goes to a repository": (
        archived("away"),
        archived("elsewhere"),
        ("spec.postgres", "archive needs a repository of spec.backup"),
    ),
    "a log needs somewhere to go": (
        archived(),
        {"postgres": [{"name": "prod", "archive": {}}]},
        ("spec.postgres", "archive needs a repository of spec.backup"),
    ),
    "a log goes by https": (
        archived("main", endpoint="http://s3.example.com"),
        archived("away", endpoint="http://s3.example.com"),
        ("spec.postgres", "archive needs a repository that is reached by https"),
    ),
    "a log goes to a bucket without dots": (
        archived("main", bucket="my.logs"),
        archived("away", bucket="my.logs"),
        ("spec.postgres", "in a bucket without dots in its name"),
    ),
    "how long a log waits": (
        archived(),
        {**archived(), "postgres": [{"name": "prod", "archive": {"timeoutSeconds": 5}}]},
        ("spec.postgres[0].archive.timeoutSeconds", "greater than or equal to 10"),
    ),
    "postgres names differ": (
        {"postgres": [{"name": "prod"}, {"name": "dev"}]},
        {"postgres": [{"name": "prod"}, {"name": "prod"}]},
        ("spec.postgres[1]", "Duplicate value"),
    ),
    "postgres version": (
        {"postgres": [{"name": "prod", "version": "17.5"}]},
        {"postgres": [{"name": "prod", "version": "16"}]},
        ("spec.postgres[0].version",),
    ),
    "postgres reserved parameter": (
        {"postgres": [{"name": "prod", "parameters": {"max_connections": "50"}}]},
        {"postgres": [{"name": "prod", "parameters": {"archive_command": "rm -rf /"}}]},
        ("spec.postgres[0].parameters", "what the operator owns", "archive_command"),
    ),
    "elasticsearch reserved prefix": (
        {"elasticsearch": {"settings": {"action.auto_create_index": "false"}}},
        {"elasticsearch": {"settings": {"xpack.security.enabled": "false"}}},
        ("spec.elasticsearch.settings", "xpack.security.*"),
    ),
    "neo4j reserved prefix": (
        {"neo4j": {"settings": {"db.transaction.timeout": "30s"}}},
        {"neo4j": {"settings": {"server.directories.data": "/elsewhere"}}},
        ("spec.neo4j.settings", "server.directories.*"),
    ),
    "memory is a quantity": (
        {"redis": {"resources": {"limits": {"memory": "64Mi"}}}},
        {"redis": {"resources": {"requests": {"memory": "-1"}, "limits": {"memory": "64Mi"}}}},
        ("spec.redis.resources.requests.memory", "for example 512Mi"),
    ),
    "postgres memory": (
        {"postgres": [{"name": "prod", "resources": {"limits": {"memory": "128Mi"}}}]},
        {"postgres": [{"name": "prod", "resources": {"limits": {"memory": "100Mi"}}}]},
        ("spec.postgres[0].resources.limits.memory", "128Mi or more", "shared_buffers"),
    ),
    "postgres parameter on one line": (
        {"postgres": [{"name": "prod", "parameters": {"work_mem": "8MB"}}]},
        {"postgres": [{"name": "prod", "parameters": {"work_mem": "8MB\nssl = on"}}]},
        ("spec.postgres[0].parameters", "on one line"),
    ),
    "postgres connections": (
        {"postgres": [{"name": "prod", "parameters": {"max_connections": "20"}}]},
        {"postgres": [{"name": "prod", "parameters": {"max_connections": "19"}}]},
        ("spec.postgres[0].parameters", "from 20 on"),
    ),
    "elasticsearch setting on one line": (
        {"elasticsearch": {"settings": {"action.auto_create_index": "false"}}},
        {"elasticsearch": {"settings": {"Action": "false"}}},
        ("spec.elasticsearch.settings", "names in lower case"),
    ),
    "neo4j setting on one line": (
        {"neo4j": {"settings": {"db.transaction.timeout": "30s"}}},
        {"neo4j": {"settings": {"db.transaction.timeout": "30s\rserver.jvm.additional=-Xmx1g"}}},
        ("spec.neo4j.settings", "on one line"),
    ),
    "traefik version is full": (
        {"traefik": {"version": "v3.6.12"}},
        {"traefik": {"version": "v3"}},
        ("spec.traefik.version",),
    ),
    "traefik replicas": (
        {"traefik": {"replicas": 2}},
        {"traefik": {"replicas": 0}},
        ("spec.traefik.replicas", "greater than or equal to 1"),
    ),
    "a route has one backend": (
        traefik(route()),
        traefik(route(service={"name": "x", "port": 80})),
        ("spec.traefik.routes[0]", "exactly one of component or service"),
    ),
    "only a component has gates": (
        traefik(route(whenGatesFail="Refuse")),
        traefik(
            {"name": "own", "service": {"name": "x", "port": 80}, "path": "/own", "whenGatesFail": "Refuse"}
        ),
        ("spec.traefik.routes[0].whenGatesFail", "write Forward"),
    ),
    "a route's component is there": (
        traefik(route()),
        {"redis": {}, "traefik": {"routes": [route()]}},
        ("spec.traefik.routes", "does not have"),
    ),
    "route paths": (
        traefik(route(path="/api/v1")),
        traefik(route(path="/a`) || Path(`/")),
        ("spec.traefik.routes[0].path", "must start with /"),
    ),
    "route hosts": (
        traefik(route(host="search.example.com")),
        traefik(route(host="Search Example")),
        ("spec.traefik.routes[0].host", "lower case"),
    ),
    "routes do not collide": (
        traefik(route("a", path="/a"), route("b", path="/b")),
        traefik(route("a", path="/a"), route("b", path="/a")),
        ("spec.traefik.routes", "must not repeat a host and path"),
    ),
    "route names differ": (
        traefik(route("a", path="/a"), route("b", path="/b")),
        traefik(route("a", path="/a"), route("a", path="/b")),
        ("spec.traefik.routes[1]", "Duplicate value"),
    ),
    "a service port": (
        traefik({"name": "a", "service": {"name": "api", "port": 80}}),
        traefik({"name": "a", "service": {"name": "api", "port": 70000}}),
        ("spec.traefik.routes[0].service.port", "less than or equal to 65535"),
    ),
    "objective's bound": (
        slo(figure="P95", atMost="10ms"),
        slo(figure="P95", atMost="10ms", atLeast="1ms"),
        ("spec.slo.objectives[0]", "exactly one of atMost, atLeast or maxRegression"),
    ),
    "objective's comparison": (
        slo(figure="P95", maxRegression="10%"),
        slo(figure="P95", maxRegression="10%", atMost="10ms"),
        ("spec.slo.objectives[0]", "exactly one of atMost, atLeast or maxRegression"),
    ),
    "comparison's limit": (
        slo(figure="P95", maxRegression="0.1%"),
        slo(figure="P95", maxRegression="0.0%"),
        ("spec.slo.objectives[0].maxRegression", "must be above 0%"),
    ),
    "figure that can be compared": (
        slo(figure="PerSecond", maxRegression="2.5%"),
        slo(figure="MemoryGrowth", maxRegression="2.5%"),
        ("spec.slo.objectives[0].maxRegression", "compares latencies and PerSecond"),
    ),
    "objective's duration": (
        slo(figure="Max", atMost="500us"),
        slo(figure="Max", atMost="10m"),
        ("spec.slo.objectives[0]", "the bound of P50, P95, P99, Max is a duration: 500us, 10ms or 1s"),
    ),
    "objective's rate": (
        slo(figure="PerSecond", atLeast="1000"),
        slo(figure="PerSecond", atLeast="1000/s"),
        ("spec.slo.objectives[0]", "the bound of PerSecond is a number"),
    ),
    "objective's share": (
        slo(figure="ErrorPercent", atMost="0.5%", check=""),
        slo(figure="ErrorPercent", atMost="0.5"),
        ("spec.slo.objectives[0]", "the bound of ErrorPercent is a percentage: 3%"),
    ),
    "objective's bytes": (
        slo(figure="MemoryGrowth", atMost="64Mi"),
        slo(figure="MemoryGrowth", atMost="64 MB"),
        ("spec.slo.objectives[0]", "the bound of MemoryGrowth is bytes: 100M or 64Mi"),
    ),
    "objective's check": (
        slo(figure="P50", atMost="1ms"),
        slo(figure="P50", atMost="1ms", check=""),
        ("spec.slo.objectives[0].check", "check must name a check of a probe"),
    ),
    "objective's window": (
        slo(figure="P50", atMost="1ms", window={"measurements": 2, "failures": 2}),
        slo(figure="P50", atMost="1ms", window={"measurements": 1, "failures": 2}),
        ("spec.slo.objectives[0].window.failures", "failures must not exceed measurements"),
    ),
    "interval of probes": (
        {"redis": {}, "probes": {"intervalSeconds": 300}},
        {"redis": {}, "probes": {"intervalSeconds": 299}},
        ("spec.probes.intervalSeconds", "greater than or equal to 300"),
    ),
    "service type": (
        {"traefik": {"service": {"type": "NodePort"}}},
        {"traefik": {"service": {"type": "ExternalName"}}},
        ("spec.traefik.service.type", "LoadBalancer"),
    ),
}

#: The API server refuses these by list type, which the models do not know.
ONLY_BY_SCHEMA = frozenset({"postgres names differ", "route names differ", "pull secrets once each"})


REFUSED_NAMES = ("a" * 31, "9cos", "cos.prod")
#: Spec and name of which each part is short enough.
TOO_LONG_TOGETHER: tuple[dict[str, Any], str] = ({"postgres": [{"name": "a" * 13}]}, "s" * 30)


def manifest(spec: dict[str, Any], name: str = "cos") -> dict[str, Any]:
    return {
        "apiVersion": "cos.dev/v1alpha1",
        "kind": "CosStack",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def broken_rules(obj: dict[str, Any]) -> set[tuple[type[ApiModel], str]]:
    """Model and message of each rule that the models say is broken."""
    with pytest.raises(InvalidStack) as caught:
        parse_stack(obj)
    assert isinstance(caught.value.__cause__, ValidationError)
    broken = set()
    for error in caught.value.__cause__.errors():
        if error["type"] == "value_error":
            broken.add((model_at(error["loc"]), error["msg"].removeprefix("Value error, ")))
    return broken


def model_at(location: tuple[str | int, ...]) -> type[ApiModel]:
    """The model of the value at a location in a stack."""
    found: Any = CosStack
    for part in location:
        if isinstance(part, str):
            found = next(f.annotation for name, f in found.model_fields.items() if part in {name, f.alias})
        # Of `list[X]` and `X | None`: X.
        found = next((item for item in get_args(found) if item is not type(None)), found)
    return cast("type[ApiModel]", found)


Kubectl = Callable[..., str]


def refusal(kubectl: Kubectl, obj: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(subprocess.CalledProcessError):
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(obj))
    return capfd.readouterr().err


@pytest.mark.parametrize("name", CASES)
def test_accepted(kubectl: Kubectl, name: str) -> None:
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest(CASES[name][0])))


@pytest.mark.parametrize("name", CASES)
def test_refused_in_words_that_name_the_field(
    kubectl: Kubectl, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    text = refusal(kubectl, manifest(CASES[name][1]), capfd)
    for words in CASES[name][2]:
        assert words in text


@pytest.mark.parametrize("name", CASES)
def test_the_operator_applies_the_same_rules(name: str) -> None:
    parse_stack(manifest(CASES[name][0]))
    if name not in ONLY_BY_SCHEMA:
        with pytest.raises(InvalidStack):
            parse_stack(manifest(CASES[name][1]))


def test_no_rule_is_without_a_case() -> None:
    """Whoever adds a rule adds what it accepts and what it refuses."""
    refused = [manifest(CASES[name][1]) for name in CASES if name not in ONLY_BY_SCHEMA]
    refused += [manifest({"redis": {}}, name) for name in REFUSED_NAMES]
    refused += [manifest(*TOO_LONG_TOGETHER)]
    tried = {rule for obj in refused for rule in broken_rules(obj)}
    models = [model for model in models_below(CosStack).values() if issubclass(model, ApiModel)]
    untried = {(model, rule.message) for model in models for rule in model.rules} - tried
    assert not untried


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_refused_names(kubectl: Kubectl, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    obj = manifest({"redis": {}}, name)
    assert "metadata.name must be at most 30" in refusal(kubectl, obj, capfd)
    with pytest.raises(InvalidStack):
        parse_stack(obj)


def test_an_unknown_field_is_refused_by_name(kubectl: Kubectl, capfd: pytest.CaptureFixture[str]) -> None:
    assert 'unknown field "spec.redis.maxclients"' in refusal(
        kubectl, manifest({"redis": {"maxclients": 3}}), capfd
    )


def test_defaults_are_stored(kubectl: Kubectl) -> None:
    done = kubectl(
        "apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(manifest({"redis": {}}))
    )
    redis = json.loads(done)["spec"]["redis"]
    assert redis["version"] == "8.0"
    assert redis["storage"]["size"] == "1Gi"


def test_names_that_leave_no_room_for_a_pod_are_refused(
    kubectl: Kubectl, capfd: pytest.CaptureFixture[str]
) -> None:
    accepted = manifest({"postgres": [{"name": "a" * 12}]}, "s" * 30)
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(accepted))
    refused = manifest(*TOO_LONG_TOGETHER)
    assert "at most 42 characters together" in refusal(kubectl, refused, capfd)
    with pytest.raises(InvalidStack, match="at most 42"):
        parse_stack(refused)
