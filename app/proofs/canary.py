"""The canary: one of the vendor's own roles, which shows whether refusals count.

A proof rests on refusals by the customer's role. A policy on the vendor's side that demands an
External ID causes the same refusals, and then every role looks safe. The canary must accept the
broker even without an External ID. The same statement of the broker's policy allows the calls to
the canary and to customers' roles. Therefore, a refusal by the canary comes from the vendor's side.

A canary check also tries the stranger (app/proofs/stranger.py), because a role's refusal of the
stranger counts only while the canary accepts the stranger.

A policy can change at any moment. So before a proof lets a connection issue credentials, the canary
is checked again, after the proof's calls. Concurrent proofs share one canary check, and a process
makes one at a time. A proof that only confirms a connection uses a canary check of the last minute.
Otherwise every routine proof would cost three more calls.
"""

import enum
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import select

from app.audit import Actor, actions
from app.audit.details import CanarySight
from app.aws.sts import Session, Sts, StsError, Unavailable
from app.clock import now
from app.concurrency.places import without_places
from app.concurrency.single_flight import SingleFlight
from app.config import Config
from app.health.checks import HealthFinding, failed, ok, warning
from app.ids import Grant
from app.log import logger
from app.proofs.calls_and_verdict import AWS_SILENT, ProofCheck, ProofFinding, check_of
from app.proofs.stranger import NO_STRANGER, Stranger, check_refusal
from app.store.database import SYSTEM, Database
from app.store.models import NOT_ISSUED, AuditEvent, Connection, Verdict
from app.store.models.proof import STRANGER

_PROBER = Actor("worker", None, "prober")
_FRESH = 60.0  # seconds for which a canary check counts
_UNCLEAR_FRESH = 5.0  # seconds until the next canary check if AWS gave no clear answer


class Sight(enum.StrEnum):
    SIGHTED = "sighted"
    BLIND = "blind"
    LOST = "lost"
    UNCLEAR = "unclear"


class _View(NamedTuple):
    """The result of a canary check.

    `stranger`: the stranger's session if the canary accepted it, otherwise None.
    """

    sight: Sight
    stranger: Session | None
    began: float  # monotonic seconds, like `until`
    until: float

    def counts(self, since: float | None) -> bool:
        """Return whether a proof may use this result.

        `since`: a time in monotonic seconds, after which the canary check must have begun; None: it
        may be older. A result that makes the proof inconclusive always counts until it expires:
        IAM takes a moment to propagate the repair of our policy.
        """
        if time.monotonic() >= self.until:
            return False
        return since is None or self.began >= since or self.sight in _WHY_NOT


_NOT_LOOKED = _View(Sight.UNCLEAR, None, 0.0, 0.0)


@dataclass
class Canary:
    """Checks the canary and the stranger, and shares the result among this process's proofs."""

    _db: Database
    config: Config
    _looks: SingleFlight[str, _View] = field(default_factory=SingleFlight)
    _last: _View = _NOT_LOOKED
    _stranger: Stranger = field(default_factory=Stranger)
    _recorded: Sight | None = None

    def ask_canary(self, sts: Sts) -> Sight | None:
        """Return the canary's state, at most a minute old, or None if no canary is configured.

        Raises StoreUnavailableError, and RateLimitedError when the client that waits has gone.
        """
        return self._look(sts).sight if self.config.proofs.canary_role_arn else None

    def discount_refusals(
        self, sts: Sts, finding: ProofFinding, confirmed: Connection | None
    ) -> ProofFinding:
        """Return the finding, or an inconclusive one if the canary shows that refusals don't count.

        A role that accepts the stranger stays insecure, whatever the state of the canary.
        `confirmed`: the connection, if an earlier proof proved it with this role and this External
        ID. Raises the same errors as `ask_canary`.
        """
        if not self.config.proofs.canary_role_arn or finding.verdict not in {
            Verdict.PROVEN,
            Verdict.UNASSUMABLE,
        }:
            return finding
        until = confirmed.proven_until(self.config.proofs.proof_max_age) if confirmed else None
        since = None
        if finding.verdict is Verdict.PROVEN and (until is None or until <= now()):
            since = time.monotonic()  # the connection would begin to issue credentials
        view = self._look(sts, since)
        if why := _WHY_NOT.get(view.sight):
            return finding.doubted(why)._replace(may_be_spreading=False, refused=False)
        tested = any(check.name == STRANGER for check in finding.checks)
        if view.stranger is None and tested:  # the stranger was lost meanwhile
            return finding.with_check(check_of(STRANGER, "skipped"))
        return finding

    def check_stranger(self, sts: Sts, grant: Grant) -> ProofCheck | None:
        """Check that the role refuses the stranger with the right External ID.

        Returns None if no stranger is configured. The check is skipped unless the canary accepted
        the stranger within the last minute. Raises the same errors as `ask_canary`.
        """
        if not self.config.proofs.stranger_role_arn:
            return None
        session = self._look(sts).stranger if self.config.proofs.canary_role_arn else None
        if session is None:
            return check_of(STRANGER, "skipped")
        return check_refusal(sts, session, grant, self.config.proofs.stranger_role_arn)

    def finding(self, sts: Sts) -> HealthFinding:
        """Return the canary's finding for readiness. Raises the same errors as `ask_canary`."""
        view = self._look(sts)
        if (
            view.sight is Sight.SIGHTED
            and self.config.proofs.stranger_role_arn
            and view.stranger is None
        ):
            return NO_STRANGER
        return _FINDINGS[view.sight]

    def _look(self, sts: Sts, since: float | None = None) -> _View:
        def look() -> _View:
            view = self._last
            return view if view.counts(since) else self._ask(sts)

        view, called = self._last, time.monotonic()
        while not view.counts(since):  # repeat if `join` returned a check from before `since`
            with without_places():
                view = self._looks.join("canary", look)[0].result()
            if view.began >= called:  # it may have taken longer than it counts
                break
        return view

    def _ask(self, sts: Sts) -> _View:
        began = time.monotonic()
        sight, stranger = _sight(sts), None
        if sight is Sight.UNCLEAR:
            # From its end: calls that time out take longer than it counts
            until = time.monotonic() + _UNCLEAR_FRESH
        else:
            until = began + _FRESH
            stranger = self._stranger.let_in(sts) if self.config.proofs.stranger_role_arn else None
        self._last = view = _View(sight, stranger, began, until)
        if sight not in {Sight.UNCLEAR, self._recorded}:
            self._record(sight)
        return view

    def _record(self, sight: Sight) -> None:
        """Log the canary's new state, and record it unless another process has already done so.

        Raises StoreUnavailableError.
        """
        action, finding = _ACTIONS[sight], _FINDINGS[sight]
        details: CanarySight = {"seen": finding.seen, "next": finding.next}
        (logger.info if sight is Sight.SIGHTED else logger.warning)(action, **details)
        ours = select(AuditEvent.action).where(AuditEvent.action.in_(_ACTIONS.values()), NOT_ISSUED)
        with self._db.write(SYSTEM) as db:
            if db.scalar(ours.order_by(AuditEvent.id.desc()).limit(1)) != action:
                action.record(db, _PROBER, details)
        self._recorded = sight


