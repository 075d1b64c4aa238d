"""usage: postgres.py BINDING write|count TABLE: as an application that has its Secret as files."""

import sys
from pathlib import Path

import psycopg
import psycopg.sql

_, binding, action, table = sys.argv
secret = {path.name: path.read_text() for path in Path("/bindings", binding).iterdir() if path.is_file()}
with psycopg.connect(secret["uri"], connect_timeout=5) as connection:
    name = psycopg.sql.Identifier(table)
    if action == "write":
        connection.execute(psycopg.sql.SQL("CREATE TABLE IF NOT EXISTS {} (n int)").format(name))
        connection.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (1)").format(name))
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()[0]
    rows = psycopg.sql.SQL("SELECT count(*) FROM {}").format(name)
    print(connection.execute(rows).fetchone()[0] if found else "no table")
