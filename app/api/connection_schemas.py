"""Connections, as they are asked for and answered."""

from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api.suspension_schemas import suspended
from app.http.fields import ACCOUNT, EXTERNAL_ID, ROLE, Statuses, Time, like, matching, one_of, status, string, text
from app.http.schemas import Answer, PageQuery, Strict
from app.ids import ACCOUNT_ID_PATTERN, ROLE_ARN_PATTERN
from app.store.models import ConnectionStatus, Verdict


class ConnectionIn(Strict):
    EXAMPLE: ClassVar = {"role_arn": ROLE, "permission_set": "inventory"}
    OPENAPI: ClassVar = {"oneOf": [{"required": ["role_arn"]}, {"required": ["account_id"]}]}

    role_arn = fields.String(
        validate=validate.Length(20, 2048), metadata=like(ROLE, openapi={"pattern": f"^{ROLE_ARN_PATTERN}$"})
    )
    account_id = matching(
        ACCOUNT_ID_PATTERN, ACCOUNT, "Instead of role_arn: Deputy looks for the onboarding kit's role in this account."
    )
    permission_set = text(64, "inventory")

    @validates_schema
    def _names_one_role(self, data: dict[str, Any], **_: Any) -> None:
        given = {"role_arn", "account_id"} & data.keys()
        if len(given) != 1:
            raise ValidationError("Give either role_arn or account_id.", "account_id" if given else "role_arn")


class ConnectionSummary(Answer):
    total = fields.Integer(metadata=like(3))
    by_status = fields.Dict(
        keys=fields.Enum(ConnectionStatus, by_value=True),
        values=fields.Integer(),
        metadata=like(
            {"verified": 2, "pending": 1}, "How many have each status. A status without connections is left out."
        ),
    )


class ConnectionQuery(PageQuery):
    status = Statuses(ConnectionStatus, "pending", "broken")
    account_id = matching(ACCOUNT_ID_PATTERN, ACCOUNT)


class CheckOut(Answer):
    name = string("own_external_id_accepted")
    outcome = one_of("CheckOutcome", "passed", "failed", "inconclusive", "skipped")
    detail = string("AWS let us in with this External ID.", "What was found, and what to change if it failed.")


class VerificationOut(Answer):
    verdict = fields.Enum(Verdict, by_value=True)
    checks = fields.List(fields.Nested(CheckOut))
    checked_at = Time()


class ConnectionOut(Answer):
    id = fields.UUID()
    tenant_id = fields.UUID()
    tenant_name = string("Acme", attribute="tenant.name")
    tenant_reference = string("customer-42", allow_none=True, attribute="tenant.reference")
    role_arn = string(ROLE)
    account_id = string(ACCOUNT)
    external_id = string(EXTERNAL_ID)
    status = status(ConnectionStatus, "verified")
    issues = fields.Boolean(metadata={"description": "Whether credentials are issued for it."})
    why = string(
        None, "Why no credentials are issued for it, a suspended tenant included; null: they are.", allow_none=True
    )
    suspended = suspended()
    awaiting_approval = fields.Boolean(
        metadata={
            "description": "Its permission set writes, in an account that the tenant did not declare: see approve."
        }
    )
    permission_set = string("inventory")
    verification = fields.Nested(
        VerificationOut,
        attribute="proof",
        allow_none=True,
        metadata={"description": "The latest proof; null before the first."},
    )
    created_at = Time()
    verified_at = Time(allow_none=True, metadata={"description": "The time of the latest proof that succeeded."})
