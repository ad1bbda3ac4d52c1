"""Verification: prove connections, and store the verdicts.

A proof takes seconds, and no transaction is open meanwhile, so the connection may change. The
verdict is stored only if the connection is still the one that was tested (invariant 5;
docs/architecture.md has the list). Otherwise the proof is made again.
"""

import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from app import metrics
from app.approvals.approvals import SetRequests
from app.audit import Actor, actions
from app.audit.details import ProofResult
from app.audit.events import Action
from app.aws.sts import Sts
from app.clock import now
from app.concurrency.places import pause
from app.connections import allowed_roles
from app.errors import ConflictError
from app.identity import Principal, owned, tenant_of
from app.ids import Grant
from app.permissions.permission_sets import PermissionSets
from app.proofs.canary import Canary, Sight
from app.proofs.proof import ProofFinding, prove, prove_routinely
from app.proofs.proof_interval import ProofInterval
from app.proofs.trust_checks import (
    UNREADABLE,
    Expected,
    judge,
    named_external_ids,
    without_its_text,
)
from app.rotation import rotations as rotation
from app.rotation.candidates import PlanFinding, RotationPlan, plan_rotation
from app.rotation.checks import look_for_retired, try_external_ids
from app.rotation.switch import next_due, store_checks
from app.store.database import Database, Session
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, Proof, Trigger, Verdict
from app.store.models.proof_schedule import Interval
from app.store.models.states import ROUTINE

PATIENCE = 5.0  # seconds for retries if a role refuses its own External ID, because it may be new
_PAUSES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.25)
_ONCE = (
    "The role refused this tenant's External ID. It is asked again in a minute; a second refusal"
    " means that it can't be assumed any more."
)
_CANARY_LOST = (
    "A role of our own refuses the broker as well, so this refusal says nothing about this role. It"
    " is asked again in a minute."
)
_TRIES = 3  # maximum number of proofs if the connection changes during each


class Tested(NamedTuple):
    """The tested connection: its row and its rotation plan, both from before the calls."""

    row: Connection
    plan: RotationPlan

    @property
    def role_unique_id(self) -> str | None:
        """The role's unique id, if a routine proof suffices, otherwise None.

        It suffices for a verified connection whose plan tries its own External ID first.
        """
        keeps_own = self.plan.own[0].id == self.row.external_id_id
        if keeps_own and self.row.status is ConnectionStatus.VERIFIED:
            return self.row.role_unique_id
        return None

    def still_holds(self, db: Session, connection: Connection, verdict: Verdict) -> bool:
        """Return whether the verdict may be stored on `connection`, its current row.

        The version alone does not show every change, because a second insecure verdict does not
        raise it. So this verdict must not replace another verdict that was stored since the test.
        It may replace an equal one, so that two concurrent checks both succeed.
        """
        if connection.tried_at != self.row.tried_at:
            latest = connection.proof
            if latest is None or latest.verdict is not verdict:
                return False
        return connection.version == self.row.version and plan_rotation(db, connection) == self.plan


