"""A real operator process whose surroundings change: quota, rights, credentials, a namespace, the definition.

Each trouble is told in a condition or a log line, ends nothing but itself, and heals once it is over.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from audit_trail import AuditTrail
from operator_process import (
    NOWHERE,
    RELEASE,
    Account,
    Kubectl,
    Manifest,
    OperatorProcess,
    apply_all,
    chart_rights,
    create_accounts,
    eventually,
    rules_of,
    token_of,
    write_kubeconfig,
)

from cos_controllers.components.redis.config import RESERVED_CLIENTS
from cos_operator.kube import WATCHED_KINDS, Kube

#: Imports take a second, on a busy machine ten.
START_LIMIT = 60.0
#: A refused stack is tried again after at most 30 s.
HEAL_LIMIT = 75.0
#: For what follows an event.
SOON = 20.0
#: Seconds over which requests are counted while something is refused, and the most of them: a look at a stack takes
#: eleven, and one that does not start is looked at now and again.
WINDOW, MOST_CALLS = 10.0, 100


class Scene:
    """An operator with the chart's rights in `namespace`, where it also keeps its Lease, and in `doomed`."""

    def __init__(self, apiserver: str, kubectl: Kubectl, kube: Kube, namespace: str, directory: Path) -> None:
        self.kubectl = kubectl
        self.kube = kube
        self.namespace = namespace
        self.doomed = f"{namespace}-doomed"
        self.account = Account(namespace, "operator")
        self.token = directory / "token"
        self.audit = AuditTrail(apiserver)
        self.make_namespace()
        self.grant()
        self.renew_token()
        kubeconfig = write_kubeconfig(apiserver, directory / "kubeconfig", tokenFile=str(self.token))
        self.operator = OperatorProcess(
            "operator", directory, kubeconfig, namespace, [namespace, self.doomed]
        )

    def make_namespace(self) -> None:
        apply_all(
            self.kubectl, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.doomed}}]
        )

    def grant(self, *, lease_but: str = "", but: tuple[str, str] | None = None) -> None:
        """The chart's rights; without a verb on the Lease, or without a verb on a resource in `namespace`."""
        create_accounts(self.kubectl, self.account)
        rights = chart_rights(self.namespace, [self.namespace, self.doomed], [self.account])
        for rule in rules_of(rights, self.namespace, f"{RELEASE}-leader-election"):
            rule["verbs"] = [verb for verb in rule["verbs"] if verb != lease_but]
        if but:
            resource, withheld = but
            rules = rules_of(rights, self.namespace)
            rules[:] = [
                {**rule, "resources": [each], "verbs": [verb]}
                for rule in rules
                for each in rule["resources"]
                for verb in rule["verbs"]
                if (each, verb) != (resource, withheld)
            ]
        for role in rights:
            if role["kind"] == "Role":
                role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
        apply_all(self.kubectl, rights)

    def renew_token(self) -> None:
        self.token.write_text(token_of(self.kubectl, self.account))

    async def create(self, namespace: str, *, finalizers: tuple[str, ...] = ()) -> None:
        await self.kube.create(
            {
                "apiVersion": "cos.dev/v1alpha1",
                "kind": "CosStack",
                "metadata": {"namespace": namespace, "name": "cos", "finalizers": list(finalizers)},
                "spec": {"redis": {"scheduling": NOWHERE}},
            }
        )

    async def edit(self, clients: int) -> None:
        """Another configuration for Redis."""
        patch = json.dumps({"spec": {"redis": {"maxClients": clients}}})
        self.kubectl("-n", self.namespace, "patch", "cosstack", "cos", "--type=merge", "-p", patch)

    async def configured(self, clients: int) -> bool:
        """Whether Redis's configuration says so, the reserve for probes and people included."""
        found = await self.kube.get("ConfigMap", self.namespace, "cos-redis-config")
        return found is not None and f"maxclients {clients + RESERVED_CLIENTS}" in found["data"]["redis.conf"]

    async def exists(self, kind: str, name: str, namespace: str = "") -> bool:
        return await self.kube.get(kind, namespace or self.namespace, name) is not None

    async def content(self) -> list[str]:
        """The kinds of what is left in the namespace that ends; the stack itself is held."""
        labels = "app.kubernetes.io/managed-by=cos-operator"
        return [kind for kind in WATCHED_KINDS if await self.kube.list(kind, self.doomed, labels)]

    async def stalled(self) -> Manifest:
        """The condition, empty if it is not so."""
        stack = await self.kube.get("CosStack", self.namespace, "cos")
        assert stack
        conditions = (stack.get("status") or {}).get("conditions", [])
        return next(
            (item for item in conditions if (item["type"], item["status"]) == ("Stalled", "True")), {}
        )

    async def is_refused_for(self, *words: str) -> bool:
        found = await self.stalled()
        return found.get("reason") == "ApplyRefused" and all(word in found["message"] for word in words)

    async def costs_little(self) -> None:
        before = len(self._calls())
        await asyncio.sleep(WINDOW)
        calls = self._calls()[before:]
        often = Counter((call.verb, call.resource, call.namespace, call.code) for call in calls)
        assert len(calls) <= MOST_CALLS, often.most_common()

    def _calls(self) -> list[Any]:
        return self.audit.calls(lambda call: call.user == self.account.user)

    async def heals(self) -> None:
        """The stack in `namespace` gets what was refused, and says so."""
        await eventually("it heals", lambda: self.exists("StatefulSet", "cos-redis"), HEAL_LIMIT)
        await eventually("it says so", lambda: _is_not(self.stalled), SOON)
        self.is_unharmed()

    def is_unharmed(self) -> None:
        """Still the same process, without a traceback."""
        assert self.operator.alive
        assert not self.operator.said("Traceback")


