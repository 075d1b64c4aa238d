"""From an engine's blueprint to the objects of one instance: everything that engines have in common.

All pods run under Pod Security `restricted` with a read-only root filesystem, without a service account token.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cos_controllers.api.common import Storage
from cos_controllers.api.stack import DeletionPolicy
from cos_controllers.components.base import (
    CONFIG_VOLUME,
    DATA_VOLUME,
    FILES_VOLUME,
    Blueprint,
    Context,
    Engine,
    Port,
)
from cos_controllers.credentials import Login
from cos_controllers.hashing import digest
from cos_controllers.images import image_of
from cos_controllers.k8s import (
    Manifest,
    V1Capabilities,
    V1ConfigMap,
    V1ConfigMapVolumeSource,
    V1Container,
    V1Deployment,
    V1DeploymentSpec,
    V1DeploymentStrategy,
    V1LabelSelector,
    V1LocalObjectReference,
    V1ObjectMeta,
    V1OwnerReference,
    V1PersistentVolumeClaim,
    V1PersistentVolumeClaimSpec,
    V1PersistentVolumeClaimVolumeSource,
    V1PodDisruptionBudget,
    V1PodDisruptionBudgetSpec,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1RollingUpdateDeployment,
    V1SeccompProfile,
    V1Secret,
    V1SecretVolumeSource,
    V1SecurityContext,
    V1Service,
    V1ServicePort,
    V1ServiceSpec,
    V1StatefulSet,
    V1StatefulSetSpec,
    V1StatefulSetUpdateStrategy,
    V1Volume,
    V1VolumeResourceRequirements,
    manifest,
)
from cos_controllers.names import (
    ANNOTATION_CONFIGURATION,
    ANNOTATION_DATA_VERSION,
    ANNOTATION_HALTED,
    ANNOTATION_REVISION,
    ANNOTATION_TEMPLATE,
    admin_secret,
    app_secret,
    backup_secret,
    config_map,
    files_secret,
    object_labels,
    selector_labels,
)
from cos_controllers.observation import Expectation


@dataclass(frozen=True)
class Instance:
    """The rendered objects of one instance, in the order in which they are applied.

    `template_hash` names the pod as it is rendered; `files_hash` the content of what the engine reloads. `expected`:
    see `Blueprint`.
    """

    objects: tuple[Manifest, ...]
    template_hash: str
    files_hash: str
    expected: Expectation


def assemble(
    engine: Engine,
    context: Context,
    owner: V1OwnerReference,
    revision: str,
    *,
    storage: Storage | None = None,
    data_version: str = "",
    seed: str = "",
    backups: Mapping[str, Storage] = MappingProxyType({}),
    halted: str = "",
) -> Instance:
    """Render all objects of one instance, its pod marked with `revision`.

    `storage` is what to ask of its data volume (None without data), `data_version` what has been on it. `seed` is
    kept beside the administrator's credentials, so that the loss of the stack's seed Secret is no loss. `backups`: what
    to ask of the volumes of its backups, by their claims. `halted`: UID of the backup for which it has no pod; that is
    no part of what its pod is.
    """
    blueprint = engine.render(context)
    parts = _Assembly(engine, context, owner, blueprint, revision)
    reloaded = {name: text for name, text in blueprint.config.items() if name in blueprint.reloaded}
    objects: list[V1Secret | V1ConfigMap | V1PersistentVolumeClaim | V1Service | V1PodDisruptionBudget] = []
    if context.credentials:
        objects += [
            parts.credentials(admin_secret(context.name), context.credentials.admin, {"seed": seed}),
            parts.credentials(app_secret(context.name), context.credentials.app),
        ]
        if context.credentials.backup:
            objects.append(parts.backup_login(context.credentials.backup))
    if blueprint.config:
        objects.append(parts.config())
    if blueprint.files:
        objects.append(parts.files())
    if storage:
        objects.append(parts.claim(storage, data_version))
    objects.append(parts.service())
    if blueprint.replicas is not None and blueprint.replicas > 1:
        objects.append(parts.disruption_budget())
    workload = parts.deployment() if blueprint.replicas is not None else parts.stateful_set(halted)
    # Last: the engine does without them.
    volumes = [parts.backup_claim(name, asked) for name, asked in backups.items()]
    return Instance(
        objects=tuple(manifest(item) for item in (*objects, workload, *volumes)),
        template_hash=parts.template_hash,
        files_hash=digest([dict(blueprint.files), reloaded]),
        expected=blueprint.expected,
    )


def encoded(data: Mapping[str, str]) -> dict[str, str]:
    """Secret data: base64 of the UTF-8 text of each value."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def binding(engine: Engine, context: Context, login: Login) -> dict[str, str]:
    """A Secret's content in the Service Binding layout (servicebinding.io, "Well-known Secret Entries")."""
    accounts = engine.accounts
    content = {
        "type": engine.kind,
        "provider": "cos-operator",
        "host": context.host,
        "port": str(engine.ports[0].number),
        "username": login.username,
        "password": login.password,
        "uri": engine.uri(context.host, login),
    }
    return content | ({"database": accounts.database} if accounts and accounts.database else {})


