"""Tenants, as they are asked for and answered."""

from marshmallow import fields, validate

from app.api.suspension_schemas import suspended
from app.http.fields import ACCOUNT, EXTERNAL_ID, Matches, Statuses, Time, like, status, string, text
from app.http.schemas import Answer, PageQuery, Strict
from app.ids import ACCOUNT_ID_PATTERN
from app.store.models import TenantStatus
from app.tenants.accounts import MOST

_ACCOUNTS = like([ACCOUNT], "The AWS accounts that its roles may be in; null: any. See docs/api.md.")


class TenantChange(Strict):
    name = text(200, "Acme")
    reference = text(200, "customer-42", allow_none=True)
    accounts = fields.List(
        string(ACCOUNT, validate=Matches(ACCOUNT_ID_PATTERN)),
        allow_none=True,
        validate=validate.Length(0, MOST),
        metadata=_ACCOUNTS,
    )


class TenantIn(TenantChange):
    name = text(200, "Acme", required=True)
    reference = text(200, "customer-42", "Your own id for it; unique.", allow_none=True)


class TenantQuery(PageQuery):
    reference = text(200, "customer-42")
    name = text(200, "acm", "The beginning of the name; case does not matter.")
    status = Statuses(TenantStatus, "suspended")


class TenantListed(Answer):
    id = fields.UUID()
    name = string("Acme")
    reference = string("customer-42", allow_none=True)
    status = status(TenantStatus, "active")
    suspended = suspended()
    external_id = string(EXTERNAL_ID, "Made by Deputy, for this tenant alone; not a secret.")
    created_at = Time()


class TenantOut(TenantListed):
    accounts = fields.List(string(ACCOUNT), allow_none=True, metadata=_ACCOUNTS)
