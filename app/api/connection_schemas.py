"""Connections, as they are asked for and answered."""

from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api.suspension_schemas import suspended
from app.http.fields import ACCOUNT, EXTERNAL_ID, ROLE, Matches, Statuses, like, one_of, status, text, time
from app.http.schemas import Answer, PageQuery, Strict
from app.ids import ACCOUNT_ID_PATTERN, ROLE_ARN_PATTERN
from app.store.models import ConnectionStatus, Verdict


class ConnectionIn(Strict):
    EXAMPLE: ClassVar = {"role_arn": ROLE, "permission_set": "inventory"}
    OPENAPI: ClassVar = {"oneOf": [{"required": ["role_arn"]}, {"required": ["account_id"]}]}

    role_arn = fields.String(
        validate=validate.Length(20, 2048), metadata=like(ROLE, openapi={"pattern": f"^{ROLE_ARN_PATTERN}$"})
    )
    account_id = fields.String(
        validate=Matches(ACCOUNT_ID_PATTERN),
        metadata=like(
            ACCOUNT, "Instead of role_arn: Deputy looks for the onboarding kit's role in this account by itself."
        ),
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
            {"verified": 2, "pending": 1}, "How many there are in each status; a status that none is in is left out."
        ),
    )


class ConnectionQuery(PageQuery):
    status = Statuses(ConnectionStatus, "pending", "broken")
    account_id = fields.String(validate=Matches(ACCOUNT_ID_PATTERN), metadata=like(ACCOUNT))


class CheckOut(Answer):
    name = fields.String(metadata=like("own_external_id_accepted"))
    outcome = one_of("CheckOutcome", "passed", "failed", "inconclusive", "skipped")
    detail = fields.String(
        metadata=like("AWS let us in with this External ID.", "What to change, when there is something.")
    )


class VerificationOut(Answer):
    verdict = fields.Enum(Verdict, by_value=True)
    checks = fields.List(fields.Nested(CheckOut))
    checked_at = time()


class ConnectionOut(Answer):
    id = fields.UUID()
    tenant_id = fields.UUID()
    tenant_name = fields.String(attribute="tenant.name", metadata=like("Acme"))
    tenant_reference = fields.String(allow_none=True, attribute="tenant.reference", metadata=like("customer-42"))
    role_arn = fields.String(metadata=like(ROLE))
    account_id = fields.String(metadata=like(ACCOUNT))
    external_id = fields.String(metadata=like(EXTERNAL_ID))
    status = status(ConnectionStatus, "verified")
    issues = fields.Boolean(metadata={"description": "Whether credentials are issued for it."})
    why = fields.String(
        allow_none=True, metadata=like(None, "Why nothing is issued for it, its tenant's suspension among the reasons.")
    )
    suspended = suspended()
    awaiting_approval = fields.Boolean(
        metadata={"description": "Its permission set writes, in an account that was not declared: see approve."}
    )
    permission_set = fields.String(metadata=like("inventory"))
    verification = fields.Nested(
        VerificationOut,
        attribute="proof",
        allow_none=True,
        metadata={"description": "The latest proof; null until the first."},
    )
    created_at = time()
    verified_at = time(allow_none=True, metadata={"description": "When it was last proven."})