class Verification:
    """Proves connections and stores the verdicts."""

    def __init__(
        self, db: Database, sts: Sts, interval: ProofInterval, canary: Canary, sets: PermissionSets
    ) -> None:
        self._db = db
        self._sts = sts
        self._interval = interval
        self._canary = canary
        self._sets = sets
        self._check_stranger = partial(canary.check_stranger, sts)

    def verify(
        self,
        principal: Principal,
        tenant_id: UUID,
        connection_id: UUID,
        *,
        trigger: Trigger,
        patience: float = 0.0,
    ) -> Connection:
        """Prove a connection, store the verdict and return the connection.

        `patience`: seconds for retries while the role refuses its own External ID. Raises
        NotFoundError, SuspendedError, AccountClosedError, and ConflictError if the connection
        changes during every proof.
        """
        for _ in range(_TRIES):
            tested = self._load(principal, tenant_id, connection_id)
            answers = self._prove_patiently(tested, trigger, patience)
            if trigger in ROUTINE:
                answers = self._doubt_refusal(tested.row, answers)
            connection = self._store(principal, tested, answers, trigger)
            if connection is not None:
                metrics.PROOFS.labels(answers.finding.verdict.value, trigger.value).inc()
                return connection
        raise ConflictError("This connection changed while it was being verified; try again.")

    def _load(self, principal: Principal, tenant_id: UUID, connection_id: UUID) -> Tested:
        with self._db.read() as db:
            connection = owned(db, principal, tenant_id, connection_id)
            _ensure_open(db, principal, connection)
            return Tested(connection, plan_rotation(db, connection))

    def _prove_patiently(self, tested: Tested, trigger: Trigger, patience: float) -> PlanFinding:
        deadline = time.monotonic() + patience
        for seconds in (*_PAUSES, None):
            answers = try_external_ids(
                self._sts, tested.plan, lambda grant: self._prove(grant, tested, trigger)
            )
            spreading = answers.finding.may_be_spreading
            if seconds is None or not spreading or time.monotonic() + seconds > deadline:
                break
            pause(seconds)
        return look_for_retired(self._sts, answers)

    def _prove(self, grant: Grant, tested: Tested, trigger: Trigger) -> ProofFinding:
        """Prove the role with one External ID, and apply the trust policy and the canary.

        Makes a routine proof, or a full proof if a routine one does not suffice.
        """
        finding, role_unique_id = None, None
        if grant == tested.plan.own[0].grant:
            role_unique_id = tested.role_unique_id
        if trigger in ROUTINE and role_unique_id is not None:
            finding = prove_routinely(self._sts, grant, role_unique_id, self._check_stranger)
            finding = finding and self._judge(finding, grant, tested)
        if finding is None or finding.verdict is not Verdict.PROVEN:
            finding = self._judge(prove(self._sts, grant, self._check_stranger), grant, tested)
        confirmed = tested.row if finding.role_unique_id == role_unique_id else None
        finding = self._canary.discount_refusals(self._sts, finding, confirmed)
        pinned = tested.row.role_unique_id
        if finding.verdict is Verdict.PROVEN or (pinned and finding.let_in_as == pinned):
            return finding
        return without_its_text(finding)

    def _judge(self, finding: ProofFinding, grant: Grant, tested: Tested) -> ProofFinding:
        """Apply the trust policy to the finding.

        First look up which External IDs in the policy belong to other tenants.
        """
        own, of_others = tested.plan.external_ids, frozenset[str]()
        if strange := named_external_ids(finding) - own:
            rows = select(ExternalIdRow.value).where(
                ExternalIdRow.value.in_(strange), ExternalIdRow.tenant_id != tested.row.tenant_id
            )
            with self._db.read() as db:
                of_others = frozenset(db.scalars(rows))
        broker, own_accounts = self._sts.broker, self._canary.own_accounts
        expected = Expected(broker, own_accounts, own, tested.plan.retired_ids, of_others)
        return judge(finding, grant, expected)

    def _doubt_refusal(self, row: Connection, answers: PlanFinding) -> PlanFinding:
        """Make a routine proof's finding inconclusive if its refusal does not count yet.

        The cause of a refusal may be a mistake of ours, and a refusal that counts breaks the
        connection. So it counts only when a second one follows after a pause, and only while the
        canary accepts the broker. A refusal after the end of access is expected, and counts at
        once.
        """
        works = row.status in {ConnectionStatus.VERIFIED, ConnectionStatus.INSECURE}
        if not answers.finding.refused or not works or row.has_ended(now()):
            return answers
        since, pause_after = row.refusing_since, self._interval.current().pause
        if since is None or now() < since + pause_after:
            return answers._replace(finding=answers.finding.doubted(_ONCE))
        if self._canary.ask_canary(self._sts) not in {None, Sight.SIGHTED}:
            return answers._replace(finding=answers.finding.doubted(_CANARY_LOST))
        return answers

    def _store(
        self, principal: Principal, tested: Tested, answers: PlanFinding, trigger: Trigger
    ) -> Connection | None:
        """Store the verdict by compare-and-set.

        Returns None if the connection has changed since the test.
        """
        tenant_id, connection_id = tested.row.tenant_id, tested.row.id
        interval = self._interval.current()
        with self._db.write(principal) as db:
            # The tenant's row is locked first, as when a tenant is deleted. Otherwise the foreign
            # key of the proof would lock that row later, and cause a deadlock.
            tenant_of(db, principal, tenant_id, lock=True)
            connection = owned(db, principal, tenant_id, connection_id, lock=True)
            _ensure_open(db, principal, connection)
            if not tested.still_holds(db, connection, answers.finding.verdict):
                return None
            _VerdictStorage(
                db, principal.actor, tested.row, connection, answers, answers.finding, trigger
            ).store(interval, self._sets)
            return connection


def _ensure_open(db: Session, principal: Principal, connection: Connection) -> None:
    """Raise if the connection may not be proven by this principal.

    Raises SuspendedError for a suspended tenant or connection. Raises AccountClosedError for an
    unverified connection in an account that the vendor's suspension closes, unless the vendor
    itself asks for the proof. An earlier verification makes no difference: a tenant could let a
    role break, and repair it when it needs the role.
    """
    connection.tenant.ensure_active()
    connection.ensure_not_suspended()
    if not principal.is_vendor and connection.status is not ConnectionStatus.VERIFIED:
        allowed_roles.ensure_account_open(db, connection.tenant_id, connection.account_id)


