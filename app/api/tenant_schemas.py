"""Tenants, as they are asked for and answered."""

from typing import Any

from marshmallow import fields, validate

from app.api.suspension_schemas import suspended
from app.http.fields import ACCOUNT, EXTERNAL_ID, Matches, Statuses, like, status, text, time
from app.http.schemas import Answer, PageQuery, Strict
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import TenantStatus
from app.tenants.accounts import MOST

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


class TenantListed(Answer):
    id = fields.UUID()
    name = fields.String(metadata=like("Acme"))
    reference = fields.String(allow_none=True, metadata=like("customer-42"))
    status = status(TenantStatus, "active")
    suspended = suspended()
    external_id = fields.String(metadata=like(EXTERNAL_ID, "Made here; not a secret; never changes hands."))
    created_at = time()


class TenantOut(TenantListed):
    accounts = fields.List(fields.String(metadata=like(ACCOUNT)), allow_none=True, metadata=like([ACCOUNT], _ACCOUNTS))
