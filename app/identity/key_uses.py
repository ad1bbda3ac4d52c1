"""The hour of each API key's last use, for operators who look for unused keys.

Requests note in memory which keys they use. A minute later, the notes are stored in the
database. A key's use is stored at most once an hour. A process that exits stores its notes first. A
process that is killed loses the notes of its last minute.
"""

import atexit
import threading
import time
from datetime import datetime

from sqlalchemy import or_, select, update

from app.clock import now
from app.concurrency.gevent import spawn
from app.errors import ConflictError, StoreUnavailableError
from app.identity.key_text import digest_of
from app.identity.principals import ApiKeyPrincipal
from app.log import logger
from app.store.database import SYSTEM, Database
from app.store.models import ApiKey

_SECONDS = 60.0  # from the first note until all notes are stored
_TOGETHER = 200  # maximum of rows in one transaction, because other writers wait for it


class KeyUses:
    """The uses of keys in this process. A key is identified by the lookup digits in its text."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._noted: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._flushing = threading.Lock()

    def use(
        self,
        principal: ApiKeyPrincipal,
        text: str,
        request_id: str | None,
        client_address: str | None,
    ) -> ApiKeyPrincipal:
        """Authenticate the key's text, note the use, and return the principal for this request.

        Raises UnauthenticatedError if the text is not that of the principal's key.
        """
        principal.ensure_valid(digest_of(text))
        self.note(principal.lookup)
        return principal.for_request(request_id, client_address)

    def note(self, lookup: str) -> None:
        if lookup in self._noted:  # without the lock, as every request for credentials runs this
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

        Notes are lost if the database is unavailable. The next use of a key notes it again.
        """
        with self._flushing:
            with self._lock:
                noted, self._noted = self._noted, {}
            try:
                for hour in set(noted.values()):
                    lookups = [lookup for lookup, used_in in noted.items() if used_in == hour]
                    for start in range(0, len(lookups), _TOGETHER):
                        self._store(hour, lookups[start : start + _TOGETHER])
            except (StoreUnavailableError, ConflictError) as error:
                logger.warning("key_uses.not_stored", keys=len(noted), error=type(error).__name__)
            with self._lock:
                if not self._noted:
                    atexit.unregister(self.flush)

    def _store(self, hour: datetime, lookups: list[str]) -> None:
        is_older = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < hour)
        rows = select(ApiKey.id).where(ApiKey.lookup.in_(lookups), is_older)
        with self._db.read() as db:  # most notes are stored already, and need no write lock
            if db.scalar(rows.limit(1)) is None:
                return
        # Locked rows are skipped. A transaction that holds such a lock stores the same hour, or
        # revokes the key.
        unlocked = ApiKey.id.in_(rows.with_for_update(skip_locked=True))
        with self._db.write(SYSTEM) as db:
            db.execute(update(ApiKey).where(unlocked).values(last_used_at=hour))
