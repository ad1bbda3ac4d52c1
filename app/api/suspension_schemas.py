"""Suspensions, of tenants and of connections, as they are asked for and answered."""

from typing import Any

from marshmallow import fields

from app.http.current import caller
from app.http.fields import like, text, time
from app.http.schemas import Answer, Strict


class Reason(Strict):
    reason = text(200, "Ticket 4711", "For the audit log.", required=True)


class SuspensionOut(Answer):
    at = time()
    by = fields.String(metadata=like("api_key", "The kind of actor."))
    reason = fields.String(allow_none=True, metadata=like("Ticket 4711"))


class Suspended(fields.Nested):
    """A suspension; a bound key is not shown why the vendor suspended, as those words are the vendor's own."""

    def _serialize(self, *args: Any, **kwargs: Any) -> Any:
        shown, (_, _, obj) = super()._serialize(*args, **kwargs), args  # type: ignore[no-untyped-call]
        if shown and caller().tenant_id is not None and not obj.suspended_by_bound:
            shown["reason"] = None
        return shown


def suspended() -> fields.Nested:
    description = (
        "Since when, by whom and why; null when it is not suspended. A bound key sees no reason of the vendor's."
    )
    return Suspended(SuspensionOut, allow_none=True, metadata={"description": description})
