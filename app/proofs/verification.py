"""Verification: proves connections, and stores the verdicts.

A proof takes seconds, and no transaction is open meanwhile. So its verdict is stored only if the
connection is still the one that was tested (invariant 5; docs/architecture.md has the list).
Otherwise the proof is made again.
"""

import math
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from app import metrics
from app.approvals.requests import SetRequests
from app.audit import Actor, actions
from app.audit.details import ProofResult, RoleDrift
from app.audit.events import Action
from app.aws.sts import Sts, Told
from app.clock import now
from app.concurrency.places import pause
from app.connections import allowed_roles
from app.errors import ConflictError
from app.identity import Principal, owned, tenant_of
from app.ids import Grant
from app.permissions.permission_sets import PermissionSets
from app.proofs.canary import Canary, Sight
from app.proofs.proof import ProofFinding, prove, prove_routinely
from app.proofs.proof_interval import Pace
from app.proofs.trust_checks import (
    UNREADABLE,
    Expected,
    judge,
    named_external_ids,
    without_its_text,
)
from app.rotation import rotations as rotation
from app.rotation.candidates import Answers, Plan, plan_of
from app.rotation.checks import look_for_retired, try_external_ids
from app.rotation.switch import next_due, store_trials
from app.store.database import Database, Session as DbSession
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, Proof, Trigger, Verdict
from app.store.models.states import ROUTINE

PATIENCE = 5.0  # seconds to retry a refused call with the own ID, when the role may be seconds old
_PAUSES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.25)
_ONCE = (
    "The role refused this tenant's External ID. It is asked again in a minute; a second refusal"
    " means that it can't be assumed any more."
)
_CANARY_LOST = (
    "A role of our own refuses the broker as well, so this refusal says nothing about this role. It"
    " is asked again in a minute."
)
_TRIES = 3  # proofs at most, if the connection changes meanwhile

_Path = tuple[UUID, UUID]  # tenant and connection


class _Tested(NamedTuple):
    """The connection that was tested: its row before the calls, and what a proof makes of it."""

    row: Connection
    refusal_would_break_it: bool
    plan: Plan

    @property
    def role_unique_id(self) -> str | None:
        """The role's unique id, if a routine proof suffices, otherwise None.

        It suffices for a verified connection that is tried with its own External ID first.
        """
        keeps_own = self.plan.own[0].id == self.row.external_id_id
        return (
            self.row.role_unique_id
            if keeps_own and self.row.status is ConnectionStatus.VERIFIED
            else None
        )

    def still_holds(self, connection: Connection, verdict: Verdict) -> bool:
        """Return whether a verdict on the tested row may be stored on the connection as it is now.

        A second insecure verdict leaves the version as it is. So the latest proof is compared as
        well: calls that began before it must not overrule it. An equal verdict overrules nothing,
        and two concurrent checks both end.
        """
        if connection.version != self.row.version:
            return False
        latest = connection.proof
        return _latest(connection) == _latest(self.row) or (
            latest is not None and latest.verdict is verdict
        )


def _refusal_would_break(connection: Connection) -> bool:
    """Return whether a refusal of its own External ID would be unexpected.

    Then it changes the status. A pending role's refusal changes none, and a refusal after the end
    of access is expected.
    """
    works = connection.status in {ConnectionStatus.VERIFIED, ConnectionStatus.INSECURE}
    return works and not connection.has_ended(now())


def _latest(connection: Connection) -> tuple[UUID, int] | None:
    return None if connection.proof is None else (connection.proof.id, connection.proof.count)


