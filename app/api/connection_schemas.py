"""Tenants and connections, field by field."""

from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate, validates_schema

from app.http.current import caller
from app.http.schemas import (
    ACCOUNT,
    EXTERNAL_ID,
    ROLE,
    Answer,
    Matches,
    PageQuery,
    Statuses,
    Strict,
    like,
    one_of,
    status,
    text,
    time,
)
from app.ids import ACCOUNT_ID_PATTERN, ROLE_ARN_PATTERN
from app.store.models import ConnectionStatus, TenantStatus, Verdict
from app.tenants.accounts import MOST

# --- tenants ---


class Reason(Strict):
    reason = text(200, "Ticket 4711", "For the audit log.", required=True)


_ACCOUNTS = "The AWS accounts that its roles may be in; null: any. See docs/api.md."


def accounts() -> fields.List[Any]:
    return fields.List(
        fields.String(validate=Matches(ACCOUNT_ID_PATTERN), metadata=like(ACCOUNT)),
        allow_none=True,
        validate=validate.Length(0, MOST),
        metadata=like([ACCOUNT], _ACCOUNTS),
    )


class TenantIn(Strict):
    name = text(200, "Acme", required=True)
    reference = text(200, "customer-42", "Your own id for it; unique.", allow_none=True)
    accounts = accounts()


class TenantChange(Strict):
    name = text(200, "Acme")
    reference = text(200, "customer-42", allow_none=True)
    accounts = accounts()


class TenantQuery(PageQuery):
    reference = text(200, "customer-42")
    name = text(200, "acm", "What the name begins with, in capitals or not.")
    status = Statuses(TenantStatus, "suspended")


class SuspensionOut(Answer):
    at = time(required=True)
    by = fields.String(required=True, metadata=like("api_key", "The kind of actor."))
    reason = fields.String(required=True, allow_none=True, metadata=like("Ticket 4711"))


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
    return Suspended(SuspensionOut, required=True, allow_none=True, metadata={"description": description})


class TenantListed(Answer):
    id = fields.UUID(required=True)
    name = fields.String(required=True, metadata=like("Acme"))
    reference = fields.String(required=True, allow_none=True, metadata=like("customer-42"))
    status = status(TenantStatus, "active", required=True)
    suspended = suspended()
    external_id = fields.String(
        required=True, metadata=like(EXTERNAL_ID, "Made here; not a secret; never changes hands.")
    )
    created_at = time(required=True)


class TenantOut(TenantListed):
    accounts = fields.List(
        fields.String(metadata=like(ACCOUNT)),
        required=True,
        allow_none=True,
        metadata=like([ACCOUNT], _ACCOUNTS),
    )


# --- connections ---


class ConnectionIn(Strict):
    EXAMPLE: ClassVar = {"role_arn": ROLE, "permission_set": "inventory"}
    OPENAPI: ClassVar = {"oneOf": [{"required": ["role_arn"]}, {"required": ["account_id"]}]}

    role_arn = fields.String(
        validate=validate.Length(20, 2048), metadata=like(ROLE, openapi={"pattern": f"^{ROLE_ARN_PATTERN}$"})
    )
    account_id = fields.String(
        validate=Matches(ACCOUNT_ID_PATTERN),
        metadata=like(
            ACCOUNT,
            "Instead of role_arn: Deputy looks for the onboarding kit's role in this account by itself.",
        ),
    )
    permission_set = text(64, "inventory")

    @validates_schema
    def _names_one_role(self, data: dict[str, Any], **_: Any) -> None:
        given = {"role_arn", "account_id"} & data.keys()
        if len(given) != 1:
            raise ValidationError("Give either role_arn or account_id.", "account_id" if given else "role_arn")


class ConnectionSummary(Answer):
    total = fields.Integer(required=True, metadata=like(3))
    by_status = fields.Dict(
        keys=fields.Enum(ConnectionStatus, by_value=True),
        values=fields.Integer(),
        required=True,
        metadata=like(
            {"verified": 2, "pending": 1},
            "How many there are in each status; a status that none is in is left out.",
        ),
    )


class ConnectionQuery(PageQuery):
    status = Statuses(ConnectionStatus, "pending", "broken")
    account_id = fields.String(validate=Matches(ACCOUNT_ID_PATTERN), metadata=like(ACCOUNT))


class CheckOut(Answer):
    name = fields.String(required=True, metadata=like("own_external_id_accepted"))
    outcome = one_of("CheckOutcome", "passed", "failed", "inconclusive", "skipped")
    detail = fields.String(
        required=True,
        metadata=like("AWS let us in with this External ID.", "What to change, when there is something."),
    )


class VerificationOut(Answer):
    verdict = fields.Enum(Verdict, by_value=True, required=True)
    checks = fields.List(fields.Nested(CheckOut), required=True)
    checked_at = time(required=True)


class ConnectionOut(Answer):
    id = fields.UUID(required=True)
    tenant_id = fields.UUID(required=True)
    tenant_name = fields.String(required=True, attribute="tenant.name", metadata=like("Acme"))
    tenant_reference = fields.String(
        required=True, allow_none=True, attribute="tenant.reference", metadata=like("customer-42")
    )
    role_arn = fields.String(required=True, metadata=like(ROLE))
    account_id = fields.String(required=True, metadata=like(ACCOUNT))
    external_id = fields.String(required=True, metadata=like(EXTERNAL_ID))
    status = status(ConnectionStatus, "verified", required=True)
    issues = fields.Boolean(required=True, metadata={"description": "Whether credentials are issued for it."})
    why = fields.String(
        required=True,
        allow_none=True,
        metadata=like(None, "Why nothing is issued for it, its tenant's suspension among the reasons."),
    )
    suspended = suspended()
    awaiting_approval = fields.Boolean(
        required=True,
        metadata={"description": "Its permission set writes, in an account that was not declared: see approve."},
    )
    permission_set = fields.String(required=True, metadata=like("inventory"))
    verification = fields.Nested(
        VerificationOut,
        attribute="proof",
        required=True,
        allow_none=True,
        metadata={"description": "The latest proof; null until the first."},
    )
    created_at = time(required=True)
    verified_at = time(required=True, allow_none=True, metadata={"description": "When it was last proven."})
