"""The proof: a role that accepts the tenant's External ID from our broker and refuses our broker without it.

A successful call with the right External ID proves nothing, since a role that asks for none accepts any. So four
calls, in this order (invariant 5): own ID, no ID, a stranger's ID, own ID again. Refusals count only between two
acceptances: a role that is still spreading through IAM refuses everybody, and would look safe. Only AccessDenied
is a refusal; everything else is inconclusive. One accepted stranger is insecure, whatever else was said.

What a proof can't see is who else the role trusts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.orm import Session as DbSession

from app.access.callers import AnyCaller
from app.access.tenancy import owned, tenant_of
from app.audit import log as audit
from app.audit.events import Action, Actor, Outcome
from app.aws.sts import Misconfigured, Refused, Sts, StsError, Unavailable
from app.clock import now
from app.errors import ConflictError
from app.ids import Grant
from app.store.database import Database
from app.store.models import Connection, Proof, Verdict

PATIENCE = 5.0  # seconds: how long a refused own-ID call is tried again when the role may be seconds old
_PAUSES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.25)
_TRIES = 3  # how often a proof is made anew because the connection changed meanwhile

CheckOutcome = Literal["passed", "failed", "inconclusive", "skipped"]

OWN = "own_external_id_accepted"
ACCOUNT = "account_matches"
MISSING = "missing_external_id_refused"
FOREIGN = "foreign_external_id_refused"

_NOT_TRIED = "Not tried, as an earlier check did not pass."
_AWS_SILENT = "AWS did not give a clear answer; try again in a moment."
_DETAILS = {
    (OWN, "passed"): "The role accepts this tenant's External ID.",
    (OWN, "failed"): (
        "The role can't be assumed with this tenant's External ID. Check that the role exists under exactly this"
        " ARN, that its trust policy names the broker given in the onboarding kit, and that sts:ExternalId in it"
        " is exactly the tenant's External ID. A role that was just created can take a minute."
    ),
    (ACCOUNT, "passed"): "The role is in the account that its ARN names.",
    (ACCOUNT, "failed"): "AWS says that this role is in another account than its ARN names.",
    (MISSING, "passed"): "The role refuses the broker when no External ID is sent.",
    (MISSING, "failed"): (
        'The role can be assumed without any External ID. Add "StringEquals": {"sts:ExternalId": "<External ID>"}'
        " to the Condition of every statement that allows sts:AssumeRole, without IfExists or ForAllValues."
    ),
    (FOREIGN, "passed"): "The role refuses the broker with another External ID.",
    (FOREIGN, "failed"): (
        "The role accepts an External ID that is not this tenant's. Compare sts:ExternalId with StringEquals and"
        " the exact value; no StringLike, no * or ?."
    ),
}
_STILL_SPREADING = (
    "The role accepted this tenant's External ID and then refused it, so its refusals prove nothing yet. IAM takes"
    " a moment to spread a change; verify again in a minute."
)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    outcome: CheckOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What the calls said. `role_unique_id` is set when the verdict is proven; `may_be_spreading` when waiting may help."""

    verdict: Verdict
    checks: tuple[Check, ...]
    role_unique_id: str | None = None
    may_be_spreading: bool = False


@dataclass(frozen=True, slots=True)
class _Tested:
    """The connection as it was before the calls were made."""

    version: int
    proof_id: UUID | None
    due_at: datetime | None

    def still_holds(self, connection: Connection, verdict: Verdict) -> bool:
        """Whether a verdict on what was tested may be stored on the connection as it is now.

        A second insecure verdict leaves the version as it is. So the latest proof is compared as well: calls that
        began before it must not overrule it. An equal verdict overrules nothing, and two checks at once both end.
        """
        if connection.version != self.version:
            return False
        latest = connection.proof
        return connection.proof_id == self.proof_id or (latest is not None and latest.verdict is verdict)


def prove(sts: Sts, grant: Grant) -> Finding:
    """Make the calls and judge them. Opens no transaction and stores nothing."""
    try:
        account_id, role_unique_id = sts.probe_own(grant)
    except StsError as error:
        verdict = Verdict.UNASSUMABLE if isinstance(error, Refused) else Verdict.INCONCLUSIVE
        own = _not_accepted(error)
        return Finding(verdict, (own, *_skipped(ACCOUNT, MISSING, FOREIGN)), may_be_spreading=own.outcome == "failed")
    own = _check(OWN, "passed")
    if account_id != grant.role_arn.account_id:
        return Finding(Verdict.UNASSUMABLE, (own, _check(ACCOUNT, "failed"), *_skipped(MISSING, FOREIGN)))
    strangers = (
        _refusal(MISSING, lambda: sts.probe_missing(grant)),
        _refusal(FOREIGN, lambda: sts.probe_foreign(grant)),
    )
    checks = (own, _check(ACCOUNT, "passed"), *strangers)
    if any(check.outcome == "failed" for check in strangers):
        return Finding(Verdict.INSECURE, checks)
    if any(check.outcome == "inconclusive" for check in strangers):
        return Finding(Verdict.INCONCLUSIVE, checks)
    return _accepted_again(sts, grant, role_unique_id, checks)


