"""What the API, the worker and the migrations share: where things are."""

import os
from pathlib import Path

VERSION = os.environ.get("VERSION", "dev")
FAULT = os.environ.get("FAULT", "")
MAX_LENGTH = int(os.environ.get("MAX_LENGTH", "500"))
REDIS_URL = os.environ["REDIS_URL"]
QUEUE = "guestbook:new-entries"


def database() -> dict:
    return {
        "host": os.environ["POSTGRES_HOST"],
        "user": os.environ["POSTGRES_USER"],
        "dbname": os.environ["POSTGRES_DB"],
        "password": Path(os.environ["POSTGRES_PASSWORD_FILE"]).read_text().strip(),
        "connect_timeout": 5,
    }
