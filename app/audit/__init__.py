"""The audit log, the registry of its actions, and the group commit of its events."""

from app.audit import actions
from app.audit.events import Actor, Event
