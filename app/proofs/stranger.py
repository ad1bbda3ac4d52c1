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
from app.ids import Grant
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


def check_refusal(sts: Sts, stranger: Session, grant: Grant, role_prefix: str) -> ProofCheck:
    """Check that the role refuses the stranger with the right External ID.

    A refusal by a role with an imported name does not count: if canary.yaml lacks the name, the
    stranger's own policy causes the refusal.
    """
    check = refusal(STRANGER, partial(sts.probe_as_stranger, stranger), grant)
    is_imported_name = not grant.role_arn.name.startswith(role_prefix)
    if is_imported_name and check.outcome == "passed":
        return check._replace(outcome="skipped", detail=_NAME_NOT_TESTED)
    return check
