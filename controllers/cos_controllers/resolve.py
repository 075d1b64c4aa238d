"""From a stack and what is there to the instances that are wanted: names, volumes, credentials, rendered objects."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from cos_controllers.api.backup import Repository
from cos_controllers.api.common import Images, Storage
from cos_controllers.api.stack import CosStack, DeletionPolicy, StoreSpec
from cos_controllers.api.status import CosStackStatus, Reason, Verdict
from cos_controllers.components.assemble import assemble, encoded
from cos_controllers.components.base import Archive, Context, Engine
from cos_controllers.components.registry import DUMPERS, ENGINES
from cos_controllers.components.repository import mounted, of_repository
from cos_controllers.credentials import Credentials, Login, derive_password
from cos_controllers.halts import halt_of
from cos_controllers.history import History, Revision, read_history, spec_of
from cos_controllers.images import version_of
from cos_controllers.k8s import Manifest, V1ObjectMeta, V1Secret, manifest
from cos_controllers.mounts import BACKUP_KEY
from cos_controllers.names import (
    admin_secret,
    backup_claim,
    backup_key_secret,
    child_name,
    seed_secret,
    stack_labels,
)
from cos_controllers.observation import Problem, Ref, Snapshot, ref_of
from cos_controllers.ownership import controller_of, is_ours, owner_reference
from cos_controllers.parsing import in_words
from cos_controllers.places import location, path_of, place_of, region, repositories_of
from cos_controllers.pods import pods_of, revision_of
from cos_controllers.volumes import asked_of_volume, current_claim, data_version, lost_volume
from cos_controllers.wanted import Wanted, workload_ref

SEED_KEY = "seed"
#: Passwords that users bring: printable ASCII without spaces, which every engine's files and URIs can hold.
_USABLE_PASSWORD = re.compile(r"^[!-~]{8,128}$")


@dataclass(frozen=True)
class Resolution:
    """All components of a stack, the objects that belong to the stack as a whole, and what was learnt of it.

    The ControllerRevisions are not among `common`: what this pass learns is yet to be added to them.
    """

    components: tuple[Wanted, ...]
    common: tuple[Manifest, ...]
    history: History

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


def resolve(stack: CosStack, snapshot: Snapshot, held: Mapping[str, str] | None = None) -> Resolution:
    """Render the stack. The same stack and snapshot give the same objects.

    `held`: by component that waits for its turn, the revision that runs and is rendered meanwhile, so that a pod that
    is lost before its time comes back as it was.
    """
    seed = _seed(stack, snapshot)
    history = read_history(stack, snapshot)
    components = tuple(
        _resolve_one(
            stack, snapshot, _choose(stack, snapshot, engine, component, history, held or {}), seed, history
        )
        for engine in ENGINES
        for component in engine.instances(stack.spec)
    )
    needs_seed = any(wanted.instance and wanted.credentials for wanted in components)
    common = (_seed_secret(stack, seed), *_backup_key(stack, seed, snapshot)) if needs_seed else ()
    return Resolution(components, common, history)


def failing(status: CosStackStatus) -> frozenset[str]:
    """The components of which a gate fails, by a status."""
    return frozenset(
        row.name for row in status.components if any(gate.verdict is Verdict.FAILED for gate in row.gates)
    )


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


def _backup_key(stack: CosStack, seed: str, snapshot: Snapshot) -> tuple[Manifest, ...]:
    """The Secret with the generated key of backups, if one is needed and the name is free.

    The key that is there stays, whatever the seed: backups that it encrypted outlive every stack. So the Secret has no
    owner, under every policy.
    """
    if not stack.spec.backup or all(
        item.encryption_key_secret_ref for item in stack.spec.backup.repositories
    ):
        return ()
    name = backup_key_secret(stack.metadata.name)
    live = snapshot.objects.get(Ref("Secret", name))
    if live and not is_ours(live, stack):
        return ()
    held = ((live or {}).get("data") or {}).get(BACKUP_KEY)
    made = encoded({BACKUP_KEY: derive_password(bytes.fromhex(seed), name)})
    secret = V1Secret(
        api_version="v1",
        kind="Secret",
        metadata=V1ObjectMeta(
            name=name, namespace=stack.metadata.namespace, labels=stack_labels(stack.metadata.name)
        ),
        type="Opaque",
        # Whatever it is: it may be the only one that reads what was encrypted.
        data={BACKUP_KEY: held} if held else made,
    )
    return (manifest(secret),)


def _seed_secret(stack: CosStack, seed: str) -> Manifest:
    retained = stack.spec.deletion_policy is DeletionPolicy.RETAIN
    secret = V1Secret(
        api_version="v1",
        kind="Secret",
        metadata=V1ObjectMeta(
            name=seed_secret(stack.metadata.name),
            namespace=stack.metadata.namespace,
            labels=stack_labels(stack.metadata.name),
            owner_references=None if retained else [owner_reference(stack)],
        ),
        type="Opaque",
        data=encoded({SEED_KEY: seed}),
    )
    return manifest(secret)


def _credentials(
    engine: Engine, name: str, spec: StoreSpec, seed: str, snapshot: Snapshot, *, backed_up: bool
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
        backup=Login(engine.accounts.backup, generated("backup"))
        if engine.accounts.backup and backed_up
        else None,
    )


@dataclass(frozen=True)
class _Choice:
    """What is to run: the component, and the stack's images that go with it."""

    wanted: Wanted
    images: Images


