"""The audit log, the registry of its actions, and the group commit of its events."""

from app.audit.actions import WORKER, Actor, Event
