"""usage: postgres.py BINDING write|count TABLE, or BINDING hold SECONDS: as an application with its Secret as files.

`hold` takes as many connections as the server gives.
"""

import sys
from pathlib import Path

import psycopg
import psycopg.sql

_, binding, action, table = sys.argv
secret = {path.name: path.read_text() for path in Path("/bindings", binding).iterdir() if path.is_file()}
if action == "hold":
    import time

    held = []
    try:
        while len(held) < 2000:
            held.append(psycopg.connect(secret["uri"], connect_timeout=5))
    except psycopg.OperationalError as error:
        print(len(held), error, flush=True)
    time.sleep(float(table))
    sys.exit()
with psycopg.connect(secret["uri"], connect_timeout=5) as connection:
    name = psycopg.sql.Identifier(table)
    if action == "write":
        connection.execute(psycopg.sql.SQL("CREATE TABLE IF NOT EXISTS {} (n int)").format(name))
        connection.execute(psycopg.sql.SQL("INSERT INTO {} VALUES (1)").format(name))
    found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()[0]
    rows = psycopg.sql.SQL("SELECT count(*) FROM {}").format(name)
    print(connection.execute(rows).fetchone()[0] if found else "no table")