def _accepted_again(sts: Sts, grant: Grant, role_unique_id: str, checks: tuple[Check, ...]) -> Finding:
    """The last call: without it the refusals might be those of a role that refuses everybody."""
    try:
        again = sts.probe_again(grant)
    except StsError as error:
        spreading = isinstance(error, Refused)
        own = Check(OWN, "inconclusive", _STILL_SPREADING if spreading else _AWS_SILENT)
    else:
        if again == role_unique_id:
            return Finding(Verdict.PROVEN, checks, role_unique_id)
        spreading, own = True, Check(OWN, "inconclusive", _STILL_SPREADING)
    unproven = (Check(name, "inconclusive", own.detail) for name in (MISSING, FOREIGN))
    return Finding(Verdict.INCONCLUSIVE, (own, checks[1], *unproven), may_be_spreading=spreading)


def _refusal(name: str, probe: Callable[[], None]) -> Check:
    """A stranger's call: let in is failed, AccessDenied is passed, and anything else proves nothing."""
    try:
        probe()
    except Refused:
        return _check(name, "passed")
    except (Misconfigured, Unavailable):
        return Check(name, "inconclusive", _AWS_SILENT)
    return _check(name, "failed")


def _not_accepted(error: StsError) -> Check:
    if isinstance(error, Refused):
        return _check(OWN, "failed")
    return Check(OWN, "inconclusive", error.detail if isinstance(error, Misconfigured) else _AWS_SILENT)


def _check(name: str, outcome: CheckOutcome) -> Check:
    return Check(name, outcome, _DETAILS[name, outcome])


def _skipped(*names: str) -> tuple[Check, ...]:
    return tuple(Check(name, "skipped", _NOT_TRIED) for name in names)


class Verification:
    """Proves connections and stores the verdicts."""

    def __init__(self, db: Database, sts: Sts) -> None:
        self._db = db
        self._sts = sts

    def verify(self, caller: AnyCaller, tenant_id: UUID, connection_id: UUID, *, patience: float = 0.0) -> Connection:
        """The connection with a fresh proof. `patience`: seconds to keep trying a role that refuses its own ID.

        Raises NotFoundError, SuspendedError, or ConflictError when the connection keeps changing meanwhile.
        """
        for _ in range(_TRIES):
            grant, before = self._to_test(caller, tenant_id, connection_id)
            finding = self._prove_patiently(grant, patience)
            stored = self._store(caller, (tenant_id, connection_id), before, finding)
            if stored is not None:
                return stored
        raise ConflictError("This connection changed while it was being verified; try again.")

    def _to_test(self, caller: AnyCaller, tenant_id: UUID, connection_id: UUID) -> tuple[Grant, _Tested]:
        with self._db.read() as db:
            connection = owned(db, caller, tenant_id, connection_id)
            tenant_of(db, caller, tenant_id).ensure_active()
            connection.ensure_not_suspended()
            return connection.grant, _Tested(connection.version, connection.proof_id, connection.due_at)

    def _prove_patiently(self, grant: Grant, patience: float) -> Finding:
        deadline = time.monotonic() + patience
        for pause in (*_PAUSES, None):
            finding = prove(self._sts, grant)
            if pause is None or not finding.may_be_spreading or time.monotonic() + pause > deadline:
                break
            time.sleep(pause)
        return finding

    def _store(
        self, caller: AnyCaller, path: tuple[UUID, UUID], before: _Tested, finding: Finding
    ) -> Connection | None:
        """Compare-and-set: None when the connection is no longer what was tested."""
        with self._db.write(caller) as db:
            # The tenant first, as whoever deletes it does: the proof's foreign key would lock it later, and deadlock.
            tenant = tenant_of(db, caller, path[0], lock=True)
            connection = owned(db, caller, *path, lock=True)
            tenant.ensure_active()
            connection.ensure_not_suspended()
            if not before.still_holds(connection, finding.verdict):
                return None
            asked_again = connection.due_at if connection.due_at != before.due_at else None
            proof = _proof(connection, finding)
            db.add(proof)
            db.flush()
            connection.apply_verdict(proof, finding.role_unique_id)
            if asked_again is not None:
                connection.due_at = (
                    asked_again  # somebody made it due meanwhile, for a reason that came after our calls
                )
            _record(db, caller.actor, connection, finding)
            db.flush()
            db.refresh(connection)
            return connection


def _proof(connection: Connection, finding: Finding) -> Proof:
    return Proof(
        tenant_id=connection.tenant_id,
        connection_id=connection.id,
        verdict=finding.verdict,
        checks=[{"name": c.name, "outcome": c.outcome, "detail": c.detail} for c in finding.checks],
        checked_at=now(),
    )


def _record(db: DbSession, actor: Actor, connection: Connection, finding: Finding) -> None:
    action, outcome = _EVENTS[finding.verdict]
    if finding.verdict is Verdict.PROVEN and connection.awaiting_approval:
        action = Action.CONNECTION_AWAITS_APPROVAL
    audit.record(
        db,
        actor,
        action,
        outcome=outcome,
        tenant_id=connection.tenant_id,
        connection_id=connection.id,
        details={
            "verdict": finding.verdict.value,
            "status": connection.status.value,
            "checks": {c.name: c.outcome for c in finding.checks},
        },
    )


_EVENTS: dict[Verdict, tuple[Action, Outcome]] = {
    Verdict.PROVEN: (Action.CONNECTION_VERIFIED, "ok"),
    Verdict.INSECURE: (Action.CONNECTION_PROOF_FAILED, "refused"),
    Verdict.UNASSUMABLE: (Action.CONNECTION_PROOF_FAILED, "refused"),
    Verdict.INCONCLUSIVE: (Action.CONNECTION_PROOF_FAILED, "failed"),
}
