"""The stranger: a second principal of the vendor, which no customer trusts.

A role that accepts the stranger also trusts other principals than the broker. A role's refusal of
the stranger counts only while the canary accepts the stranger (app/proofs/canary.py).
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from app.aws.sts import Session, Sts, StsError
from app.clock import now
from app.health.checks import warning
from app.ids import Grant, RoleArn
from app.proofs.calls_and_verdict import ProofCheck, refusal
from app.store.models.proof import STRANGER

_RENEWED = timedelta(minutes=5)  # the stranger's session is replaced this long before it expires
_NAME_NOT_TESTED = (
    "The role refuses another principal of ours, but our own test of this check does not cover a"
    " role of this name. The role needs no change."
)
NO_STRANGER = warning(
    "The canary refuses the stranger, or the broker can't use the stranger, so proofs skip"
    " stranger_refused.",
    "Launch or update cloudformation/canary.yaml, and compare DEPUTY_STRANGER_ROLE_ARN with its"
    " output.",
)


@dataclass
class Stranger:
    """Keeps the stranger's session, which is reused until a call with it fails."""

    _session: Session | None = None

    def let_in(self, sts: Sts) -> Session | None:
        """Return the stranger's session if the canary accepts it, otherwise None."""
        session, self._session = self._session, None
        try:
            if session is None or session.expires_at - now() <= _RENEWED:
                session = sts.open_stranger()
            sts.probe_canary_as_stranger(session)
        except StsError:
            return None
        self._session = session
        return session


def check_refusal(sts: Sts, stranger: Session, grant: Grant, stranger_role: RoleArn) -> ProofCheck:
    """Check that the role refuses the stranger with the right External ID.

    A refusal counts only if the stranger's own policy is sure to allow the call: canary.yaml gives
    that policy, and the name of the stranger's role, one prefix. An imported name may be missing
    there, and so may a prefix that DEPUTY_ROLE_PREFIX got since.
    """
    check = refusal(STRANGER, partial(sts.probe_as_stranger, stranger), grant)
    is_tested = grant.role_arn.name.startswith(stranger_role.name.removesuffix("stranger"))
    if check.outcome == "passed" and not is_tested:
        return check._replace(outcome="skipped", detail=_NAME_NOT_TESTED)
    return check
