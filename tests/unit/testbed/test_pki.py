"""Certificates that strict verifiers accept, made anew only when they must be."""

from __future__ import annotations

import base64
import datetime as dt
import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cos_testbed import pki
from cos_testbed.instance import Instance


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.Authority(tmp_path / "pki", "ca")


def test_a_strict_client_verifies_a_leaf(authority: pki.Authority) -> None:
    leaf = authority.leaf("server", "server", hosts=["localhost", "127.0.0.1"], server=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(leaf.certificate, leaf.key)
    client = ssl.create_default_context(cafile=str(authority.files.certificate))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.version() == "TLSv1.3"
    assert ours.getpeercert()


def test_an_authority_may_only_sign_certificates(authority: pki.Authority) -> None:
    certificate = load(authority.files.certificate)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature


def test_only_servers_may_serve(authority: pki.Authority) -> None:
    def usages(file: Path) -> list[x509.ObjectIdentifier]:
        return list(load(file).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)

    client = authority.leaf("client", "admin", organization="system:masters")
    server = authority.leaf("server", "server", hosts=["a"], server=True)
    assert ExtendedKeyUsageOID.SERVER_AUTH not in usages(client.certificate)
    assert ExtendedKeyUsageOID.SERVER_AUTH in usages(server.certificate)
    assert load(client.certificate).subject.rfc4514_string() == "CN=admin,O=system:masters"


def test_a_good_leaf_is_kept(authority: pki.Authority) -> None:
    first = authority.leaf("x", "x", hosts=["a", "10.0.0.1"], server=True).certificate.read_bytes()
    again = pki.Authority(authority.directory, "ca").leaf("x", "x", hosts=["a", "10.0.0.1"], server=True)
    assert again.certificate.read_bytes() == first


def test_a_leaf_for_other_hosts_is_made_anew(authority: pki.Authority) -> None:
    first = authority.leaf("x", "x", hosts=["10.0.0.1"], server=True).certificate.read_bytes()
    assert authority.leaf("x", "x", hosts=["10.0.0.2"], server=True).certificate.read_bytes() != first


def test_a_leaf_is_made_anew_before_it_expires(
    authority: pki.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "LEAF_LIFETIME", pki.RENEW_BEFORE - dt.timedelta(hours=1))
    first = authority.leaf("x", "x").certificate.read_bytes()
    assert authority.leaf("x", "x").certificate.read_bytes() != first


def test_a_leaf_of_another_authority_is_made_anew(authority: pki.Authority) -> None:
    first = authority.leaf("x", "x").certificate.read_bytes()
    authority.files.certificate.unlink()
    assert pki.Authority(authority.directory, "ca").leaf("x", "x").certificate.read_bytes() != first


def test_a_damaged_leaf_is_made_anew(authority: pki.Authority) -> None:
    pair = authority.leaf("x", "x")
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    authority.leaf("x", "x")
    assert load(pair.certificate).subject.rfc4514_string() == "CN=x"


def test_nobody_else_reads_keys_and_kubeconfig(authority: pki.Authority, tmp_path: Path) -> None:
    client = authority.leaf("admin", "admin")
    path = tmp_path / "kubeconfig"
    pki.write_kubeconfig(path, "https://10.0.0.1:6443", authority, client, "admin")
    for file in (path, client.key, authority.files.key):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = json.loads(path.read_text())
    embedded = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    assert embedded == client.certificate.read_bytes()
    assert config["clusters"][0]["cluster"]["server"] == "https://10.0.0.1:6443"


def test_service_account_keys_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_testbed.instance.STATE_ROOT", tmp_path)
    (tmp_path / "0" / "pki").mkdir(parents=True)
    first = pki.ensure_service_account_keys(Instance()).key.read_bytes()
    assert pki.ensure_service_account_keys(Instance()).key.read_bytes() == first
