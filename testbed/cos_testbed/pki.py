"""Certificates of a testbed: two authorities (cluster, etcd), leaves for each component, kubeconfigs.

Python 3.13 and OpenSSL verify strictly: authorities carry keyUsage, leaves an authorityKeyIdentifier.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cos_testbed.instance import Instance

CA_LIFETIME = dt.timedelta(days=3650)
LEAF_LIFETIME = dt.timedelta(days=365)
RENEW_BEFORE = dt.timedelta(days=30)
# A clock that was set back a little must not make a fresh certificate invalid.
BACKDATE = dt.timedelta(minutes=10)


@dataclass(frozen=True)
class KeyPair:
    """Files of a certificate and its private key, both PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority kept in two files; made on first use."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.files = KeyPair(directory / f"{name}.crt", directory / f"{name}.key")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (self.files.certificate.exists() and self.files.key.exists()):
            self._create(name)
        self._certificate = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.files.key.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.files.key} is not an elliptic curve key")
        self._key = key

    def leaf(
        self,
        file: str,
        common_name: str,
        *,
        organization: str | None = None,
        hosts: Sequence[str] = (),
        server: bool = False,
    ) -> KeyPair:
        """A leaf certificate for clients, with `server` also for servers; made anew when it must be.

        `hosts` are DNS names and IP addresses.
        """
        pair = KeyPair(self.directory / f"{file}.crt", self.directory / f"{file}.key")
        names = [_general_name(host) for host in hosts]
        if not self._is_good(pair, names):
            self._issue(pair, common_name, organization, names, server=server)
        return pair

    def _is_good(self, pair: KeyPair, names: list[x509.GeneralName]) -> bool:
        if not (pair.certificate.exists() and pair.key.exists()):
            return False
        try:
            certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        if certificate.not_valid_after_utc < dt.datetime.now(dt.UTC) + RENEW_BEFORE:
            return False
        try:
            have = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            have = []
        return have == names

    def _create(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cos-testbed-{name}")])
        now = dt.datetime.now(dt.UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        _write_pair(self.files, certificate, key)

    def _issue(
        self,
        pair: KeyPair,
        common_name: str,
        organization: str | None,
        names: list[x509.GeneralName],
        *,
        server: bool,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        now = dt.datetime.now(dt.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(authority, critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        _write_pair(pair, builder.sign(self._key, hashes.SHA256()), key)


def cluster_authority(instance: Instance) -> Authority:
    """Signs what the API server trusts."""
    return Authority(instance.pki, "ca")


def etcd_authority(instance: Instance) -> Authority:
    """Of its own: a cluster client's certificate must not open etcd."""
    return Authority(instance.pki / "etcd", "ca")


def ensure_service_account_keys(instance: Instance) -> KeyPair:
    """Keys of ServiceAccount tokens; `certificate` is the public key."""
    pair = KeyPair(instance.pki / "service-account.pub", instance.pki / "service-account.key")
    if not (pair.certificate.exists() and pair.key.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_private(pair.key, _private_pem(key))
        write_private(pair.certificate, public)
    return pair


def write_kubeconfig(path: Path, server: str, authority: Authority, client: KeyPair, user: str) -> None:
    """A kubeconfig with embedded certificates, mode 0600; left alone when it says the same already."""

    def encoded(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": encoded(authority.files.certificate)}
    credentials = {
        "client-certificate-data": encoded(client.certificate),
        "client-key-data": encoded(client.key),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cos-testbed", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "cos-testbed", "context": {"cluster": "cos-testbed", "user": user}}],
        "current-context": "cos-testbed",
    }
    text = json.dumps(config, indent=2).encode()
    if not path.exists() or path.read_bytes() != text:
        write_private(path, text)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically; nobody but its owner can ever read it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(content)
    temporary.rename(path)


def _write_pair(pair: KeyPair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(pair.key, _private_pem(key))
    write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