def _choose(
    stack: CosStack,
    snapshot: Snapshot,
    engine: Engine,
    component: str,
    history: History,
    held: Mapping[str, str],
) -> _Choice:
    """What the spec asks for, or the last good revision once that has failed; unless the volume forbids it."""
    name = child_name(stack.metadata.name, component)
    spec, desired = engine.instances(stack.spec)[component], history.current.components[component]
    claim = current_claim(stack, snapshot.objects, name) if isinstance(spec, StoreSpec) else ""
    halt = halt_of(stack, component, name, snapshot) if claim else None
    wanted = Wanted(engine, component, name, spec, version_of(spec), desired, desired, claim, halt=halt)
    opened_by = data_version(claim, snapshot.objects) if claim else ""
    failure, good = history.failure(component), history.last_good(component)
    if failure and good:
        earlier = _as_in(good, wanted, snapshot)
        if isinstance(earlier, Problem):
            refusal = earlier.message
        elif not (refusal := engine.may_open(opened_by, earlier.wanted.version)):
            return replace(earlier, wanted=replace(earlier.wanted, failure=failure))
        wanted = replace(wanted, no_way_back=Problem(Reason.ROLLBACK_REFUSED, refusal))
    if refusal := engine.may_open(opened_by, wanted.version):
        wanted = replace(wanted, blocker=Problem(Reason.VERSION_REFUSED, refusal))
    elif component in held:
        runs = history.running(component, held[component])
        running = _as_in(runs, wanted, snapshot) if runs else None
        if running and not isinstance(running, Problem):
            return running
        # Nobody knows how it was rendered: it is left as it is.
        wanted = replace(wanted, blocker=Problem(Reason.WAITING, "a change waits for its turn"))
    return _Choice(wanted, stack.spec.images)


def _as_in(revision: Revision, wanted: Wanted, snapshot: Snapshot) -> _Choice | Problem:
    """A component as it was in a revision, by the image that runs or ran, with what needs no new pod as it is now."""
    try:
        stack = spec_of(revision)
    except ValidationError as error:
        # A rule that is newer than the revision forbids it.
        return Problem(
            Reason.ROLLBACK_REFUSED,
            f"ControllerRevision {revision.name} breaks a rule that is newer than it: {in_words(error)}",
        )
    spec = wanted.engine.instances(stack)[wanted.component]
    live = {field: getattr(wanted.spec, field) for field in spec.live_fields}
    earlier = replace(wanted, revision=revision.components[wanted.component], version=version_of(spec))
    image = _image_that_runs(earlier, snapshot) or revision.good.get(wanted.component) or spec.image
    return _Choice(
        replace(earlier, spec=spec.model_copy(update={**live, "image": image})),
        stack.images,
    )


