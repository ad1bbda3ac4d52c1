"""Verification: prove connections, and store the verdicts.

A proof takes seconds, and no transaction is open meanwhile, so the connection may change. The
verdict is stored only if the connection has not changed since the test (invariant 5 in
docs/architecture.md). Otherwise the proof is made again.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import Select, select

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
from app.identity import Principal, lock_owned, owned
from app.ids import Grant
from app.permissions.permission_sets import PermissionSets
from app.proofs.calls_and_verdict import ProofCheck, ProofFinding, check_of, prove, prove_routinely
from app.proofs.canary import Canary, Sight
from app.proofs.schedule import ProofInterval, schedule_next
from app.proofs.trust_checks import UNREADABLE, judge, named_external_ids, without_its_text
from app.rotation.rotations import settle
from app.rotation.switch import (
    PlanFinding,
    RotationPlan,
    look_for_retired,
    next_due,
    plan_rotation,
    store_checks,
    try_external_ids,
)
from app.store.database import Database, Session
from app.store.history import delete_older
from app.store.models import Connection, ConnectionStatus, ExternalIdRow, Proof, Trigger, Verdict
from app.store.models.proof import DEMANDS, ONLY_US, OWN, ROUTINE, STRANGER, UNASKED

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
# AWS's clock may be behind ours, and a proof takes a moment
_CLOCK_MARGIN = timedelta(minutes=15)
_TRIES = 3  # maximum number of proofs if the connection changes during each

# No call is made for a role in an account that became the vendor's own
_OF_OWN_ACCOUNT = ProofFinding(
    Verdict.UNASSUMABLE, (ProofCheck(OWN, "failed", allowed_roles.OWN_ACCOUNT),)
)


@dataclass
class Verification:
    """Proves connections and stores the verdicts."""

    _db: Database
    _interval: Callable[[], ProofInterval]
    _canary: Canary
    _sets: PermissionSets
    _sts: Sts

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
            with self._db.read() as db:
                before = owned(db, principal, tenant_id, connection_id)
                _ensure_open(db, principal, before)
                plan = plan_rotation(db, before)
            answers = self._prove_patiently(plan, trigger, patience)
            if trigger in ROUTINE:
                answers = self._doubt_refusal(answers)
            connection = self._store(principal, answers, trigger)
            if connection is not None:
                metrics.PROOFS.labels(answers.finding.verdict, trigger).inc()
                return connection
        raise ConflictError("This connection changed while it was being verified; try again.")

    def _prove_patiently(
        self, plan: RotationPlan, trigger: Trigger, patience: float
    ) -> PlanFinding:
        if plan.connection.account_id in self._canary.config.own_accounts:  # since it was connected
            return PlanFinding(plan, _OF_OWN_ACCOUNT, plan.connection.grant)
        deadline = time.monotonic() + patience
        for seconds in (*_PAUSES, None):
            answers = try_external_ids(
                self._sts, plan, lambda grant: self._prove(grant, plan, trigger)
            )
            spreading = answers.finding.may_be_spreading
            if seconds is None or not spreading or time.monotonic() + seconds > deadline:
                break
            pause(seconds)
        return look_for_retired(self._sts, answers)

    def _prove(self, grant: Grant, plan: RotationPlan, trigger: Trigger) -> ProofFinding:
        """Prove the role with one External ID, and apply the trust policy and the canary.

        Makes a full proof, unless a routine proof suffices. A routine proof is tried only for a
        verified connection with its own External ID.
        """
        connection, finding = plan.connection, None
        is_confirmation = (
            connection.status is ConnectionStatus.VERIFIED and grant == connection.grant
        )
        check_stranger = partial(self._canary.check_stranger, self._sts)
        pinned = connection.role_unique_id
        if trigger in ROUTINE and is_confirmation and pinned is not None:
            finding = prove_routinely(self._sts, grant, pinned, check_stranger)
            finding = finding and self._judge(finding, grant, plan)
        if finding is None:
            finding = self._judge(prove(self._sts, grant, check_stranger), grant, plan)
        is_pinned_role = pinned is not None and finding.role_unique_id == pinned
        confirmed = connection if is_confirmation and is_pinned_role else None
        finding = self._canary.discount_refusals(self._sts, finding, confirmed)
        if connection.status is not ConnectionStatus.VERIFIED:
            finding = self._with_known_failures(finding, connection)
        if finding.verdict is Verdict.PROVEN or is_pinned_role:
            return finding
        return without_its_text(finding)

    def _judge(self, finding: ProofFinding, grant: Grant, plan: RotationPlan) -> ProofFinding:
        """Apply the trust policy to the finding.

        First look up which External IDs in the policy belong to other tenants.
        """
        of_others = frozenset[str]()
        if strange := named_external_ids(finding) - plan.external_ids.keys():
            rows = select(ExternalIdRow.value).where(
                ExternalIdRow.value.in_(strange),
                ExternalIdRow.tenant_id != plan.connection.tenant_id,
            )
            with self._db.read() as db:
                of_others = frozenset(db.scalars(rows))
        return judge(
            finding,
            grant,
            plan,
            self._sts.broker,
            own_accounts=self._canary.config.own_accounts,
            of_others=of_others,
        )

    def _with_known_failures(self, finding: ProofFinding, connection: Connection) -> ProofFinding:
        """Add the checks that failed in the latest conclusive proof and were not made in this one.

        Otherwise a role with a known hole would be verified while AWS does not answer a call, or
        while the stranger does not work. If the role has lost the right to read itself, only a
        warning remains. A trust policy that was read and lets in nobody else needs no stranger.
        """
        outcomes = {check.name: check.outcome for check in finding.checks}
        # A role with an imported name that refused the stranger has another detail
        untested = check_of(STRANGER, "skipped") in finding.checks
        unseen = {STRANGER} if untested else set[str]()
        if connection.reads_itself and finding.reads_itself is None:
            unseen = {STRANGER, DEMANDS}
        concluded = finding.verdict in {Verdict.PROVEN, Verdict.INSECURE}
        if not concluded or not unseen or outcomes.get(ONLY_US) == "passed":
            return finding
        with self._db.read() as db:
            earlier = db.scalars(latest_conclusive(connection.id)).first()
        for check in earlier.checks if earlier else ():
            if check["outcome"] == "failed" and check["name"] in unseen:
                finding = finding.with_check(ProofCheck(**check))._replace(verdict=Verdict.INSECURE)
        return finding

    def _doubt_refusal(self, answers: PlanFinding) -> PlanFinding:
        """Make a routine proof's finding inconclusive if its refusal does not count yet.

        The cause of a refusal may be a mistake of ours, and a refusal that counts breaks the
        connection. So only a second refusal counts, after a pause and while the canary accepts the
        broker. A refusal after the end of access is expected, and counts at
        once.
        """
        connection, finding = answers.plan.connection, answers.finding
        works = connection.status in {ConnectionStatus.VERIFIED, ConnectionStatus.INSECURE}
        if not finding.refused or not works or connection.has_ended(now()):
            return answers
        since = connection.refusing_since
        if since is None or now() < since + self._interval().pause:
            return answers._replace(finding=finding.doubted(_ONCE))
        if self._canary.ask_canary(self._sts) not in {None, Sight.SIGHTED}:
            return answers._replace(finding=finding.doubted(_CANARY_LOST))
        return answers

    def _store(
        self, principal: Principal, answers: PlanFinding, trigger: Trigger
    ) -> Connection | None:
        """Store the verdict by compare-and-set.

        Returns None if the connection has changed since the test.
        """
        before, interval = answers.plan.connection, self._interval()
        with self._db.write(principal) as db:
            # This locks the tenant first. The proof's foreign key would lock the tenant too late.
            connection = lock_owned(db, principal, before.tenant_id, before.id)
            _ensure_open(db, principal, connection)
            if not _still_holds(db, connection, answers):
                return None
            _VerdictStorage(
                db, principal.actor, before, connection, answers, answers.finding, trigger
            ).store(interval, self._sets)
            return connection


def latest_conclusive(connection_id: UUID) -> Select[Proof]:
    """Select the connection's latest proof that shows what the role accepts."""
    conclusive = Proof.verdict.in_([Verdict.PROVEN, Verdict.INSECURE])
    proofs = select(Proof).filter_by(connection_id=connection_id).where(conclusive)
    return proofs.order_by(Proof.id.desc()).limit(1)


