"""The registry of actions, the log, and many events in one durable commit."""

from app.audit.events import WORKER, Action, Actor, Event, Outcome