class Verification:
    """Proves connections and stores the verdicts."""

    def __init__(
        self, db: Database, sts: Sts, pace: Pace, canary: Canary, sets: PermissionSets
    ) -> None:
        self._db = db
        self._sets = sets
        self._sts = sts
        self._pace = pace
        self._canary = canary
        self._extras = (partial(canary.stranger_refused, sts),)

    def verify(
        self,
        caller: Principal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        trigger: Trigger,
        patience: float = 0.0,
    ) -> Connection:
        """Prove a connection, store the verdict and return the connection.

        `patience`: seconds to retry a role that refuses its own ID. Raises NotFoundError,
        SuspendedError, ConflictError when the connection keeps changing meanwhile, and
        AccountClosedError.
        """
        for _ in range(_TRIES):
            before = self._to_test(caller, tenant_id, connection_id)
            answers = self._prove_patiently(before, trigger, patience)
            if trigger in ROUTINE and answers.finding.refused and before.refusal_would_break_it:
                answers = answers._replace(
                    finding=self._doubted(answers.finding, before.row.refusing_since)
                )
            stored = self._store(caller, (tenant_id, connection_id), before, answers, trigger)
            if stored is not None:
                metrics.PROOFS.labels(answers.finding.verdict.value, trigger.value).inc()
                return stored
        raise ConflictError("This connection changed while it was being verified; try again.")

    def _to_test(self, caller: Principal, tenant_id: UUID, connection_id: UUID) -> _Tested:
        with self._db.read() as db:
            connection = owned(db, caller, tenant_id, connection_id)
            connection.tenant.ensure_active()
            _ensure_open(db, caller, connection)
            return _Tested(connection, _refusal_would_break(connection), plan_of(db, connection))

    def _prove_patiently(self, before: _Tested, trigger: Trigger, patience: float) -> Answers:
        deadline = time.monotonic() + patience
        for seconds in (*_PAUSES, None):
            answers = try_external_ids(
                self._sts, before.plan, lambda grant: self._prove(grant, before, trigger)
            )
            spreading = answers.finding.may_be_spreading
            if seconds is None or not spreading or time.monotonic() + seconds > deadline:
                break
            pause(seconds)
        return look_for_retired(self._sts, answers)

    def _prove(self, grant: Grant, before: _Tested, trigger: Trigger) -> ProofFinding:
        """Make a routine proof, or a full one where that does not suffice.

        Then apply the trust policy and the canary.
        """
        told: list[Told] = []
        finding = None
        if (
            trigger in ROUTINE
            and before.role_unique_id is not None
            and grant == before.plan.own[0].grant
        ):
            finding = prove_routinely(
                self._sts, grant, before.role_unique_id, self._extras, told.append
            )
            finding = finding and self._judge(finding, told, grant, before)
        if finding is None or finding.verdict is not Verdict.PROVEN:
            told.clear()
            finding = self._judge(
                prove(self._sts, grant, self._extras, told.append), told, grant, before
            )
        confirms = (
            finding.role_unique_id == before.role_unique_id and grant == before.plan.own[0].grant
        )
        found = self._canary.discount_refusals(self._sts, finding, before.row if confirms else None)
        pinned = before.row.role_unique_id
        if found.verdict is Verdict.PROVEN or (pinned is not None and finding.let_in_as == pinned):
            return found
        return without_its_text(found)

    def _judge(
        self, finding: ProofFinding, told: Sequence[Told], grant: Grant, before: _Tested
    ) -> ProofFinding:
        """Apply the trust policy.

        Before that, look up which of the External IDs that it names belong to other tenants.
        """
        own, retired, of_others = (
            before.plan.external_ids,
            before.plan.retired_ids,
            frozenset[str](),
        )
        if strange := named_external_ids(told) - own:
            is_anothers = (
                ExternalIdRow.value.in_(strange),
                ExternalIdRow.tenant_id != before.row.tenant_id,
            )
            with self._db.read() as db:
                of_others = frozenset(db.scalars(select(ExternalIdRow.value).where(*is_anothers)))
        expected = Expected(self._sts.broker, self._canary.own_accounts, own, retired, of_others)
        return judge(finding, told, grant, expected)

    def _doubted(self, finding: ProofFinding, refusing_since: datetime | None) -> ProofFinding:
        """Return the refusal of a proof that no person asked for, or an inconclusive finding.

        The mistake may be ours. So a refusal counts the second time, after a pause, and never while
        the canary refuses the broker.
        """
        if refusing_since is None or now() < refusing_since + self._pace.interval().pause:
            return finding.doubted(_ONCE)
        counts = self._canary.ask_canary(self._sts) in {None, Sight.SIGHTED}
        return finding if counts else finding.doubted(_CANARY_LOST)

    def _store(
        self, caller: Principal, path: _Path, before: _Tested, answers: Answers, trigger: Trigger
    ) -> Connection | None:
        """Store the verdict by compare-and-set.

        Returns None when the connection is no longer the tested one.
        """
        interval = self._pace.interval()
        with self._db.write(caller) as db:
            # The tenant is locked first, as in its deletion. Otherwise the proof's foreign key
            # would lock it later, and deadlock.
            tenant = tenant_of(db, caller, path[0], lock=True)
            connection = owned(db, caller, *path, lock=True)
            tenant.ensure_active()
            _ensure_open(db, caller, connection)
            holds = before.still_holds(connection, answers.finding.verdict)
            if not holds or plan_of(db, connection) != before.plan:
                return None
            # Somebody may have made it due meanwhile, for a reason that came after our calls.
            asked_again = connection.due_at != before.row.due_at
            due = connection.due_at, connection.due_for
            was = connection.version, connection.status
            finding, pair = store_trials(db, connection, answers, now())
            finding = _note_reading(db, caller.actor, connection, finding)
            if pair != connection.external_id_id:
                connection.pair_with(pair)
                _record_switch(db, caller.actor, connection, answers)
            proof, is_new = _proof(
                db, connection, finding, trigger, counts_up=connection.version == was[0]
            )
            connection.note_attempt(proof.checked_at, refused=finding.refused)
            connection.apply_verdict(proof, finding.role_unique_id, interval)
            _bring_forward(db, connection, answers, proof.checked_at)
            if asked_again and due[0] is not None:
                connection.due_at, connection.due_for = due
            drift = _drift(connection, was[1], proof.checked_at)
            if is_new or connection.version != was[0]:
                _record(db, caller.actor, connection, finding, was=was[1], drift=drift)
            SetRequests(db, caller.actor, connection).apply_label(
                self._sets, finding.permission_set, by_tag=True
            )
            if before.plan.rotates:
                rotation.settle(db, caller.actor, tenant.id)
            db.flush()
            if is_new:
                db.refresh(connection)
            return connection