def _image_that_runs(wanted: Wanted, snapshot: Snapshot) -> str | None:
    """The image that the workload or a pod names which is of the wanted revision already: that one needs no other."""
    workload = snapshot.objects.get(workload_ref(wanted))
    templates = [workload["spec"]["template"]] if workload else []
    for carrier in (*templates, *pods_of(wanted, snapshot)):
        if revision_of(carrier) == wanted.revision:
            return str(carrier["spec"]["containers"][0]["image"])
    return None


def _resolve_one(stack: CosStack, snapshot: Snapshot, choice: _Choice, seed: str, history: History) -> Wanted:
    wanted = choice.wanted
    engine, name, spec, claim = wanted.engine, wanted.name, wanted.spec, wanted.claim
    if wanted.blocker:
        return wanted
    credentials, storage, shortfall, archive = None, None, None, None
    backups: dict[str, Storage] = {}
    if isinstance(spec, StoreSpec):
        dumper = DUMPERS.get(engine.kind)
        backed_up = stack.spec.backup is not None and dumper is not None and not dumper.why_not(spec)
        found = _credentials(engine, name, spec, seed, snapshot, backed_up=backed_up)
        if isinstance(found, Problem):
            return replace(wanted, blocker=found)
        credentials = found
        if lost := lost_volume(name, claim, snapshot.objects):
            return replace(wanted, blocker=lost)
        live = snapshot.objects.get(Ref("PersistentVolumeClaim", claim))
        storage, shortfall = asked_of_volume(spec.storage, claim, live)
        repositories = dumper.kept_in(spec, repositories_of(stack)) if dumper else ()
        backups, refused = _backup_volumes(repositories, name, snapshot)
        shortfall = shortfall or refused
        if dumper and dumper.keeps_log and repositories:
            archive = _archive(stack, wanted, repositories[0], snapshot)
    context = Context(
        name=name,
        component=wanted.component,
        namespace=stack.metadata.namespace,
        spec=spec,
        version=wanted.version,
        stack=stack.spec.model_copy(update={"images": choice.images}),
        stack_name=stack.metadata.name,
        credentials=credentials,
        claim=claim,
        failing=failing(stack.status),
        archive=archive,
    )
    instance = assemble(
        engine,
        context,
        owner_reference(stack),
        wanted.revision,
        storage=storage,
        data_version=data_version(claim, snapshot.objects),
        seed=seed,
        backups=backups,
        halted=wanted.halt.uid if wanted.halt else "",
    )
    needed = [ref_of(obj) for obj in instance.objects]
    needed.append(Ref("ControllerRevision", history.current.name))
    if credentials:
        needed.append(Ref("Secret", seed_secret(stack.metadata.name)))
    if blocker := _conflict(needed, stack, snapshot.objects):
        return replace(wanted, blocker=blocker)
    return replace(wanted, credentials=credentials, instance=instance, shortfall=shortfall)


def _backup_volumes(
    repositories: Iterable[Repository], name: str, snapshot: Snapshot
) -> tuple[dict[str, Storage], Problem | None]:
    """What to ask of the volumes of an instance's backups, by claim, and the first thing that cannot be had."""
    found: dict[str, Storage] = {}
    problem = None
    for repository in repositories:
        if repository.volume:
            claim = backup_claim(name, repository.name)
            live = snapshot.objects.get(Ref("PersistentVolumeClaim", claim))
            found[claim], refused = asked_of_volume(
                repository.volume, claim, live, f"backup.repositories[{repository.name}].volume"
            )
            problem = problem or refused
    return found, problem


def _archive(stack: CosStack, wanted: Wanted, repository: Repository, snapshot: Snapshot) -> Archive:
    """Where the log of a component goes. A pod starts without the Secrets: it is not to fail for want of a backup."""
    metadata = stack.metadata
    claim = snapshot.objects.get(Ref("PersistentVolumeClaim", wanted.claim)) or {"metadata": {}}
    volumes, mounts = of_repository(metadata.name, repository, wanted.name, optional=True)
    return Archive(
        repository=location(repository, path_of(metadata.namespace, metadata.name, wanted.component)),
        region=region(repository),
        place=place_of(stack, repository, wanted.component, snapshot.objects),
        lineage=claim["metadata"].get("uid", ""),
        volumes=volumes,
        mounts=mounts,
        mounted=mounted(metadata.name, repository, wanted.name),
    )


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
