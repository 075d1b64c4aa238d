"""The roles that Postgres has before anyone connects over the network."""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache

from cos_controllers.credentials import Credentials, Login

#: The superuser. It has no password and enters by the local socket only.
SUPERUSER = "postgres"
#: The operator's role over the network: it makes roles and databases, and is no superuser.
ADMIN = "cos_admin"
#: The role of kubelet's probes, by the local socket only.
PROBE = "cos_probe"
#: The role that makes copies. It may read settings and begin and end a backup; files are read by pgBackRest.
BACKUP = "cos_backup"
_BACKUP_FUNCTIONS = (
    "pg_backup_start(text, boolean)",
    "pg_backup_stop(boolean)",
    "pg_switch_wal()",
    "pg_create_restore_point(text)",
)
#: Role and database of applications; the operator makes them by protocol.
APP = "app"
DATABASE = "app"

#: Postgres' default of `scram_iterations`.
_SCRAM_ITERATIONS = 4096
_SALT_BYTES = 16


@lru_cache(maxsize=8192)
def scram_verifier(login: Login) -> str:
    """What Postgres stores for a password, the same text for the same login: its salt derives from it.

    The password must be printable ASCII, which SASLprep (RFC 4013) leaves as it is.
    """
    password = login.password.encode("ascii")
    salt = hmac.digest(password, f"salt of {login.username}".encode(), "sha256")[:_SALT_BYTES]
    stored_key, server_key = scram_keys(password, salt)
    salt_text, stored_text, server_text = (
        base64.b64encode(item).decode() for item in (salt, stored_key, server_key)
    )
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"


def scram_keys(password: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey of SCRAM-SHA-256 (RFC 5802, section 3; RFC 7677)."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")


def accounts_sql(credentials: Credentials, *, archived: bool = False) -> str:
    """Statements for single-user mode that bring the operator's roles to what they should be.

    `archived`: with the role that makes copies. Idempotent. In that mode (`-j`) a statement ends with a semicolon and
    an empty line.
    """
    locked = "NOSUPERUSER NOREPLICATION NOBYPASSRLS"
    backup = credentials.backup if archived else None
    copier = (BACKUP,) if backup else ()
    statements = [
        *(
            # Asked first: in that mode, where an error ends the process, it does so inside EXCEPTION blocks too.
            f"DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role}; END IF; END $$"
            for role in (ADMIN, PROBE, *copier)
        ),
        f"ALTER ROLE {ADMIN} LOGIN CREATEDB CREATEROLE {locked} PASSWORD '{scram_verifier(credentials.admin)}'",
        # What the operator does is not logged: it sets passwords.
        *(
            f"ALTER ROLE {ADMIN} SET {name} = {value}"
            for name, value in (
                ("log_statement", "none"),
                ("log_min_duration_statement", "-1"),
                ("log_min_duration_sample", "-1"),
                ("log_transaction_sample_rate", "0"),
                ("log_min_error_statement", "panic"),
            )
        ),
        f"ALTER ROLE {PROBE} LOGIN NOCREATEDB NOCREATEROLE {locked} PASSWORD NULL",
        *([_backup_role(backup, locked)] if backup else []),
        f"GRANT pg_use_reserved_connections TO {', '.join((ADMIN, PROBE, *copier))}",
        # To count the connections of others, and the bytes of what they have written.
        f"GRANT pg_monitor TO {ADMIN}",
        f"REVOKE ALL ON DATABASE {SUPERUSER} FROM PUBLIC",
        "REVOKE ALL ON DATABASE template1 FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {SUPERUSER} TO {', '.join((ADMIN, PROBE, *copier))}",
        # In the database that it connects to, which is this one.
        *(f"GRANT EXECUTE ON FUNCTION pg_catalog.{name} TO {BACKUP}" for name in _BACKUP_FUNCTIONS if backup),
        *([f"GRANT pg_read_all_settings, pg_monitor TO {BACKUP}"] if backup else []),
    ]
    return "".join(f"{statement};\n\n" for statement in statements)


def _backup_role(login: Login, locked: str) -> str:
    verifier = scram_verifier(login)
    return (
        f"ALTER ROLE {BACKUP} LOGIN NOCREATEDB NOCREATEROLE {locked} CONNECTION LIMIT 4 PASSWORD '{verifier}'"
    )
