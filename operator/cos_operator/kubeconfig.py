"""Kubeconfigs as kubectl reads them: several files are one, in which the first to name something counts.

Every error names the file and what is wrong in it, and quotes none of its values but names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cos_operator.kube_errors import CredentialsError, Request

#: Fields that name a file, and the field in which its content may stand instead.
_FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
    "tokenFile": "token",
}
#: The key of an entry's content, by the list that it is in.
_KINDS = {"clusters": "cluster", "contexts": "context", "users": "user"}

_Fields = dict[str, Any]


def problem(text: str, remedy: str = "") -> CredentialsError:
    """The error for what is wrong with the credentials, see `CredentialsError`."""
    error = CredentialsError(Request("read", "credentials"), text)
    error.remedy = remedy
    return error


@dataclass(frozen=True)
class Choice:
    """One context with its cluster and user; paths are absolute. `origin` names it and its file."""

    origin: str
    context: str
    namespace: str
    cluster: _Fields
    user: _Fields


def choose(files: str, context: str | None) -> Choice:
    """A context, by default the current one, of a kubeconfig or of several, joined as in $KUBECONFIG.

    Raises `CredentialsError`.
    """
    config = _merged(files)
    contexts: dict[str, _Fields] = config["contexts"]
    names = ", ".join(contexts)
    if not contexts:
        raise problem(f"kubeconfig {files} holds no context")
    name = context or config["current-context"]
    if not name:
        raise problem(f"kubeconfig {files} has no current-context", f"choose one with --context: {names}")
    if name not in contexts:
        raise problem(f"kubeconfig {files} has no context {name}", f"choose one with --context: {names}")
    chosen, origin = contexts[name], f"context {name} of kubeconfig {files}"
    cluster = _named(config, "clusters", str(chosen.get("cluster")), origin)
    user = _named(config, "users", str(chosen["user"]), origin) if chosen.get("user") else {}
    server = cluster.get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        said = (
            f"has no address such as https://host:6443 but {server}" if server else "has no address (server)"
        )
        raise problem(f"cluster {chosen['cluster']} of {origin} {said}")
    return Choice(origin, name, str(chosen.get("namespace") or ""), cluster, user)


def _named(config: _Fields, kind: str, name: str, origin: str) -> _Fields:
    entries: dict[str, _Fields] = config[kind]
    if name not in entries:
        raise problem(f"{origin} names {_KINDS[kind]} {name}, which is not there")
    fields = entries[name]
    for field, instead in _FILES.items():
        if field in fields and instead not in fields and not os.access(fields[field], os.R_OK):
            raise problem(
                f"{field} {fields[field]} ({_KINDS[kind]} {name} of {origin}) does not exist, or you may not read it"
            )
    return fields


def _merged(files: str) -> _Fields:
    found = [
        (path, _read(path)) for item in files.split(os.pathsep) if item and (path := _path(item)).exists()
    ]
    if not found:
        raise problem(f"kubeconfig {files} does not exist", "name another by --kubeconfig or $KUBECONFIG")
    merged: _Fields = {"current-context": "", **{kind: {} for kind in _KINDS}}
    for path, config in found:
        merged["current-context"] = merged["current-context"] or config.get("current-context") or ""
        for kind in _KINDS:
            for name, fields in _entries(path, config, kind).items():
                merged[kind].setdefault(name, fields)
    return merged


def _path(item: str) -> Path:
    return Path(item).expanduser().absolute()


def _read(path: Path) -> _Fields:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise problem(f"kubeconfig {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise problem(f"kubeconfig {path} is not YAML: it is not UTF-8 text") from error
    except yaml.YAMLError as error:
        # Without the text around it, which may be a token.
        mark = getattr(error, "problem_mark", None)
        where = f": see line {mark.line + 1}" if mark else ""
        raise problem(f"kubeconfig {path} is not YAML{where}") from error
    if not isinstance(config, dict | None):
        raise problem(f"kubeconfig {path} is none: it holds no clusters, users and contexts")
    return config or {}


def _entries(path: Path, config: _Fields, kind: str) -> dict[str, _Fields]:
    """The entries of a list by name, without empty fields, and with the paths in them from the file's folder."""
    entries: dict[str, _Fields] = {}
    try:
        for item in config.get(kind) or ():
            fields = {
                key: value for key, value in (item[_KINDS[kind]] or {}).items() if value not in (None, "")
            }
            for field in fields.keys() & _FILES:
                fields[field] = str(path.parent / Path(fields[field]))
            if program := fields.get("exec"):
                # As in a shell, a name without a slash is looked up in PATH.
                command = program["command"]
                fields["exec"] = {
                    **program,
                    "command": str(path.parent / command) if "/" in command else command,
                }
            entries.setdefault(str(item["name"]), fields)
    except (AttributeError, KeyError, TypeError) as error:
        raise problem(f"kubeconfig {path} is malformed: see its {kind}") from error
    return entries
