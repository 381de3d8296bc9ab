"""The API: entries live in Postgres, work for later goes to Redis."""

from contextlib import asynccontextmanager

import redis
from fastapi import FastAPI, Response
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from pydantic import BaseModel, Field

import settings

pool = ConnectionPool(
    kwargs={**settings.database(), "row_factory": dict_row},
    min_size=2,
    max_size=8,
    open=False,
    # A connection that did not survive a restart of Postgres is replaced before a request gets it.
    check=ConnectionPool.check_connection,
)
queue = redis.Redis.from_url(settings.REDIS_URL, retry_on_error=[redis.ConnectionError])


@asynccontextmanager
async def lifespan(_: FastAPI):
    pool.open(wait=True, timeout=30)
    print(f"guestbook api {settings.VERSION} is ready")
    yield
    pool.close()


app = FastAPI(lifespan=lifespan)


class NewEntry(BaseModel):
    name: str = Field(min_length=1, max_length=80)
    text: str = Field(min_length=1, max_length=settings.MAX_LENGTH)


@app.middleware("http")
async def add_version(request, call_next):
    response = await call_next(request)
    response.headers["X-Version"] = settings.VERSION
    return response


def newest(limit: int) -> list[dict]:
    # The bug of a broken release: it reads a column that no migration adds.
    columns = "id, name, text, words" + (", likes" if settings.FAULT == "likes" else "")
    with pool.connection() as db:
        query = f"SELECT {columns} FROM entries ORDER BY id DESC LIMIT %s"
        return db.execute(query, (limit,)).fetchall()


@app.get("/api/entries")
def entries():
    return newest(20)


@app.post("/api/entries", status_code=201)
def sign(entry: NewEntry):
    with pool.connection() as db:
        row = db.execute(
            "INSERT INTO entries (name, text) VALUES (%s, %s) RETURNING id",
            (entry.name, entry.text),
        ).fetchone()
    queue.rpush(settings.QUEUE, row["id"])
    return row


@app.get("/api/version")
def version():
    return Response(settings.VERSION, media_type="text/plain")


@app.get("/api/health")
def health():
    newest(1)
    queue.ping()
    return {"version": settings.VERSION}
