"""For how long the first secret key is in use, as far as the database knows.

A key says nothing of its own age. So each background worker notes a fingerprint of each key when it first has it. Rows
of keys that are gone stay: a key that comes back is as old as it is.
"""

from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.cache.sealing import derive_key
from app.health.checks import HealthFinding, ok, skipped, warning
from app.store.database import SYSTEM, Database, database_now
from app.store.models import SecretKey

_LONG = 365  # days


def remember_new_keys(db: Database, secret_keys: tuple[str, ...]) -> bool:
    """Note the keys that are new. Raises StoreUnavailableError."""
    fingerprints = set(map(_fingerprint, secret_keys))
    with db.read() as session:
        at = database_now(session)
        new = fingerprints - set(session.scalars(select(SecretKey.fingerprint)))
    if new:
        with suppress(IntegrityError), db.write(SYSTEM) as session:  # another background worker noted them just now
            session.add_all(SecretKey(fingerprint=one, first_seen_at=at) for one in new)
    return True


def age_of_first(db: Database, secret_keys: tuple[str, ...]) -> HealthFinding:
    with db.read() as session:
        row, at = session.get(SecretKey, _fingerprint(secret_keys[0])), database_now(session)
        first_seen_at = row.first_seen_at if row else None
    if first_seen_at is None:
        return skipped(
            "No background worker has noted the first secret key yet.",
            "Start one (flask --app wsgi worker), and ask again.",
        )
    days = (at - first_seen_at).days
    seen = f"The first secret key, which signs and seals, has been in use for {days} days at least."
    if days > _LONG:
        return warning(
            seen,
            "Replace it in three steps (docs/install.md, New keys): a new key goes to the end of DEPUTY_SECRET_KEYS"
            " first, so that every process knows it before one signs with it.",
        )
    return ok(seen)


def _fingerprint(secret: str) -> str:
    """Derived separately, so a fingerprint does not help to forge or read what the key signs and seals."""
    return derive_key(secret, "age")[1][:16].hex()