@dataclass(slots=True)
class _VerdictStorage:
    """Stores one verdict.

    `connection` must be locked, and unchanged since the test. `before`: its row at the test.
    """

    db: Session
    actor: Actor
    before: Connection
    connection: Connection
    answers: PlanFinding
    finding: ProofFinding
    trigger: Trigger
    checked_at: datetime = field(default_factory=now)

    def store(self, interval: Interval, sets: PermissionSets) -> None:
        db, connection = self.db, self.connection
        due_at, due_for = connection.due_at, connection.due_for
        self._pair_with_external_id()
        self._note_what_the_role_read()
        proof = self._count_or_add_proof()
        connection.note_attempt(self.checked_at, refused=self.finding.refused)
        connection.apply_verdict(proof, self.finding.role_unique_id, interval)
        self._schedule_rotation()
        # If the connection was made due during the test, its new time and reason stay.
        if due_at not in {None, self.before.due_at}:
            connection.due_at, connection.due_for = due_at, due_for
        if proof.count == 1 or connection.version != self.before.version:
            self._record()
        requests = SetRequests(db, self.actor, connection)
        requests.apply_label(sets, self.finding.permission_set, by_tag=True)
        if self.answers.plan.rotates:
            rotation.settle(db, self.actor, connection.tenant_id)
        db.flush()
        if proof.count == 1:
            db.refresh(connection)

    def _pair_with_external_id(self) -> None:
        """Store the rotation's checks, and pair the connection with the resulting External ID."""
        db, connection = self.db, self.connection
        self.finding, own_id = store_checks(db, connection, self.answers, self.checked_at)
        if own_id != connection.external_id_id:
            connection.pair_with(own_id)
            own = db.get_one(ExternalIdRow, own_id).value
            actions.CONNECTION_SWITCHED.record_about(
                db, self.actor, connection, {"external_id": own}
            )

    def _note_what_the_role_read(self) -> None:
        """Store when the connection's access ends, and whether its role may read itself.

        A proof that detects the loss of that right gets a warning.
        """
        connection, finding = self.connection, self.finding
        if finding.reads_trust:
            connection.access_until = finding.access_until
        if connection.reads_itself and finding.reads_itself is False:
            actions.CONNECTION_ROLE_UNREADABLE.record_about(self.db, self.actor, connection, {})
            self.finding = finding._replace(warnings=(*finding.warnings, UNREADABLE))
        if finding.reads_itself is not None:
            connection.reads_itself = finding.reads_itself

    def _count_or_add_proof(self) -> Proof:
        """Return the row that stores this proof.

        A routine proof with the same result as the latest one increments `count` in the latest row.
        """
        connection, finding, latest = self.connection, self.finding, self.connection.proof
        checks = [check._asdict() for check in finding.checks]
        warnings = [warning._asdict() for warning in finding.warnings]
        is_same = (
            self.trigger in ROUTINE
            and connection.version == self.before.version
            and finding.role_unique_id in {None, connection.role_unique_id}
        )
        result = finding.verdict, checks, warnings
        if is_same and latest and (latest.verdict, latest.checks, latest.warnings) == result:
            latest.count += 1
            latest.checked_at = self.checked_at
            return latest
        proof = Proof(
            tenant_id=connection.tenant_id,
            connection_id=connection.id,
            verdict=finding.verdict,
            checks=checks,
            warnings=warnings,
            trigger=self.trigger,
            first_at=self.checked_at,
            checked_at=self.checked_at,
        )
        self.db.add(proof)
        self.db.flush()
        return proof

    def _schedule_rotation(self) -> None:
        connection = self.connection
        due_at = next_due(self.db, connection, self.answers.plan, self.checked_at)
        if due_at is not None and (connection.due_at is None or due_at < connection.due_at):
            connection.due_at, connection.due_for = due_at, Trigger.ROTATION

    def _record(self) -> None:
        connection, verdict, was = self.connection, self.finding.verdict, self.before.status
        action = _ACTIONS[verdict]
        if verdict is Verdict.PROVEN and connection.awaiting_approval:
            action = actions.CONNECTION_AWAITS_APPROVAL
        details: ProofResult = {
            "was": was,
            "status": connection.status,
            "version": connection.version,
            "verdict": verdict,
            "checks": {check.name: check.outcome for check in self.finding.checks},
        }
        last_proven_at = connection.verified_at
        has_drifted = connection.status not in {was, ConnectionStatus.ENDED}
        if was is ConnectionStatus.VERIFIED and has_drifted and last_proven_at:
            # The role can have changed at any time since its last proof.
            seconds = math.ceil((self.checked_at - last_proven_at).total_seconds())
            metrics.DRIFT.labels(connection.status.value).observe(seconds)
            details["last_proven_at"] = last_proven_at.isoformat()
            details["found_at"] = self.checked_at.isoformat()
            details["exposed_for_seconds_at_most"] = seconds
        action.record_about(self.db, self.actor, connection, details)


_ACTIONS: dict[Verdict, Action[ProofResult]] = {
    Verdict.PROVEN: actions.CONNECTION_VERIFIED,
    Verdict.INSECURE: actions.CONNECTION_PROOF_FAILED,
    Verdict.UNASSUMABLE: actions.CONNECTION_PROOF_FAILED,
    Verdict.INCONCLUSIVE: actions.CONNECTION_PROOF_INCONCLUSIVE,
}
