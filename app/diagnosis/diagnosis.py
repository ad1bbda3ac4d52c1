"""The diagnosis of a connection: why it does not work, who can repair it, and the role's rights.

It stores no verdict and changes no status. The role is read only if a proof has pinned it under
this tenant. Otherwise a role that lets everybody in could belong to another party, and its content
would be shown to the wrong tenant.
"""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.approvals.requests import SetRequests
from app.audit import actions
from app.aws.role_view import RoleView, known_keys
from app.aws.sts import Refused, Sts, StsError
from app.clock import now
from app.config import Config
from app.connections.allowed_roles import allowed_role
from app.diagnosis import role_rights
from app.diagnosis.steps import UNTOLD, DiagnosisStep, Evidence, conclusion, for_the_tenant, steps
from app.errors import CallerFaultError
from app.identity import Principal, owned
from app.ids import EXTERNAL_ID_PATTERN, Grant
from app.permissions.permission_sets import PermissionSets
from app.proofs.canary import Canary
from app.rotation import checks
from app.store.database import Database
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, ExternalIdState

_ENDED = ConnectionStatus.ENDED
# A proof pairs the role with them, if it accepts them
_OFFERED = {ExternalIdState.CURRENT, ExternalIdState.NEXT}


@dataclass(frozen=True, slots=True)
class Permissions:
    """The role's rights compared with its permission set.

    `beyond` is None if the role's policies were not read.
    """

    set: str
    version: int | None  # the version from which the role was made
    missing: Sequence[role_rights.Gap]
    beyond: Sequence[role_rights.Beyond] | None
    unknown: Sequence[role_rights.Gap]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    at: datetime
    conclusion: str
    steps: Sequence[DiagnosisStep]
    trust_policy: dict[str, Any] | None  # None: it was not read, or is not an object
    permissions: Permissions


class Diagnoses:
    """Makes diagnoses. `sts` waits for the STS budget."""

    def __init__(
        self, db: Database, sts: Sts, canary: Canary, config: Config, sets: PermissionSets
    ) -> None:
        self._db = db
        self._sts = sts
        self._canary = canary
        self._config = config
        self._sets = sets

    def diagnose(self, caller: Principal, tenant_id: UUID, connection_id: UUID) -> Diagnosis:
        """Diagnose a connection. Raises NotFoundError, SuspendedError."""
        with self._db.read() as db:
            connection = owned(db, caller, tenant_id, connection_id)
            connection.tenant.ensure_active()
            connection.ensure_not_suspended()
            external_ids = db.scalars(
                select(ExternalIdRow).where(ExternalIdRow.tenant_id == tenant_id)
            ).all()
        role = connection.grant.role_arn
        chosen = self._sets.get(connection.permission_set)  # None: the deployment no longer has it
        statements = chosen.policy(role.partition)["Statement"] if chosen else []
        managed = chosen.managed_policy_arns(role.partition) if chosen else []
        askable, unaskable = role_rights.rights(statements, known_keys(role))
        offered = [row for row in external_ids if row.state in _OFFERED and not row.is_withdrawn]
        others = [
            connection.grant_with(row) for row in offered if row.id != connection.external_id_id
        ]
        seen = self._seen(connection, others, askable)
        view = seen.view
        decisions = {} if view is None or isinstance(view.decisions, StsError) else view.decisions
        policies = None if view is None or isinstance(view.policies, StsError) else view.policies
        lacking = (role_rights.gap(right, decisions.get(right), statements) for right in askable)
        attached = role_rights.not_attached(policies, managed) if policies else ()
        seen = seen._replace(gaps=(*filter(None, lacking), *attached, *unaskable))
        found = steps(seen)
        for_tenant = for_the_tenant(found)
        # The tenant's keys can read the audit log too
        after = self._record(caller, connection, for_tenant, view)
        found = found if caller.is_vendor else for_tenant
        missing = [it for it in seen.gaps if it.cause not in UNTOLD]
        unknown = [it for it in seen.gaps if it.cause in UNTOLD]
        more = role_rights.beyond(policies, statements, managed, role) if policies else None
        own_set = connection.permission_set  # the diagnosed one; the role may have moved since
        version = (after if after.permission_set == own_set else connection).permission_set_version
        permissions = Permissions(own_set, version, missing, more, unknown)
        trust_policy = _trust_policy(view, {row.value for row in external_ids})
        return Diagnosis(now(), conclusion(found, connection.why), found, trust_policy, permissions)

    def _seen(
        self, connection: Connection, others: list[Grant], askable: Collection[tuple[str, str]]
    ) -> Evidence:
        """Ask AWS, from our own side to the role, until an answer makes further questions useless.

        `others`: the role with the tenant's other External IDs, which it is to have during a
        rotation.
        """
        try:
            seen = Evidence(self._config, self._sts.own_identity())
        except StsError as error:
            return Evidence(self._config, error)
        if not seen.identity:
            return seen
        if (sight := self._canary.ask_canary(self._sts)) is not None:
            seen = seen._replace(canary=(sight, self._canary.finding(self._sts)))
        try:
            allowed_role(self._config, connection.role_arn)
        except CallerFaultError as error:
            return seen._replace(not_allowed=error.detail)
        try:
            if connection.role_unique_id is None:
                self._sts.probe_again(connection.grant)
                return seen
            view = self._sts.view(connection.grant, connection.role_unique_id, askable)
        except StsError as error:
            ended = connection.why if connection.status is _ENDED else None
            paired_anew = isinstance(error, Refused) and any(
                checks.refuses(self._sts, one) is False for one in others
            )
            return seen._replace(error=error, ended=ended, accepts_another=paired_anew)
        return seen._replace(view=view, recreated=view is None)

    def _record(
        self,
        caller: Principal,
        tested: Connection,
        found: Sequence[DiagnosisStep],
        view: RoleView | None,
    ) -> Connection:
        with self._db.write(caller) as db:
            connection = owned(db, caller, tested.tenant_id, tested.id, lock=True)
            if view is not None and not isinstance(view.settings, StsError):
                label = view.settings.permission_set
                SetRequests(db, caller.actor, connection).apply_label(
                    self._sets, label, by_tag=True
                )
            actions.CONNECTION_DIAGNOSED.record_about(
                db, caller.actor, connection, {"steps": {step.name: step.outcome for step in found}}
            )
            return connection


def _trust_policy(view: RoleView | None, own_ids: Collection[str]) -> dict[str, Any] | None:
    """Return the role's trust policy without other tenants' External IDs."""
    if (
        view is None
        or isinstance(view.settings, StsError)
        or not isinstance(view.settings.trust_policy, dict)
    ):
        return None

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[0] in own_ids else "(not this tenant's)"

    policy: dict[str, Any] = json.loads(
        re.sub(EXTERNAL_ID_PATTERN, shown, json.dumps(view.settings.trust_policy))
    )
    return policy
