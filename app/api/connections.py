"""Connections: a tenant's links to IAM roles, and their proofs."""

from typing import Any
from uuid import UUID

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api.diagnosis import DiagnosisOut
from app.api.kit.blueprint import (
    Blueprint,
    JsonObject,
    changing,
    filters_of,
    paged,
    principal,
    services,
)
from app.api.kit.pagination import PageQuery, page_of
from app.api.kit.schemas import (
    ACCOUNT,
    EXTERNAL_ID,
    ROLE,
    SUSPENDED,
    Answer,
    AsStored,
    Empty,
    Reason,
    Statuses,
    Strict,
    choice,
    date_time,
    described,
    doc,
    flag,
    line,
    mapping,
    matching,
    nested,
    nullable_date_time,
    nullable_string,
    number,
    one_of,
    status,
    string,
    uuid,
)
from app.connections.listing import ConnectionFilter
from app.diagnosis.diagnosis import Diagnosis
from app.errors import RoleNotAllowedError
from app.idempotency.attempts import Effect
from app.identity import ApiKeyPrincipal
from app.ids import ACCOUNT_ID, ROLE_ARN_PATTERN
from app.limits.limits import ATTEMPTS
from app.store.models import Connection, ConnectionStatus, ExternalIdOrigin, Trigger, Verdict


class NewConnection(Strict):
    EXAMPLE = {"role_arn": ROLE, "permission_set": "inventory"}
    ALTERNATIVES = {"role_arn": "NewConnectionByRoleArn", "account_id": "NewConnectionByAccountId"}

    role_arn = fields.String(
        validate=validate.Length(20, 2048),
        metadata=doc(ROLE, openapi={"pattern": f"^{ROLE_ARN_PATTERN}$"}),
    )
    account_id = matching(
        ACCOUNT_ID.pattern, ACCOUNT, "Instead of role_arn: Deputy looks for the kit's role there."
    )
    permission_set = line(64, "inventory")

    @validates_schema
    def _names_one_role(self, data: JsonObject, **_: Any) -> None:
        if ("role_arn" in data) == ("account_id" in data):
            field = "account_id" if "account_id" in data else "role_arn"
            raise ValidationError("Give either role_arn or account_id.", field)


class ConnectionChange(Strict):
    permission_set = line(64, "bucket-sync", required=True)


class PermissionSetApproval(Strict):
    permission_set = line(
        64,
        "bucket-sync",
        "The set to approve: one of sets_to_approve. Without it, the only one that waits.",
    )


class ConnectionSummary(Answer):
    total = number(3)
    reprove_every = number(
        3600,
        "Seconds between two proofs of a connection: more than was set where DEPUTY_STS_BUDGET is"
        " too small.",
    )
    by_status = mapping(
        {"verified": 2, "pending": 1},
        "How many have each status. A status without connections is left out.",
        keys=choice(ConnectionStatus),
        values=fields.Integer(),
    )


class ConnectionQuery(PageQuery):
    statuses = Statuses(ConnectionStatus, "pending", "broken", data_key="status")
    account_id = matching(ACCOUNT_ID.pattern, ACCOUNT)
    update_available = fields.Boolean(truthy={"true"}, falsy={"false"}, metadata=doc(True))
    external_id_origin = choice(ExternalIdOrigin)


class ProofCheckOut(Answer):
    name = string("own_external_id_accepted")
    outcome = one_of("ProofCheckOutcome", "passed", "failed", "inconclusive", "skipped")
    detail = string(
        "AWS let us in with this External ID.", "What was found, and what to change if it failed."
    )


class ProofWarningOut(Answer):
    name = string("trust_policy_names_only_us")
    detail = string(
        "The role also trusts arn:aws:iam::444455556666:root.", "What does not change the verdict."
    )


class VerificationOut(Answer):
    verdict = choice(Verdict)
    checks = AsStored(fields.Nested(ProofCheckOut))
    warnings = AsStored(fields.Nested(ProofWarningOut))
    checked_at = date_time()


class ProofOut(VerificationOut):
    id = uuid()
    trigger = choice(
        Trigger,
        metadata=described("Why it was made, the first time.") | {"component": "ProofTrigger"},
    )
    first_at = date_time()
    checked_at = date_time("When it was made last.")
    count = number(24, "How often it was made: routine proofs that find the same count up.")