def _sight(sts: Sts) -> Sight:
    with_id, without_id = _is_accepted(sts, with_id=True), _is_accepted(sts, with_id=False)
    if with_id is not without_id:
        # Ask once more: the canary may have been created or deleted between the two calls, and IAM
        # takes time to propagate that.
        with_id = _is_accepted(sts, with_id=True)
    if with_id is None or without_id is None:
        return Sight.UNCLEAR
    if with_id is not without_id:
        return Sight.BLIND
    return Sight.SIGHTED if with_id else Sight.LOST


def _is_accepted(sts: Sts, *, with_id: bool) -> bool | None:
    """Return whether the canary accepted the call; None when AWS gave no clear answer."""
    try:
        sts.probe_canary(with_id=with_id)
    except Unavailable:
        return None
    except StsError:  # refused, or STS is switched off for our region in the canary's account
        return False
    return True


_ACTIONS = {
    Sight.SIGHTED: actions.PROBER_SIGHTED,
    Sight.BLIND: actions.PROBER_BLINDED,
    Sight.LOST: actions.PROBER_CANARY_LOST,
}
_FINDINGS = {
    Sight.SIGHTED: ok(
        "The canary lets the broker in with an External ID and without, so refusals of roles count."
    ),
    Sight.BLIND: failed(
        "The canary treats the broker's calls with and without an External ID differently: a policy"
        " on our side refuses calls that customers' roles should refuse. Proofs that rest on"
        " refusals are inconclusive; connections issue until their last proof is too old.",
        "Remove every condition on sts:ExternalId from the broker's policies, its permissions"
        " boundary and its organisation's policies. If no policy has one, compare the canary's"
        " trust policy with cloudformation/canary.yaml.",
    ),
    Sight.LOST: warning(
        "The canary refuses the broker with an External ID and without: the role is deleted or"
        " changed, or the broker may not call it. Proofs count as they do without a canary, but no"
        " refusal in a routine proof breaks a connection.",
        "Launch or update cloudformation/canary.yaml with this BrokerPrincipalArn and RolePrefix,"
        " and compare DEPUTY_CANARY_ROLE_ARN with its output. If many roles refuse the broker as"
        " well, look at its policies.",
    ),
    Sight.UNCLEAR: warning(
        "AWS gave no clear answer about the canary, so proofs are inconclusive until it does.",
        "Look at the check aws, and for aws.error and aws.unreachable in the log.",
    ),
}
_WHY_NOT: dict[Sight | None, str] = {
    Sight.BLIND: (
        "A policy on our side refuses calls before the role can answer them, so this proves nothing"
        " until we have changed that policy. The role needs no change."
    ),
    Sight.UNCLEAR: AWS_SILENT,
}
