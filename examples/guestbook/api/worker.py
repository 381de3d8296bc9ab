"""The worker: counts the words of each new entry. Ends between two jobs when told to."""

import signal
import time

import psycopg
import redis

import settings

BEGUN = f"{settings.QUEUE}:begun"
running = True


def stop(*_):
    global running
    running = False


def count_words(entry_id: int):
    with psycopg.connect(**settings.database()) as db:
        db.execute(
            "UPDATE entries SET words = array_length(regexp_split_to_array(trim(text), '\\s+'), 1) WHERE id = %s",
            (entry_id,),
        )


def put_back(queue: redis.Redis):
    """Jobs that were begun and not finished go first. Counting twice does no harm."""
    while queue.lmove(BEGUN, settings.QUEUE, "RIGHT", "LEFT") is not None:
        pass


def main():
    signal.signal(signal.SIGTERM, stop)
    queue = redis.Redis.from_url(settings.REDIS_URL)
    print(f"guestbook worker {settings.VERSION} is ready")
    clean = False
    while running:
        try:
            if not clean:
                put_back(queue)
                clean = True
            job = queue.blmove(settings.QUEUE, BEGUN, 1, "LEFT", "RIGHT")
            if job is not None:
                count_words(int(job))
                queue.lrem(BEGUN, 1, job)
        except (redis.RedisError, psycopg.OperationalError) as error:
            print(f"trying again in a second: {error}")
            clean = False
            time.sleep(1)


main()
