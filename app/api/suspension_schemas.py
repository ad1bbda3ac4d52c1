"""Suspensions of tenants and of connections, in requests and answers."""

from typing import Any

from marshmallow import fields

from app.api.kit.fields import Time, line, string
from app.api.kit.schemas import Answer, Strict
from app.http.current import caller


class Reason(Strict):
    reason = line(200, "Ticket 4711", "For the audit log.", required=True)


class SuspensionOut(Answer):
    at = Time()
    by = string("api_key", "The kind of actor.")
    reason = string("Ticket 4711", allow_none=True)


class Suspended(fields.Nested):
    """A suspension.

    The vendor's reason is internal, so a bound key gets null in its place.
    """

    def _serialize(self, *args: Any, **kwargs: Any) -> Any:
        shown, (_, _, obj) = super()._serialize(*args, **kwargs), args  # type: ignore[no-untyped-call]
        if shown and not (caller().is_vendor or obj.suspended_by_bound):
            shown["reason"] = None
        return shown


_ABOUT = (
    "Since when, by whom and why; null: not suspended. A bound key does not see the vendor's"
    " reason."
)
SUSPENDED = Suspended(SuspensionOut, allow_none=True, metadata={"description": _ABOUT})
