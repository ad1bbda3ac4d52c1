"""The diagnosis of a connection: why it does not work, who can repair it, and the role's rights.

It stores no verdict and changes no status. The role is read only if a proof has pinned it for this
tenant. Otherwise a role that lets everybody in could belong to another party, and the wrong tenant
would see its content.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.approvals.approvals import SetRequests
from app.audit import actions
from app.aws.role_view import Right, RoleSettings, known_keys
from app.aws.sts import Refused, Sts, StsError
from app.clock import now
from app.config import Config
from app.connections.allowed_roles import allowed_role
from app.diagnosis import role_rights
from app.diagnosis.steps import NEEDED, UNREAD, DiagnosisStep, Evidence, steps
from app.diagnosis.visibility import for_the_tenant, without_other_tenants
from app.errors import CallerFaultError
from app.identity import Principal, owned
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.proofs.canary import Canary
from app.rotation.switch import RotationPlan, accepts_any, plan_rotation
from app.store.database import Database
from app.store.models import Connection, ConnectionStatus
from app.strict_json import JsonObject

# for a permission set that is no longer configured
_UNCONFIGURED = PermissionSet("", 0, "", "", "read", [], [], [])


@dataclass(frozen=True)
class Permissions:
    """The comparison of the role's rights with its permission set.

    `beyond` is None if the role's policies were not read.
    """

    set: str
    version: int | None  # the version from which the role was made
    missing: Sequence[role_rights.Gap]
    beyond: Sequence[role_rights.Beyond] | None
    unknown: Sequence[role_rights.Gap]


@dataclass(frozen=True)
class Diagnosis:
    at: datetime
    conclusion: str
    steps: Sequence[DiagnosisStep]
    trust_policy: JsonObject | None  # None: it was not read, or is not an object
    permissions: Permissions


@dataclass
class Diagnoses:
    """Makes diagnoses. The calls of `_sts` wait for the STS budget."""

    _db: Database
    _sts: Sts
    _canary: Canary
    _config: Config
    _sets: PermissionSets

    def diagnose(self, principal: Principal, tenant_id: UUID, connection_id: UUID) -> Diagnosis:
        """Diagnose a connection. Raises NotFoundError, SuspendedError."""
        with self._db.read() as db:
            connection = owned(db, principal, tenant_id, connection_id)
            connection.tenant.ensure_active()
            connection.ensure_not_suspended()
            plan = plan_rotation(db, connection)
        role, own_set = connection.grant.role_arn, connection.permission_set
        permission_set = self._sets.get(own_set, _UNCONFIGURED)
        statements = permission_set.policy(role.partition)["Statement"]
        managed = permission_set.managed_policy_arns(role.partition)
        askable, gaps = role_rights.rights(statements, known_keys(role))
        evidence = self._ask(plan, askable)
        view = evidence.view
        beyond = None
        decisions = {} if isinstance(view.decisions, StsError) else view.decisions
        if not isinstance(view.policies, StsError):
            for arn in managed:
                if arn not in view.policies.managed:
                    gaps.append(role_rights.Gap(None, None, "not_granted", arn))
            beyond = role_rights.beyond(view.policies, statements, managed, role)
        lacking = (role_rights.gap(right, decisions.get(right), statements) for right in askable)
        evidence = evidence._replace(gaps=(*filter(None, lacking), *gaps))
        result = steps(evidence)
        for_tenant = for_the_tenant(result)
        # The audit log gets the steps for the tenant, because the tenant's keys can read it.
        after = self._record(principal, connection, for_tenant, view.settings)
        if not principal.is_vendor:
            result = for_tenant
        # the role has moved to another permission set meanwhile
        if after.permission_set != own_set:
            after = connection
        version, unknown = after.permission_set_version, evidence.unknown
        permissions = Permissions(own_set, version, evidence.missing, beyond, unknown)
        trust_policy = _trust_policy(view.settings, plan.external_ids)
        why = _conclusion(result, connection.why)
        return Diagnosis(now(), why, result, trust_policy, permissions)

    def _ask(self, plan: RotationPlan, askable: Collection[Right]) -> Evidence:
        """Ask AWS about our own side, then about the role, until further calls would be useless."""
        connection = plan.connection
        try:
            evidence = Evidence(self._config, self._sts.own_identity())
        except StsError as error:
            return Evidence(self._config, error)
        if not evidence.identity:
            return evidence
        if (sight := self._canary.ask_canary(self._sts)) is not None:
            evidence = evidence._replace(canary=(sight, self._canary.finding(self._sts)))
        try:
            allowed_role(self._config, connection.role_arn, imported=True)
        except CallerFaultError as error:
            return evidence._replace(not_allowed=error.detail)
        evidence = evidence._replace(unfit=_unfit(connection))
        try:
            if connection.role_unique_id is None:
                self._sts.probe_again(connection.grant)
                return evidence
            view = self._sts.view(connection.grant, connection.role_unique_id, askable)
        except StsError as error:
            others = (grant for grant in plan.offered if grant != connection.grant)
            ended = connection.why if connection.status is ConnectionStatus.ENDED else None
            accepts = isinstance(error, Refused) and accepts_any(self._sts, others)
            return evidence._replace(error=error, ended=ended, accepts_another=accepts)
        return evidence._replace(view=view or UNREAD, recreated=view is None)

    def _record(
        self,
        principal: Principal,
        tested: Connection,
        result: Sequence[DiagnosisStep],
        settings: RoleSettings | StsError,
    ) -> Connection:
        with self._db.write(principal) as db:
            connection = owned(db, principal, tested.tenant_id, tested.id, lock=True)
            # A proof that was stored meanwhile may have read the role later
            if isinstance(settings, RoleSettings) and connection.tried_at == tested.tried_at:
                SetRequests(db, principal.actor, connection).apply_label(
                    self._sets, settings.permission_set, by_tag=True
                )
            actions.CONNECTION_DIAGNOSED.record_about(
                db,
                principal.actor,
                connection,
                {"steps": {step.name: step.outcome for step in result}},
            )
            return connection


def _unfit(connection: Connection) -> tuple[str, str] | None:
    """Return why a role that lets us in is not used, and what the customer has to change.

    Return None if it is used, or if a proof decides. The latest proof may have been inconclusive,
    so it need not show what is wrong.
    """
    why = connection.why or ""
    if connection.external_id_row.is_withdrawn:
        return why, "update the role, so that it accepts the kit's External ID."
    if connection.status is ConnectionStatus.INSECURE:
        checks = connection.proof.checks if connection.proof else ()
        details = (check["detail"] for check in checks if check["outcome"] == "failed")
        return why, next(details, "compare the role's trust policy with the kit's.")
    return None


def _trust_policy(settings: RoleSettings | StsError, own_ids: Collection[str]) -> JsonObject | None:
    if isinstance(settings, StsError) or not isinstance(settings.trust_policy, dict):
        return None
    return without_other_tenants(settings.trust_policy, own_ids)


def _conclusion(result: list[DiagnosisStep], why: str | None) -> str:
    """Return the detail of the most urgent step.

    If no step has a problem, return `why` (why no credentials are issued), or say that nothing is
    wrong.
    """
    for step in result:
        if step.outcome == "problem":
            return step.detail
    for step in result:
        if step.outcome == "unknown" and step.name in {"vendor", *NEEDED}:
            return step.detail
    return why or "Deputy finds nothing that is wrong: the role lets us in."
