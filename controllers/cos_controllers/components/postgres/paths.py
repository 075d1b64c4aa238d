"""Paths in the container."""

from __future__ import annotations

CONFIG_DIR = "/etc/cos/config"
FILES_DIR = "/etc/cos/files"
#: Mount point of the data volume; the cluster is below it, in a folder named after its major version.
VOLUME_DIR = "/pgdata"
SOCKET_DIR = "/var/run/postgresql"
CONF = f"{CONFIG_DIR}/postgresql.conf"
HBA = f"{CONFIG_DIR}/pg_hba.conf"
IDENT = f"{CONFIG_DIR}/pg_ident.conf"
#: Statements for the operator's roles; a copy of those last carried out is kept with the data.
ACCOUNTS = f"{FILES_DIR}/accounts.sql"


def folder(major: str) -> str:
    """PGDATA of a major version, below the volume."""
    return f"{major}/data"


def data(major: str) -> str:
    """PGDATA of a major version."""
    return f"{VOLUME_DIR}/{folder(major)}"


def mark(major: str) -> str:
    """File beside the data that says where its log has been kept."""
    return f"{VOLUME_DIR}/{major}/archived"