def _claim(metadata: V1ObjectMeta, storage: Storage) -> V1PersistentVolumeClaim:
    return V1PersistentVolumeClaim(
        api_version="v1",
        kind="PersistentVolumeClaim",
        metadata=metadata,
        spec=V1PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            storage_class_name=storage.storage_class_name,
            resources=V1VolumeResourceRequirements(requests={"storage": storage.size}),
        ),
    )


class _Assembly:
    """The object builders of one instance."""

    def __init__(
        self,
        engine: Engine,
        context: Context,
        owner: V1OwnerReference,
        blueprint: Blueprint,
        revision: str,
    ) -> None:
        self._engine = engine
        self._context = context
        self._owner = owner
        self._blueprint = blueprint
        self._selector = selector_labels(context.stack_name, context.component, engine.kind)
        self._labels = object_labels(context.stack_name, context.component, engine.kind)
        template = self._pod_template()
        # Content that a running engine does not reload counts as part of its pod.
        fixed = {name: text for name, text in blueprint.config.items() if name not in blueprint.reloaded}
        self.template_hash = digest([manifest(template), fixed])
        self._template = template.model_copy(
            update={
                "metadata": V1ObjectMeta(
                    labels=template.metadata.labels if template.metadata else None,
                    annotations={
                        **context.spec.pod_metadata.annotations,
                        ANNOTATION_REVISION: revision,
                        ANNOTATION_TEMPLATE: self.template_hash,
                        # What is read while the engine runs is no part of the pod.
                        **(
                            {}
                            if blueprint.expected.reloads
                            else {ANNOTATION_CONFIGURATION: blueprint.expected.rendering}
                        ),
                    },
                )
            }
        )

    def _meta(
        self, name: str, *, data: bool = False, annotations: Mapping[str, str] | None = None
    ) -> V1ObjectMeta:
        """Metadata of a child. Data (volumes, credentials) outlives the stack under the policy Retain."""
        kept = data and self._context.stack.deletion_policy is DeletionPolicy.RETAIN
        return V1ObjectMeta(
            name=name,
            namespace=self._context.namespace,
            labels=self._labels,
            annotations=dict(annotations) if annotations else None,
            owner_references=None if kept else [self._owner],
        )

    def credentials(self, name: str, login: Login, more: Mapping[str, str] | None = None) -> V1Secret:
        return V1Secret(
            api_version="v1",
            kind="Secret",
            metadata=self._meta(name, data=True),
            type=f"servicebinding.io/{self._engine.kind}",
            data=encoded(binding(self._engine, self._context, login) | dict(more or {})),
        )

    def config(self) -> V1ConfigMap:
        return V1ConfigMap(
            api_version="v1",
            kind="ConfigMap",
            metadata=self._meta(config_map(self._context.name)),
            data=dict(self._blueprint.config),
        )

    def files(self) -> V1Secret:
        return V1Secret(
            api_version="v1",
            kind="Secret",
            metadata=self._meta(files_secret(self._context.name)),
            type="Opaque",
            data=encoded(self._blueprint.files),
        )

    def claim(self, storage: Storage, data_version: str) -> V1PersistentVolumeClaim:
        held = {ANNOTATION_DATA_VERSION: data_version} if data_version else None
        return _claim(self._meta(self._context.claim, data=True, annotations=held), storage)

    def backup_claim(self, name: str, storage: Storage) -> V1PersistentVolumeClaim:
        """Without an owner under every policy: what is kept for the day on which the stack is lost goes with nobody."""
        return _claim(self._meta(name).model_copy(update={"owner_references": None}), storage)

    def backup_login(self, login: Login) -> V1Secret:
        return V1Secret(
            api_version="v1",
            kind="Secret",
            metadata=self._meta(backup_secret(self._context.name)),
            type="kubernetes.io/basic-auth",
            data=encoded({"username": login.username, "password": login.password}),
        )

    def service(self) -> V1Service:
        def port(item: Port) -> V1ServicePort:
            return V1ServicePort(
                name=item.name, port=item.number, protocol="TCP", target_port=item.target or item.number
            )

        return V1Service(
            api_version="v1",
            kind="Service",
            metadata=self._meta(self._context.name, annotations=self._blueprint.service_annotations),
            spec=V1ServiceSpec(
                type=self._blueprint.service_type,
                selector=self._selector,
                ports=[port(item) for item in self._engine.ports],
            ),
        )

    def disruption_budget(self) -> V1PodDisruptionBudget:
        return V1PodDisruptionBudget(
            api_version="policy/v1",
            kind="PodDisruptionBudget",
            metadata=self._meta(self._context.name),
            spec=V1PodDisruptionBudgetSpec(
                max_unavailable=1, selector=V1LabelSelector(match_labels=self._selector)
            ),
        )

    def stateful_set(self, halted: str) -> V1StatefulSet:
        return V1StatefulSet(
            api_version="apps/v1",
            kind="StatefulSet",
            metadata=self._meta(
                self._context.name, annotations={ANNOTATION_HALTED: halted} if halted else None
            ),
            spec=V1StatefulSetSpec(
                replicas=0 if halted else 1,
                service_name=self._context.name,
                selector=V1LabelSelector(match_labels=self._selector),
                # The operator replaces pods itself, in an order that it decides; Parallel so that a pod that
                # never became ready can be replaced (kubernetes#67250).
                update_strategy=V1StatefulSetUpdateStrategy(type="OnDelete"),
                pod_management_policy="Parallel",
                revision_history_limit=2,
                template=self._template,
            ),
        )

    def deployment(self) -> V1Deployment:
        return V1Deployment(
            api_version="apps/v1",
            kind="Deployment",
            metadata=self._meta(self._context.name),
            spec=V1DeploymentSpec(
                replicas=self._blueprint.replicas,
                selector=V1LabelSelector(match_labels=self._selector),
                strategy=V1DeploymentStrategy(
                    type="RollingUpdate",
                    rolling_update=V1RollingUpdateDeployment(max_unavailable=0, max_surge=1),
                ),
                revision_history_limit=2,
                template=self._template,
            ),
        )

    def _pod_template(self) -> V1PodTemplateSpec:
        context, blueprint = self._context, self._blueprint
        scheduling = context.spec.scheduling
        return V1PodTemplateSpec(
            metadata=V1ObjectMeta(
                labels={
                    **context.spec.pod_metadata.labels,
                    **object_labels(
                        context.stack_name, context.component, self._engine.kind, context.version
                    ),
                },
                annotations=context.spec.pod_metadata.annotations or None,
            ),
            spec=V1PodSpec(
                automount_service_account_token=False,
                enable_service_links=False,
                termination_grace_period_seconds=blueprint.grace_seconds,
                security_context=V1PodSecurityContext(
                    run_as_non_root=True,
                    run_as_user=blueprint.uid,
                    run_as_group=blueprint.gid,
                    fs_group=blueprint.gid,
                    fs_group_change_policy="OnRootMismatch",
                    seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
                ),
                image_pull_secrets=[
                    V1LocalObjectReference(name=secret.name) for secret in context.stack.images.pull_secrets
                ]
                or None,
                node_selector=scheduling.node_selector or None,
                tolerations=scheduling.tolerations or None,
                affinity=scheduling.affinity,
                topology_spread_constraints=scheduling.topology_spread_constraints or None,
                priority_class_name=scheduling.priority_class_name,
                init_containers=[self._hardened(item) for item in blueprint.init_containers] or None,
                containers=[self._hardened(item) for item in blueprint.containers],
                volumes=[*self._volumes(), *blueprint.volumes] or None,
            ),
        )

    def _hardened(self, container: V1Container) -> V1Container:
        context = self._context
        return container.model_copy(
            update={
                "image": image_of(self._engine, context.spec, context.stack.images),
                # Without a message of its own a container that fails ends with the last lines of its log.
                "termination_message_policy": "FallbackToLogsOnError",
                "image_pull_policy": context.stack.images.pull_policy.value,
                "security_context": V1SecurityContext(
                    allow_privilege_escalation=False,
                    read_only_root_filesystem=True,
                    capabilities=V1Capabilities(drop=["ALL"]),
                ),
            }
        )

    def _volumes(self) -> list[V1Volume]:
        context, blueprint = self._context, self._blueprint
        volumes: list[V1Volume] = []
        if blueprint.config:
            source = V1ConfigMapVolumeSource(name=config_map(context.name))
            volumes.append(V1Volume(name=CONFIG_VOLUME, config_map=source))
        if blueprint.files:
            secret = V1SecretVolumeSource(secret_name=files_secret(context.name), default_mode=0o440)
            volumes.append(V1Volume(name=FILES_VOLUME, secret=secret))
        if context.claim:
            claim = V1PersistentVolumeClaimVolumeSource(claim_name=context.claim)
            volumes.append(V1Volume(name=DATA_VOLUME, persistent_volume_claim=claim))
        return volumes