class ConnectionOut(Answer):
    id = uuid()
    tenant_id = uuid()
    tenant_name = string("Acme", attribute="tenant.name")
    tenant_reference = nullable_string("customer-42", attribute="tenant.reference")
    role_arn = string(ROLE)
    account_id = string(ACCOUNT)
    external_id = string(EXTERNAL_ID)
    external_id_origin = choice(ExternalIdOrigin, attribute="external_id_row.origin")
    status = status(ConnectionStatus, "verified")
    issues = flag("Whether credentials are issued for it.")
    why = nullable_string(
        None, "Why no credentials are issued for it (a suspended tenant too); null: they are."
    )
    suspended = SUSPENDED
    awaiting_approval = flag(
        "Its permission set, or the one that it is to move to, writes, in an account that the"
        " tenant did not declare: see approve.",
        attribute="awaits_approval",
    )
    sets_to_approve = fields.List(
        fields.String(),
        metadata=doc(["bucket-sync"], "The permission sets that wait for the vendor's approval."),
    )
    permission_set = string("inventory")
    permission_set_version = number(
        1,
        "The version that its role was made from, as its stack or its tag says; null: not known.",
        allow_none=True,
    )
    wanted_permission_set = nullable_string(None, "The set that its role is to move to; see PATCH.")
    update_available = flag(
        "Whether its role is to be updated: to a newer version of its set, or to another set."
    )
    verification = nested(
        VerificationOut,
        "The latest proof; null before the first.",
        attribute="proof",
        allow_none=True,
    )
    proven_until = nullable_date_time(
        "Nothing is issued later without a fresh proof. null: not verified."
    )
    next_proof_at = nullable_date_time(attribute="due_at")
    access_until = nullable_date_time(
        "When the access ends, by the role's trust policy or its stack's message. null: no time."
    )
    created_at = date_time()
    verified_at = nullable_date_time("The time of the latest proof that succeeded.")

    def read_update_available(self, connection: Connection) -> bool:
        return services.listing.has_update(connection)

    def read_proven_until(self, connection: Connection) -> Any:
        return connection.proven_until(services.config.proofs.proof_max_age)


class ApprovedConnection(ConnectionOut):
    approved = string(
        "bucket-sync",
        "The permission set that was approved. null: the first answer was lost.",
        attribute="approved_set",
        allow_none=True,
    )


bp = Blueprint("connections", "Links to IAM roles, and their proofs.", noun="connection")

_ALL = "/v1/tenants/<uuid:tenant_id>/connections"
_ONE = f"{_ALL}/<uuid:connection_id>"
_READ = "connections:read tenants:create"
_ConnectionPage = page_of(ConnectionOut)


def _trying_a_role(tenant_id: UUID) -> ApiKeyPrincipal:
    """Count one proof of a role against the tenant's quota, and return the principal."""
    services.quotas.acquire(principal(), tenant_id, ATTEMPTS)
    return principal()


def _as_it_is(effect: Effect) -> Connection:
    return services.connections.get(principal(), *effect.connection)


def _proven(effect: Effect) -> Connection:
    """Return the connection that an earlier attempt changed; finish its proof if it has none."""
    connection = _as_it_is(effect)
    if connection.proof_id is not None or connection.is_only_an_account:
        return connection
    again = _trying_a_role(effect.tenant)
    return services.verification.verify(again, *effect.connection, trigger=Trigger.REQUESTED)


def _diagnosed(effect: Effect) -> Diagnosis:
    return services.diagnoses.diagnose(_trying_a_role(effect.tenant), *effect.connection)


@bp.operation(
    "POST", _ALL, "connections:write", ConnectionOut, takes=NewConnection, status=201, again=_proven
)
def create_connection(body: JsonObject, tenant_id: UUID) -> Connection:
    """Connect a role, and prove it once before answering.

    The status is `verified` if the role accepts the tenant's External ID, and refuses the broker
    without it and with another one. It is `pending` if the role refused for 5 seconds, as a new
    role does at first. Deputy then tries again after 5, 15, 30 and 60 seconds, and then hourly for
    14 days.

    With `account_id` instead of `role_arn`, Deputy looks for the onboarding kit's role in that
    account on the same schedule, and answers `pending`. AWS gives the same answer for an absent
    role and for one that refuses.
    """
    try:
        return services.connections.create(_trying_a_role(tenant_id), tenant_id, **body)
    except RoleNotAllowedError as error:
        if "account_id" in body:  # the field that the client sent
            error.errors = {"account_id": [error.detail]}
        raise


@bp.operation("GET", _ALL, _READ, _ConnectionPage, takes=ConnectionQuery)
def list_connections(query: JsonObject, tenant_id: UUID) -> JsonObject:
    """List a tenant's connections, newest first."""
    connection_filter = ConnectionFilter(tenant_id=tenant_id, **filters_of(query))
    return paged(query, services.listing.list, principal(), connection_filter)


@bp.operation("GET", f"{_ALL}/summary", _READ, ConnectionSummary)
def summarize_connections(tenant_id: UUID) -> JsonObject:
    """Count a tenant's connections by status."""
    counts = services.listing.summary(principal(), tenant_id)
    every = services.proof_queue.interval.current().seconds
    return {"total": sum(counts.values()), "reprove_every": every, "by_status": counts}


@bp.operation("GET", "/v1/connections", "connections:read", _ConnectionPage, takes=ConnectionQuery)
def list_all_connections(query: JsonObject) -> JsonObject:
    """List connections across tenants, newest first."""
    return paged(query, services.listing.list, principal(), ConnectionFilter(**filters_of(query)))


