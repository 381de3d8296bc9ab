"""The job before each release: applies what is new in migrations/, in order, once."""

from pathlib import Path

import psycopg

import settings

with psycopg.connect(**settings.database()) as db:
    db.execute("SELECT pg_advisory_xact_lock(1)")
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY)")
    done = {name for (name,) in db.execute("SELECT name FROM migrations")}
    for file in sorted(Path("migrations").glob("*.sql")):
        if file.name not in done:
            print(f"apply {file.name}")
            db.execute(file.read_text())
            db.execute("INSERT INTO migrations VALUES (%s)", (file.name,))
print("the database is up to date")
