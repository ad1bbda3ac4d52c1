"""Housekeeping, once, as a background worker does it that nobody stops."""

from threading import Event

from app.background.housekeeping import tidy as tidy_until
from app.store.database import Database


def tidy(db: Database, audit_days: int) -> None:
    tidy_until(db, audit_days, Event())
