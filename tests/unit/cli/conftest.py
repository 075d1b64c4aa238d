"""What the tests of the command line share: a server that is asked, and kubeconfigs that name it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from servers import Certificate, Server


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that plans silences the log of its process; the tests go on in it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    paths = Certificate(str(folder / "cert.pem"), str(folder / "key.pem"))
    Path(paths.certificate).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    Path(paths.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture
def server(certificate: Certificate) -> Iterator[Server]:
    running = Server(certificate)
    yield running
    running.close()


@pytest.fixture
def kubeconfig(server: Server, certificate: Certificate, tmp_path: Path) -> Callable[..., str]:
    """Writes a kubeconfig for the server: fields of its only cluster and user, and its name, may be given."""

    def write(
        name: str = "config", cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None
    ) -> str:
        known = {"server": server.url, "certificate-authority": certificate.certificate}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "work",
            "contexts": [{"name": "work", "context": {"cluster": "far", "user": "me", "namespace": "cos"}}],
            "clusters": [{"name": "far", "cluster": known | (cluster or {})}],
            "users": [{"name": "me", "user": {"token": "secret"} if user is None else user}],
        }
        path = tmp_path / name
        path.write_text(json.dumps(config))
        return str(path)

    return write