def _ensure_open(db: Session, principal: Principal, connection: Connection) -> None:
    """Raise if the connection may not be proven by this principal.

    Raises SuspendedError for a suspended tenant or connection. Raises AccountClosedError if the
    vendor suspended another connection in the account, unless this connection is verified or the
    vendor asks for the proof. An earlier verification does not count: a tenant could let a role
    break, and repair it when it needs the role.
    """
    connection.tenant.ensure_active()
    connection.ensure_not_suspended()
    if not principal.is_vendor and connection.status is not ConnectionStatus.VERIFIED:
        allowed_roles.ensure_account_open(db, connection.tenant_id, connection.account_id)


def _still_holds(db: Session, connection: Connection, answers: PlanFinding) -> bool:
    """Return whether the verdict may be stored. `connection`: the connection's current row.

    The version alone does not show every change: a second insecure verdict does not raise it. So
    this verdict must not replace a different one that was stored since the test. It may replace an
    equal one, so that two concurrent checks both succeed. An insecure one replaces any: the role
    accepted a call that it must refuse, and a proof beside it must not hide that.
    """
    before, latest = answers.plan.connection, connection.proof
    has_equal_verdict = latest is not None and latest.verdict is answers.finding.verdict
    may_replace = has_equal_verdict or answers.finding.verdict is Verdict.INSECURE
    if connection.tried_at != before.tried_at and not may_replace:
        return False
    return connection.version == before.version and plan_rotation(db, connection) == answers.plan


