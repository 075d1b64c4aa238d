"""The way in to an API server: a kubeconfig's context, with a login program if it names one, or a service account."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, SERVICE_TOKEN_FILENAME

from cos_operator.kubeconfig import Choice, choose, problem

#: Seconds for a login program: where nobody is there to be asked, and where a person may have to log in by a browser.
_UNATTENDED_LIMIT, _ATTENDED_LIMIT = 30.0, 300.0
#: Seconds for one that was killed to end.
_END_LIMIT = 1.0
_SERVICE_ACCOUNT = "the pod's service account"
#: What the library raises at credentials that it cannot use.
_UNUSABLE = (
    kube_config.ConfigException,
    aiohttp.ClientError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)


class Login(NamedTuple):
    """How to reach an API server. `namespace` is "" if none is named; `origin` says in words where this is from."""

    configuration: Configuration
    namespace: str
    origin: str


async def log_in(kubeconfig: str | None, context: str | None) -> Login:
    """Read credentials afresh, see `Kube.connect`. Raises `CredentialsError`."""
    if kubeconfig is None and _has_service_account():
        return _of_service_account()
    configuration = Configuration()
    choice = choose(kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config"), context)
    user = choice.user
    if "exec" in user:
        user = await _from_program(choice)
    try:
        # The library merges several files otherwise than kubectl, and goes on as nobody where a login program fails:
        # it is given one context with all that this needs.
        await kube_config.load_kube_config_from_dict(  # type: ignore[no-untyped-call]
            {
                "current-context": choice.context,
                "contexts": [{"name": choice.context, "context": {"cluster": "its", "user": "its"}}],
                "clusters": [{"name": "its", "cluster": choice.cluster}],
                "users": [{"name": "its", "user": user}],
            },
            client_configuration=configuration,
        )
    except _UNUSABLE as error:
        raise problem(f"{choice.origin}: {error}") from error
    return Login(configuration, choice.namespace, choice.origin)


def _has_service_account() -> bool:
    return SERVICE_HOST_ENV_NAME in os.environ and Path(SERVICE_TOKEN_FILENAME).exists()


def _of_service_account() -> Login:
    configuration = Configuration()
    try:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except _UNUSABLE as error:
        raise problem(f"{_SERVICE_ACCOUNT}: {error}") from error
    namespace = Path(SERVICE_TOKEN_FILENAME).with_name("namespace")
    return Login(configuration, namespace.read_text().strip() if namespace.exists() else "", _SERVICE_ACCOUNT)


async def _from_program(choice: Choice) -> dict[str, Any]:
    """The user with what its login program answers in the place of the program. Raises `CredentialsError`.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    spec = choice.user["exec"]
    program = f"login program {spec['command']} of {choice.origin}"
    attended = sys.stdin.isatty()
    limit = _ATTENDED_LIMIT if attended else _UNATTENDED_LIMIT
    request = {
        "apiVersion": spec.get("apiVersion"),
        "kind": "ExecCredential",
        "spec": {"interactive": attended},
    }
    try:
        added = {item["name"]: item["value"] for item in spec.get("env") or ()}
        process = await asyncio.create_subprocess_exec(
            spec["command"],
            *(spec.get("args") or ()),
            env={**os.environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(request)},
            stdout=PIPE,
            stderr=PIPE,
        )
    except OSError as error:
        hint = str(spec.get("installHint") or "install it")
        raise problem(f"{program} cannot be started: {error.strerror}", hint) from error
    except (LookupError, TypeError, ValueError) as error:
        raise problem(f"{program} cannot be started: its args or env are malformed") from error
    try:
        async with asyncio.timeout(limit):
            answer, said = await process.communicate()
    except TimeoutError as error:
        raise problem(f"{program} did not answer within {limit:g} s", "log in again") from error
    finally:
        if process.returncode is None:
            process.kill()
            # Its end is told to this loop, which may be over soon; children of its own may hold its output open.
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_LIMIT)
    if process.returncode:
        words = said.decode(errors="replace").strip() or "it said nothing"
        raise problem(f"{program} failed with exit code {process.returncode}: {words}", "log in again")
    known = {field: value for field, value in choice.user.items() if field != "exec"}
    return known | _credential(answer, program)


def _credential(answer: bytes, program: str) -> dict[str, Any]:
    try:
        status = json.loads(answer)["status"]
        found = {"token": status["token"]} if status.get("token") else {}
        if status.get("clientCertificateData"):
            pems = {"client-certificate-data": "clientCertificateData", "client-key-data": "clientKeyData"}
            found |= {field: base64.b64encode(status[key].encode()).decode() for field, key in pems.items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise problem(f"{program} did not answer with an ExecCredential", "log in again") from error
    if not found:
        raise problem(f"{program} answered with no credentials", "log in again")
    return found
