"""Housekeeping, once, as a background worker does it that nobody stops."""

from threading import Event

from app.background.housekeeping import tidy as tidy_until


def tidy(db, audit_days):
    tidy_until(db, audit_days, Event())