def _note_reading(
    db: DbSession, actor: Actor, connection: Connection, finding: ProofFinding
) -> ProofFinding:
    """Store when the connection's access ends, and whether its role may read itself.

    The proof that finds a loss of that right gets a warning.
    """
    connection.access_until = (
        finding.access_until if finding.reads_trust else connection.access_until
    )
    before, after = connection.reads_itself, finding.reads_itself
    connection.reads_itself = before if after is None else after
    if after is not False or not before:
        return finding
    actions.CONNECTION_ROLE_UNREADABLE.record_about(db, actor, connection, {})
    return finding._replace(warnings=(*finding.warnings, UNREADABLE))


def _ensure_open(db: DbSession, caller: Principal, connection: Connection) -> None:
    """Raise if the connection may not be proven by this caller.

    It raises SuspendedError for a suspended connection. It raises AccountClosedError for an
    unverified connection in an account that the vendor's suspension closes. The vendor itself may
    ask for its proof. It does not matter whether the connection was verified before: a tenant can
    let a role break, and repair it when it needs it.
    """
    connection.ensure_not_suspended()
    if not caller.is_vendor and connection.status is not ConnectionStatus.VERIFIED:
        allowed_roles.ensure_account_open(db, connection.tenant_id, connection.account_id)


def _bring_forward(db: DbSession, connection: Connection, answers: Answers, at: datetime) -> None:
    due_at = next_due(db, connection, answers.plan, at)
    if due_at is not None and (connection.due_at is None or due_at < connection.due_at):
        connection.due_at, connection.due_for = due_at, Trigger.ROTATION


def _record_switch(db: DbSession, actor: Actor, connection: Connection, answers: Answers) -> None:
    own = next(
        one.grant.external_id for one in answers.plan.own if one.id == connection.external_id_id
    )
    actions.CONNECTION_SWITCHED.record_about(db, actor, connection, {"external_id": own})


def _proof(
    db: DbSession,
    connection: Connection,
    finding: ProofFinding,
    trigger: Trigger,
    *,
    counts_up: bool,
) -> tuple[Proof, bool]:
    """Return the row of this proof, and whether it is a new one.

    A routine proof with the same result as the latest one counts up in that row.
    """
    at, latest = now(), connection.proof
    checks = [check._asdict() for check in finding.checks]
    warnings = [warning._asdict() for warning in finding.warnings]
    same_role = finding.role_unique_id in {None, connection.role_unique_id}
    if (
        counts_up
        and trigger in ROUTINE
        and same_role
        and latest
        and (latest.verdict, latest.checks, latest.warnings) == (finding.verdict, checks, warnings)
    ):
        latest.count += 1
        latest.checked_at = at
        return latest, False
    found = {"verdict": finding.verdict, "checks": checks, "warnings": warnings, "trigger": trigger}
    path = {"tenant_id": connection.tenant_id, "connection_id": connection.id}
    proof = Proof(first_at=at, checked_at=at, **path, **found)
    db.add(proof)
    db.flush()
    return proof, True


def _drift(connection: Connection, was: ConnectionStatus, found_at: datetime) -> RoleDrift:
    """Return when a role can have changed after its last proof, for the audit event.

    Empty if the role did not drift.
    """
    last = connection.verified_at
    if (
        was is not ConnectionStatus.VERIFIED
        or connection.status in {was, ConnectionStatus.ENDED}
        or last is None
    ):
        return {}
    seconds = math.ceil((found_at - last).total_seconds())
    metrics.DRIFT.labels(connection.status.value).observe(seconds)
    return {
        "last_proven_at": last.isoformat(),
        "found_at": found_at.isoformat(),
        "exposed_for_seconds_at_most": seconds,
    }


def _record(
    db: DbSession,
    actor: Actor,
    connection: Connection,
    finding: ProofFinding,
    *,
    was: ConnectionStatus,
    drift: RoleDrift,
) -> None:
    action = _ACTIONS[finding.verdict]
    if finding.verdict is Verdict.PROVEN and connection.awaiting_approval:
        action = actions.CONNECTION_AWAITS_APPROVAL
    details: ProofResult = {
        "was": was,
        "status": connection.status,
        "version": connection.version,
        "verdict": finding.verdict,
        "checks": {check.name: check.outcome for check in finding.checks},
        **drift,
    }
    action.record_about(db, actor, connection, details)


_ACTIONS: dict[Verdict, Action[ProofResult]] = {
    Verdict.PROVEN: actions.CONNECTION_VERIFIED,
    Verdict.INSECURE: actions.CONNECTION_PROOF_FAILED,
    Verdict.UNASSUMABLE: actions.CONNECTION_PROOF_FAILED,
    Verdict.INCONCLUSIVE: actions.CONNECTION_PROOF_INCONCLUSIVE,
}
