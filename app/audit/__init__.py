"""The registry of actions, the log, and the group commit of events."""

from app.audit.events import WORKER, Actor, Event
