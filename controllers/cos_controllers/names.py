"""Names and labels of everything that belongs to a stack. One place, so that a child is found at first guess."""

from __future__ import annotations

GROUP = "cos.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

#: Field manager of every server-side apply, and the value of `app.kubernetes.io/managed-by`.
MANAGER = "cos-operator"
#: Field manager of what restores say of volumes. Of its own, so that no reconcile that has read an earlier state of a
#: volume takes it away or brings it back.
RESTORER = "cos-operator-restore"

LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_VERSION = "app.kubernetes.io/version"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_STACK = f"{GROUP}/stack"
LABEL_STACK_COMPONENT = f"{GROUP}/component"

#: Revision of a pod: a hash of what the spec asks of it. A pod with another value is to be replaced.
ANNOTATION_REVISION = f"{GROUP}/revision"
#: Hash of the pod template as rendered, which a new version of the operator may render otherwise.
ANNOTATION_TEMPLATE = f"{GROUP}/template-hash"
#: Hash of what the engine is to report of its configuration, once it has read that which was rendered with the pod.
ANNOTATION_CONFIGURATION = f"{GROUP}/configuration"
#: Hash of the mounted files that the engine reloads; touching it makes kubelet refresh them at once.
ANNOTATION_FILES = f"{GROUP}/files-hash"

#: On a workload that is stopped while its data is read: the UID of the StackBackup.
ANNOTATION_HALTED = f"{GROUP}/halted-for"

#: On a volume: the newest version of the engine that was started on it.
ANNOTATION_DATA_VERSION = f"{GROUP}/data-version"
#: On a volume that a restore fills, or has filled in vain: the UID of the restore. Such a volume is nobody's yet.
ANNOTATION_CANDIDATE = f"{GROUP}/candidate-of"
#: On a ControllerRevision, JSON by component: what served (the image by digest), and what did not serve in time.
ANNOTATION_GOOD = f"{GROUP}/good"
ANNOTATION_FAILED = f"{GROUP}/failed"

#: On a Job that makes load and on its pods: its StackProbe, and the stack. Not `LABEL_STACK`: they are no children of
#: the stack that its reconcile would look at.
LABEL_PROBE = f"{GROUP}/probe"
LABEL_PROBED_STACK = f"{GROUP}/probed-stack"

#: On a Job that makes a backup and on its pods: its StackBackup, by name and by UID, and the stack.
LABEL_BACKUP = f"{GROUP}/backup"
LABEL_BACKUP_UID = f"{GROUP}/backup-uid"
LABEL_BACKED_UP_STACK = f"{GROUP}/backed-up-stack"
#: On a StackBackup: the schedule of `spec.backup.schedules` that made it, and that says how long it is kept.
LABEL_SCHEDULE = f"{GROUP}/backup-schedule"
#: On the Secret with the generated key: a hash of the key of which a copy is kept elsewhere.
ANNOTATION_ESCROWED = f"{GROUP}/escrowed"

#: Selects every object that the operator made, in all stacks.
SELECTOR_MANAGED = f"{LABEL_MANAGED_BY}={MANAGER}"


def child_name(stack: str, component: str) -> str:
    """Name of a component's instance, its Service and its workload: ``<stack>-<component>``."""
    return f"{stack}-{component}"


def seed_secret(stack: str) -> str:
    """Secret with the random seed from which a stack's generated passwords derive."""
    return f"{stack}-seed"


def admin_secret(instance: str) -> str:
    """Secret with the operator's own credentials for an instance."""
    return f"{instance}-admin"


def app_secret(instance: str) -> str:
    """Secret with the least-privilege credentials for applications (Service Binding layout)."""
    return f"{instance}-app"


def backup_secret(instance: str) -> str:
    """Secret with the credentials by which a backup reads an instance."""
    return f"{instance}-backup"


def backup_key_secret(stack: str) -> str:
    """Secret with the generated key that encrypts a stack's backups."""
    return f"{stack}-backup-key"


def backup_claim(instance: str, repository: str) -> str:
    """PersistentVolumeClaim with the backups of an instance in a repository of volumes."""
    return f"{instance}-backup-{repository}"


def backup_job(instance: str) -> str:
    """Job that works on the data or the backups of an instance. One name, so that there is one at a time."""
    return f"{instance}-backup"


def config_map(instance: str) -> str:
    """ConfigMap with the configuration files of an instance."""
    return f"{instance}-config"


def files_secret(instance: str) -> str:
    """Secret with configuration files that hold hashes or passwords."""
    return f"{instance}-files"


def claim_name(instance: str, serial: int) -> str:
    """PersistentVolumeClaim of an instance; a restore switches to a new serial."""
    return f"{instance}-data-{serial}"


def revision_name(stack: str, hash_: str) -> str:
    """ControllerRevision of a spec."""
    return f"{stack}-{hash_}"


def stack_labels(stack: str) -> dict[str, str]:
    """The labels of an object that belongs to the stack as a whole."""
    return {LABEL_MANAGED_BY: MANAGER, LABEL_PART_OF: stack, LABEL_STACK: stack}


def stack_selector(stack: str) -> str:
    """Label selector for the children of one stack (in its namespace)."""
    return f"{SELECTOR_MANAGED},{LABEL_STACK}={stack}"


def probe_labels(stack: str, probe: str) -> dict[str, str]:
    """The labels of a probe's Job and of its pods."""
    return {
        LABEL_MANAGED_BY: MANAGER,
        LABEL_NAME: "cos-probe",
        LABEL_PART_OF: stack,
        LABEL_PROBED_STACK: stack,
        LABEL_PROBE: probe,
    }


def probes_selector(stack: str) -> str:
    """Label selector for the Jobs that probe one stack (in its namespace), and for their pods."""
    return f"{SELECTOR_MANAGED},{LABEL_PROBED_STACK}={stack}"


def backup_labels(stack: str, component: str, backup: str, uid: str) -> dict[str, str]:
    """The labels of a Job that makes a backup and of its pods."""
    return {
        LABEL_MANAGED_BY: MANAGER,
        LABEL_NAME: "cos-backup",
        LABEL_PART_OF: stack,
        LABEL_BACKED_UP_STACK: stack,
        LABEL_STACK_COMPONENT: component,
        LABEL_BACKUP: backup,
        LABEL_BACKUP_UID: uid,
    }


def backups_selector(stack: str) -> str:
    """Label selector for the Jobs that make backups of one stack (in its namespace), and for their pods."""
    return f"{SELECTOR_MANAGED},{LABEL_BACKED_UP_STACK}={stack}"


def selector_labels(stack: str, component: str, engine: str) -> dict[str, str]:
    """The labels that select an instance's pods: immutable for the life of the instance."""
    return {
        LABEL_NAME: engine,
        LABEL_INSTANCE: child_name(stack, component),
        LABEL_STACK: stack,
        LABEL_STACK_COMPONENT: component,
    }


def object_labels(stack: str, component: str, engine: str, version: str = "") -> dict[str, str]:
    """The labels of every child object; with `version` for objects that carry one."""
    labels = selector_labels(stack, component, engine) | {
        LABEL_COMPONENT: component,
        LABEL_PART_OF: stack,
        LABEL_MANAGED_BY: MANAGER,
    }
    return labels | ({LABEL_VERSION: version} if version else {})
