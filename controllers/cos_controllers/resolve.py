"""From a stack and what is there to the instances that are wanted: names, volumes, credentials, rendered objects."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cos_controllers.api.common import Storage
from cos_controllers.api.quantity import parse_quantity
from cos_controllers.api.stack import CosStack, DeletionPolicy, EngineSpec, StoreSpec
from cos_controllers.api.status import Reason
from cos_controllers.components.assemble import Instance, assemble, encoded
from cos_controllers.components.base import Context, Engine
from cos_controllers.components.registry import ENGINES
from cos_controllers.credentials import Credentials, Login, derive_password
from cos_controllers.k8s import Manifest, V1ObjectMeta, V1Secret, manifest
from cos_controllers.names import (
    LABEL_MANAGED_BY,
    LABEL_PART_OF,
    LABEL_STACK,
    MANAGER,
    admin_secret,
    child_name,
    claim_name,
    seed_secret,
)
from cos_controllers.observation import Ref, Snapshot, ref_of
from cos_controllers.ownership import controller_of, is_ours, owner_reference

SEED_KEY = "seed"
#: Passwords that users bring: printable ASCII without spaces, which every engine's files and URIs can hold.
_USABLE_PASSWORD = re.compile(r"^[!-~]{8,128}$")


@dataclass(frozen=True)
class Problem:
    """Why a component cannot be brought to its spec, in words that name the fix."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Wanted:
    """One component as it should be.

    `instance` is None while a `blocker` keeps it from being rendered; then what exists is left as it is.
    `shortfall` is a part of the spec that cannot be met while the component serves otherwise.
    """

    engine: Engine
    component: str
    name: str
    spec: EngineSpec
    claim: str = ""
    credentials: Credentials | None = None
    instance: Instance | None = None
    blocker: Problem | None = None
    shortfall: Problem | None = None


@dataclass(frozen=True)
class Resolution:
    """All components of a stack, and the objects that belong to the stack as a whole."""

    components: tuple[Wanted, ...]
    common: tuple[Manifest, ...]

    def objects(self) -> tuple[Manifest, ...]:
        """Every wanted object, in the order in which they are applied."""
        rendered = (wanted.instance.objects for wanted in self.components if wanted.instance)
        return (*self.common, *(obj for objects in rendered for obj in objects))


def secret_text(secret: Manifest | None, key: str) -> str | None:
    """A Secret's value as text; None if the Secret, the key or readable text is missing."""
    value = ((secret or {}).get("data") or {}).get(key)
    try:
        return base64.b64decode(value, validate=True).decode() if value else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def resolve(stack: CosStack, snapshot: Snapshot) -> Resolution:
    """Render the stack. The same stack and snapshot give the same objects."""
    seed = _seed(stack, snapshot)
    components = tuple(
        _resolve_one(stack, snapshot, engine, component, spec, seed)
        for engine in ENGINES
        for component, spec in engine.instances(stack.spec).items()
    )
    needs_seed = any(wanted.instance and wanted.credentials for wanted in components)
    return Resolution(components, (_seed_secret(stack, seed),) if needs_seed else ())


def references(stack: CosStack) -> frozenset[str]:
    """Names of the Secrets that the spec refers to."""
    found = set()
    for engine in ENGINES:
        for spec in engine.instances(stack.spec).values():
            if isinstance(spec, StoreSpec) and spec.auth_secret_ref:
                found.add(spec.auth_secret_ref.name)
    return frozenset(found)


def _seed(stack: CosStack, snapshot: Snapshot) -> str:
    """The stack's seed in hexadecimal, new if there is none yet.

    Every generated password derives from it, so that a lost Secret comes back with the same content. Each admin
    Secret carries a copy: the loss of either is no loss.
    """
    names = [seed_secret(stack.metadata.name)]
    names += [
        admin_secret(child_name(stack.metadata.name, component))
        for engine in ENGINES
        for component in engine.instances(stack.spec)
    ]
    names += sorted(
        ref.name for ref in snapshot.objects if ref.kind == "Secret" and ref.name.endswith("-admin")
    )
    for name in names:
        secret = snapshot.objects.get(Ref("Secret", name))
        if secret and is_ours(secret, stack) and (seed := secret_text(secret, SEED_KEY)):
            return seed
    return snapshot.entropy.hex()


def _seed_secret(stack: CosStack, seed: str) -> Manifest:
    retained = stack.spec.deletion_policy is DeletionPolicy.RETAIN
    secret = V1Secret(
        api_version="v1",
        kind="Secret",
        metadata=V1ObjectMeta(
            name=seed_secret(stack.metadata.name),
            namespace=stack.metadata.namespace,
            labels={
                LABEL_MANAGED_BY: MANAGER,
                LABEL_PART_OF: stack.metadata.name,
                LABEL_STACK: stack.metadata.name,
            },
            owner_references=None if retained else [owner_reference(stack)],
        ),
        type="Opaque",
        data=encoded({SEED_KEY: seed}),
    )
    return manifest(secret)


def _claim(stack: CosStack, snapshot: Snapshot, name: str) -> str:
    """The newest volume of an instance that is there, else the first."""
    form = re.compile(rf"^{re.escape(claim_name(name, 0)[:-1])}(\d+)$")
    serials = [
        int(match.group(1))
        for ref, obj in snapshot.objects.items()
        if ref.kind == "PersistentVolumeClaim" and (match := form.fullmatch(ref.name)) and is_ours(obj, stack)
    ]
    return claim_name(name, max(serials, default=0))