@pytest.fixture
async def scene(
    apiserver: str, kubectl: Kubectl, kube: Kube, namespace: str, tmp_path: Path
) -> AsyncIterator[Scene]:
    made = Scene(apiserver, kubectl, kube, namespace, tmp_path)
    with made.operator:
        await eventually("it leads", lambda: made.operator.is_ready_as("leader"), START_LIMIT)
        yield made
    await kube.delete("Namespace", "", made.doomed)


async def test_a_quota_that_refuses_is_told_and_heals(scene: Scene) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"namespace": scene.namespace, "name": "none"},
        "spec": {"hard": {"count/statefulsets.apps": "0"}},
    }
    apply_all(scene.kubectl, [quota])
    # A quota counts once its controller has seen it.
    scene.kubectl(
        "-n", scene.namespace, "wait", "--for=jsonpath={.status.hard}", "resourcequota/none", "--timeout=20s"
    )
    await scene.create(scene.namespace)
    await eventually(
        "the quota is named",
        lambda: scene.is_refused_for("StatefulSet cos-redis", "exceeded quota: none"),
        SOON,
    )
    await scene.costs_little()
    scene.kubectl("-n", scene.namespace, "delete", "resourcequota", "none")
    await scene.heals()


async def _is_not(found: Callable[[], Any]) -> bool:
    return not await found()


async def test_a_right_that_is_withheld_is_named_and_heals_when_granted(scene: Scene) -> None:
    scene.grant(but=("statefulsets", "create"))
    await scene.create(scene.namespace)
    await eventually(
        "the right is named",
        lambda: scene.is_refused_for("StatefulSet cos-redis", 'cannot create resource "statefulsets"'),
        SOON,
    )
    await scene.costs_little()
    scene.grant()
    await scene.heals()