@dataclass
class _VerdictStorage:
    """Stores one verdict.

    `connection` must be locked, and unchanged since the test. `before`: the connection's row at the
    test.
    """

    db: Session
    actor: Actor
    before: Connection
    connection: Connection
    answers: PlanFinding
    finding: ProofFinding
    trigger: Trigger
    checked_at: datetime = field(default_factory=now)

    def store(self, interval: ProofInterval, sets: PermissionSets) -> None:
        db, connection = self.db, self.connection
        due_at, due_for = connection.due_at, connection.due_for
        self.finding = store_checks(db, self.actor, connection, self.answers, self.checked_at)
        # Another proof was stored during the test, and may have read the role later than this one
        is_doubtful = connection.tried_at != self.before.tried_at
        self._note_what_the_role_read()
        proof = self._count_or_add_proof()
        connection.note_attempt(self.checked_at, refused=self.finding.refused)
        restarts = connection.apply_verdict(proof, self.finding.role_unique_id)
        schedule_next(connection, proof, interval, restarts=restarts)
        self._schedule_rotation()
        # If the connection was made due during the test, its new time and reason stay.
        if due_at not in {None, self.before.due_at}:
            connection.due_at, connection.due_for = due_at, due_for
        if is_doubtful:
            connection.due_at = self.checked_at
        if proof.count == 1 or connection.version != self.before.version:
            self._record()
        requests = SetRequests(db, self.actor, connection)
        requests.apply_label(sets, self.finding.permission_set, by_tag=True)
        if self.answers.plan.rotates:
            settle(db, self.actor, connection.tenant_id)
        db.flush()
        if proof.count == 1:
            db.refresh(connection)

    def _note_what_the_role_read(self) -> None:
        """Store when the connection's access ends, and whether its role may read itself.

        If the role has lost that right, the proof gets a warning.
        """
        connection, finding = self.connection, self.finding
        if finding.reads_trust:
            connection.access_until = finding.access_until
        # The role works after its end, which was removed, or which another condition narrows
        margin = _CLOCK_MARGIN if finding.reads_trust else timedelta(0)
        if finding.verdict is Verdict.PROVEN and connection.has_ended(self.checked_at - margin):
            connection.access_until = None
        if connection.reads_itself and finding.reads_itself is False:
            actions.CONNECTION_ROLE_UNREADABLE.record_about(self.db, self.actor, connection, {})
            self.finding = finding._replace(warnings=(*finding.warnings, UNREADABLE))
        if finding.reads_itself is not None:
            connection.reads_itself = finding.reads_itself

    def _count_or_add_proof(self) -> Proof:
        """Return the row that stores this proof.

        A proof that nobody asked for, with the same result as the latest one, increments `count` in
        the latest row.
        """
        connection, finding, latest = self.connection, self.finding, self.connection.proof
        checks = [check._asdict() for check in finding.checks]
        warnings = [warning._asdict() for warning in finding.warnings]
        is_other_role = finding.role_unique_id != connection.role_unique_id
        is_new = (
            self.trigger not in UNASKED
            or connection.version != self.before.version
            or (finding.verdict is Verdict.PROVEN and is_other_role)
        )
        result = finding.verdict, checks, warnings
        if latest and not is_new and (latest.verdict, latest.checks, latest.warnings) == result:
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
        conclusive = self.db.scalar(latest_conclusive(connection.id).with_only_columns(Proof.id))
        self.db.add(proof)
        self.db.flush()
        delete_older(self.db, Proof, connection.id, conclusive, proof.id)
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
            # The role may have changed at any time since its last proof.
            seconds = math.ceil((self.checked_at - last_proven_at).total_seconds())
            metrics.DRIFT.labels(connection.status).observe(seconds)
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
