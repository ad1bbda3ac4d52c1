"""The hour of each API key's last use, for operators who look for unused keys.

Requests note keys in memory. A minute later the notes are stored, for each key once an hour by each
process. A process that ends stores its notes. A process that is killed loses those of its last
minute.
"""

import atexit
import threading
import time
from datetime import datetime

from cachetools import LRUCache
from sqlalchemy import or_, select, update

from app.clock import now
from app.concurrency.gevent import spawn
from app.errors import ConflictError, StoreUnavailableError
from app.identity.principals import ApiKeyPrincipal, authenticated, digest_of
from app.log import logger
from app.store.database import SYSTEM, Database
from app.store.models import ApiKey

_SECONDS = 60.0  # from the first note until all are stored
_TOGETHER = 200  # rows in one transaction, for which other writers wait
_KEYS = 10_000  # upper bound of the keys whose stored hour a process keeps in memory


class KeyUses:
    """The uses of keys in this process. Keys are named by the lookup digits in their texts."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._noted: dict[str, datetime] = {}
        self._stored: LRUCache[str, datetime] = LRUCache(_KEYS)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    def use(
        self,
        principal: ApiKeyPrincipal,
        text: str,
        request_id: str | None,
        client_address: str | None,
    ) -> ApiKeyPrincipal:
        """Authenticate the text of this principal's key, and return the principal for one request.

        Raises UnauthenticatedError.
        """
        authenticated(principal, digest_of(text))
        self.note(principal.lookup)
        return principal.for_request(request_id, client_address)

    def note(self, lookup: str) -> None:
        if lookup in self._noted:  # no lock: every request for credentials runs this
            return
        with self._lock:
            is_first = not self._noted
            self._noted[lookup] = now().replace(minute=0, second=0, microsecond=0)
        if is_first:
            self._schedule()

    def _schedule(self) -> None:
        atexit.register(self.flush)
        spawn(self._flush_later)

    def _flush_later(self) -> None:
        time.sleep(_SECONDS)
        self.flush()

    def flush(self) -> None:
        """Store the notes.

        They are lost if the database is unavailable. The next use of a key notes it again.
        """
        with self._flushing:
            with self._lock:
                noted, self._noted = self._noted, {}
            by_hour: dict[datetime, list[str]] = {}
            for lookup, hour in noted.items():
                if self._stored.get(lookup) != hour:
                    by_hour.setdefault(hour, []).append(lookup)
            try:
                for hour, lookups in by_hour.items():
                    for start in range(0, len(lookups), _TOGETHER):
                        self._store(hour, lookups[start : start + _TOGETHER])
            except (StoreUnavailableError, ConflictError) as error:
                logger.warning("key_uses.not_stored", keys=len(noted), error=type(error).__name__)
            with self._lock:
                if not self._noted:
                    atexit.unregister(self.flush)

    def _store(self, hour: datetime, lookups: list[str]) -> None:
        is_older = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < hour)
        # A locked row is skipped: the lock's holder stores the same hour or revokes the key.
        rows = (
            select(ApiKey.id)
            .where(ApiKey.lookup.in_(lookups), is_older)
            .with_for_update(skip_locked=True)
        )
        with self._db.write(SYSTEM) as db:
            db.execute(update(ApiKey).where(ApiKey.id.in_(rows)).values(last_used_at=hour))
        self._stored.update(dict.fromkeys(lookups, hour))