async def test_rights_on_the_lease_that_come_and_go(scene: Scene) -> None:
    async def is_stuck_without(verb: str) -> bool:
        status, body = await scene.operator.readiness()
        message = str(body and body["checks"]["leadership"]["message"])
        return status == 503 and f'cannot {verb} resource "leases"' in message

    scene.grant(lease_but="update")
    await eventually("update is missed", lambda: is_stuck_without("update"), 2 * SOON)
    assert scene.operator.said("the lease could not be renewed in time: no longer leading")
    scene.grant()
    await eventually("it leads again", lambda: scene.operator.is_ready_as("leader"), START_LIMIT)
    assert scene.operator.alive


async def test_credentials_that_end_are_read_again(scene: Scene) -> None:
    await scene.create(scene.namespace)
    await eventually("it is served", lambda: scene.exists("StatefulSet", "cos-redis"), SOON)
    # A token ends with its account, at once but for the API server's cache of ten seconds.
    scene.kubectl("-n", scene.namespace, "delete", "serviceaccount", scene.account.name)

    async def is_refused() -> bool:
        status, body = await scene.operator.readiness()
        return status == 503 and "Unauthorized" in json.dumps(body)

    await eventually("it says that it is not let in", is_refused, 2 * SOON)
    await scene.edit(70)
    scene.grant()
    scene.renew_token()
    await eventually("it serves again", lambda: scene.configured(70), HEAL_LIMIT)
    assert scene.operator.alive


async def test_a_namespace_that_ends_and_comes_back(scene: Scene) -> None:
    await scene.create(scene.doomed, finalizers=("example.com/hold",))
    await scene.create(scene.namespace)
    await eventually("it is served", lambda: scene.exists("StatefulSet", "cos-redis", scene.doomed), SOON)
    scene.kubectl("delete", "namespace", scene.doomed, "--wait=false")
    await eventually("its content goes, each with an event", lambda: _is_not(scene.content), SOON)
    await scene.costs_little()
    await scene.edit(80)
    await eventually("the other stack is served meanwhile", lambda: scene.configured(80), SOON)
    release = json.dumps({"metadata": {"finalizers": None}})
    scene.kubectl("-n", scene.doomed, "patch", "cosstack", "cos", "--type=merge", "-p", release)
    await eventually(
        "it is gone", lambda: _is_not(lambda: scene.exists("Namespace", scene.doomed)), HEAL_LIMIT
    )
    scene.make_namespace()
    scene.grant()
    await scene.create(scene.doomed)
    await eventually(
        "it is served anew", lambda: scene.exists("StatefulSet", "cos-redis", scene.doomed), HEAL_LIMIT
    )
    scene.is_unharmed()


async def test_a_definition_that_changes_costs_no_write(scene: Scene) -> None:
    await scene.create(scene.namespace)
    await eventually("it is served", lambda: scene.exists("StatefulSet", "cos-redis"), SOON)

    def writes() -> list[Any]:
        # What is said in its status and events may come later; what it made must stay.
        return [
            call
            for call in scene.audit.writes(scene.account.user)
            if call.resource not in {"cosstacks", "events"}
        ]

    await asyncio.sleep(WINDOW)
    before = writes()
    name = "cosstacks.cos.dev"
    original = json.loads(scene.kubectl("get", "crd", name, "-o", "json"))
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/addedLater"
    added = [{"op": "add", "path": schema, "value": {"type": "string", "default": "new"}}]
    scene.kubectl("patch", "crd", name, "--type=json", "-p", json.dumps(added))
    try:

        async def is_served_with_it() -> bool:
            stack = await scene.kube.get("CosStack", scene.namespace, "cos")
            return stack is not None and stack["spec"].get("addedLater") == "new"

        await eventually("the new definition is served", is_served_with_it, SOON)
        await asyncio.sleep(WINDOW)
        assert writes() == before
        await scene.edit(90)
        await eventually("edits are served", lambda: scene.configured(90), SOON)
    finally:
        removed = [{"op": "remove", "path": schema}]
        scene.kubectl("patch", "crd", name, "--type=json", "-p", json.dumps(removed))
    restored = json.loads(scene.kubectl("get", "crd", name, "-o", "json"))
    assert restored["spec"] == original["spec"]
    scene.is_unharmed()