@bp.operation("GET", _ONE, _READ, ConnectionOut)
def get_connection(tenant_id: UUID, connection_id: UUID) -> Connection:
    """Read a connection."""
    return services.connections.get(principal(), tenant_id, connection_id)


@bp.operation("PATCH", _ONE, "connections:write", ConnectionOut, takes=ConnectionChange)
def request_permission_set(body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Connection:
    """Ask the customer to move a role to another permission set.

    The kit of that set and the onboarding page then show how to update the role. The connection
    keeps its set and its status, and issues as before, until Deputy learns that the role has the
    other set. Deputy learns it from the stack's message, the role's tag or a diagnosis. A set that
    writes needs approval as a new connection does. A request for the connection's own set withdraws
    the earlier request. A key that is limited to permission sets must cover those that the role
    has.
    """
    return services.approvals.ask_for_set(
        _trying_a_role(tenant_id), tenant_id, connection_id, **body
    )


@bp.operation("DELETE", _ONE, "connections:write", status=204)
def delete_connection(tenant_id: UUID, connection_id: UUID) -> None:
    """Delete a connection: issuing stops at once.

    If a key that is bound to no tenant deleted the connection, only such a key can connect this
    role again, and be the first to connect another one in its AWS account. If a bound key deleted
    it, bound keys can connect the role again too. A key that is bound to no tenant can prevent
    that: it deletes the connection once more.
    """
    services.connections.delete(principal(), tenant_id, connection_id)


@bp.operation(
    "POST", f"{_ONE}/verify", "connections:write", ConnectionOut, takes=Empty, again=_proven
)
def verify_connection(_body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Connection:
    """Prove a connection again now."""
    return services.verification.verify(
        _trying_a_role(tenant_id), tenant_id, connection_id, trigger=Trigger.REQUESTED
    )


@bp.operation(
    "POST", f"{_ONE}/diagnose", "connections:write", DiagnosisOut, takes=Empty, again=_diagnosed
)
def diagnose_connection(_body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Diagnosis:
    """Find out why a connection does not work, and who can repair it.

    The diagnosis also compares the role's permissions with its permission set. For that a proof
    must have succeeded, and the role must be allowed to read itself (the kit's policy
    `read-itself`). A diagnosis changes nothing. A key that is bound to a tenant sees the vendor's
    steps as one step.
    """
    return services.diagnoses.diagnose(_trying_a_role(tenant_id), tenant_id, connection_id)


@bp.operation("GET", f"{_ONE}/proofs", "connections:read", page_of(ProofOut), takes=PageQuery)
def list_proofs(query: JsonObject, tenant_id: UUID, connection_id: UUID) -> JsonObject:
    """List a connection's proofs, newest first."""
    return paged(query, services.listing.list_proofs, principal(), tenant_id, connection_id)


@bp.operation(
    "POST", f"{_ONE}/suspend", "connections:write", ConnectionOut, takes=Reason, again=_as_it_is
)
def suspend_connection(body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Connection:
    """Suspend a connection: no credentials are issued for it until it is resumed.

    A suspension by a key that is bound to no tenant also restricts the tenant's keys, links and
    stacks. Until the connection is resumed, they can connect no other role in its AWS account, and
    can't have an unverified connection proven there. Verified ones stay as they are.
    """
    return services.connections.suspend(principal(), tenant_id, connection_id, **body)


@bp.operation(
    "POST", f"{_ONE}/resume", "connections:write", ConnectionOut, takes=Reason, again=_proven
)
def resume_connection(body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Connection:
    """Resume a suspended connection, and prove it once before answering."""
    _trying_a_role(tenant_id)
    return services.connections.resume(changing(), tenant_id, connection_id, **body)


@bp.operation(
    "POST",
    f"{_ONE}/approve",
    "connections:write",
    ApprovedConnection,
    takes=PermissionSetApproval,
    again=_as_it_is,
)
def approve_connection(body: JsonObject, tenant_id: UUID, connection_id: UUID) -> Connection:
    """Approve a permission set that may write, in an account that was not declared.

    This needs a key that is bound to no tenant. One request approves one set; other sets in
    `sets_to_approve` go on waiting. The answer is 409 if the named set does not wait, or if the
    request names none and two wait. Name the set that you looked at, because a key of the tenant
    can ask for another one at any time.

    A connection whose own set is approved is verified at once if its latest proof succeeded and is
    less than a day old. Otherwise a proof is due now.
    """
    return services.approvals.approve(principal(), tenant_id, connection_id, **body)


@bp.operation(
    "POST",
    f"{_ONE}/report-refused",
    "credentials:issue",
    Empty,
    takes=Empty,
    status=202,
    again=lambda _: {},
)
def report_refused_credentials(
    _body: JsonObject, tenant_id: UUID, connection_id: UUID
) -> JsonObject:
    """Report that AWS refused issued credentials.

    Deputy drops the cached sessions of the connection and makes a proof due now. It does so at most
    once a minute for a connection, and a few times a minute for a tenant. Reports beyond these
    limits also get 202.
    """
    services.issuer.report_refused(principal(), tenant_id, connection_id)
    return {}