def _credentials(
    engine: Engine, name: str, spec: StoreSpec, seed: str, snapshot: Snapshot
) -> Credentials | Problem | None:
    if engine.accounts is None:
        return None

    def generated(purpose: str) -> str:
        return derive_password(bytes.fromhex(seed), f"{name}/{purpose}")

    app = generated("app")
    if spec.auth_secret_ref:
        reference = spec.auth_secret_ref.name
        if reference not in snapshot.references:
            return Problem(
                Reason.SECRET_NOT_FOUND,
                f"Secret {reference} (authSecretRef) does not exist: create it with a key password",
            )
        given = secret_text(snapshot.references[reference], "password")
        if given is None or not _USABLE_PASSWORD.fullmatch(given):
            return Problem(
                Reason.SECRET_INVALID,
                f"Secret {reference} (authSecretRef) needs a key password of 8 to 128 printable ASCII "
                "characters, without spaces or a newline at the end",
            )
        app = given
    return Credentials(
        admin=Login(engine.accounts.admin, generated("admin")),
        app=Login(engine.accounts.app, app),
        probe=Login(engine.accounts.probe, generated("probe")),
    )


def _volume(spec: Storage, claim: str, live: Manifest | None) -> tuple[Storage, Problem | None]:
    """What to ask of a volume: never less or other than it is, which the API server would refuse."""
    if live is None:
        return spec, None
    has = live["spec"]
    size, storage_class = has["resources"]["requests"]["storage"], has.get("storageClassName")
    problem = None
    if spec.storage_class_name not in {None, storage_class}:
        problem = Problem(
            Reason.STORAGE_CLASS_FIXED,
            f"volume {claim} keeps its storageClassName {storage_class}: write that instead of "
            f"{spec.storage_class_name}, or leave it out",
        )
    if parse_quantity(spec.size) >= parse_quantity(size):
        size = spec.size
    else:
        problem = Problem(
            Reason.SHRINK_REFUSED,
            f"storage.size {spec.size} is below the volume's {size}, and a volume cannot shrink: "
            f"write {size} or more",
        )
    return Storage(size=size, storage_class_name=storage_class), problem


def _lost(name: str, claim: str, objects: Mapping[Ref, Manifest]) -> Problem | None:
    """The engine has run on a volume that is gone: an empty one in its place must be a person's wish."""
    if Ref("StatefulSet", name) in objects and Ref("PersistentVolumeClaim", claim) not in objects:
        return Problem(
            Reason.VOLUME_LOST,
            f"volume {claim} is gone: restore it, or delete StatefulSet {name} to begin with an empty volume",
        )
    return None


def _resolve_one(
    stack: CosStack, snapshot: Snapshot, engine: Engine, component: str, spec: EngineSpec, seed: str
) -> Wanted:
    name = child_name(stack.metadata.name, component)
    wanted = Wanted(engine=engine, component=component, name=name, spec=spec)
    credentials, claim, storage, shortfall = None, "", None, None
    if isinstance(spec, StoreSpec):
        found = _credentials(engine, name, spec, seed, snapshot)
        if isinstance(found, Problem):
            return replace(wanted, blocker=found)
        credentials = found
        claim = _claim(stack, snapshot, name)
        if lost := _lost(name, claim, snapshot.objects):
            return replace(wanted, blocker=lost)
        live = snapshot.objects.get(Ref("PersistentVolumeClaim", claim))
        storage, shortfall = _volume(spec.storage, claim, live)
    context = Context(
        name=name,
        component=component,
        namespace=stack.metadata.namespace,
        spec=spec,
        stack=stack.spec,
        stack_name=stack.metadata.name,
        credentials=credentials,
        claim=claim,
    )
    instance = assemble(engine, context, owner_reference(stack), storage=storage, seed=seed)
    needed = [ref_of(obj) for obj in instance.objects]
    if credentials:
        needed.append(Ref("Secret", seed_secret(stack.metadata.name)))
    if blocker := _conflict(needed, stack, snapshot.objects):
        return replace(wanted, blocker=blocker)
    return replace(wanted, claim=claim, credentials=credentials, instance=instance, shortfall=shortfall)


def _is_left_over(live: Manifest, stack: CosStack) -> bool:
    """Whether the garbage collector is about to remove an object of an earlier stack of the same name."""
    controller = controller_of(live) or {}
    return (controller.get("kind"), controller.get("name")) == ("CosStack", stack.metadata.name)


def _conflict(needed: Iterable[Ref], stack: CosStack, objects: Mapping[Ref, Manifest]) -> Problem | None:
    for ref in needed:
        live = objects.get(ref)
        if live is not None and not is_ours(live, stack):
            if _is_left_over(live, stack):
                return Problem(
                    Reason.CREATING,
                    f"{ref.kind} {ref.name} of the deleted stack of this name is being removed",
                )
            return Problem(
                Reason.NAME_CONFLICT,
                f"{ref.kind} {ref.name} exists and does not belong to this stack: rename or remove it, or "
                "give the stack another name",
            )
    return None
