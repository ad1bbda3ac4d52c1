"""The proof: a role accepts the tenant's External ID from our broker, and demands it.

An accepted call with the right External ID proves nothing, because a role without the condition
accepts every External ID. So a full proof makes four calls in this order: own ID, no ID, a foreign
ID, own ID again (invariant 5 in docs/architecture.md). Refusals count only between two
acceptances, because a new role refuses every call until IAM has propagated it. A routine proof
omits the first call, and relies on the acceptance in the last proof. Only AccessDenied is a
refusal. Every other error is inconclusive. If the role accepts one call that it must refuse, the
verdict is insecure.

The calls can't show whom else the role trusts. Its trust policy shows that, if the role may read
itself (app/proofs/trust_checks.py).
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from app.aws.role_view import RoleSettings
from app.aws.sts import Misconfigured, Refused, Sts, StsError
from app.ids import Grant
from app.store.models import Verdict
from app.store.models.proof import ACCOUNT, FOREIGN, MISSING, OWN, STRANGER

CheckOutcome = Literal["passed", "failed", "inconclusive", "skipped"]

_REFUSALS = frozenset({OWN, MISSING, FOREIGN, STRANGER})  # their outcome depends on a refusal
NOT_TRIED = "Not tried, as an earlier check did not pass."
AWS_SILENT = "AWS did not give a clear answer; try again in a moment."
_DETAILS: dict[str, dict[CheckOutcome, str]] = {
    OWN: {
        "passed": "The role accepts this tenant's External ID.",
        "failed": (
            "The role can't be assumed with this tenant's External ID. Check that the role exists"
            " under exactly this ARN, that its trust policy names the broker given in the"
            " onboarding kit, and that sts:ExternalId in it has exactly the tenant's External ID. A"
            " role that was just created can take a minute."
        ),
    },
    ACCOUNT: {
        "passed": "The role is in the account that its ARN names.",
        "failed": "AWS says that this role is in another account than its ARN names.",
    },
    MISSING: {
        "passed": "The role refuses the broker when no External ID is sent.",
        "failed": (
            'The role can be assumed without any External ID. Add "StringEquals":'
            ' {"sts:ExternalId": "<External ID>"} to the Condition of every statement that allows'
            " sts:AssumeRole, without IfExists or ForAllValues."
        ),
    },
    FOREIGN: {
        "passed": "The role refuses the broker with another External ID.",
        "failed": (
            "The role accepts an External ID that is not this tenant's. Compare sts:ExternalId with"
            " StringEquals and the exact value; no StringLike, no * or ?."
        ),
    },
    STRANGER: {
        "passed": (
            "The role refuses another principal of ours that sends this tenant's External ID."
        ),
        "failed": (
            "The role lets in others: another AWS account that sends this tenant's External ID,"
            " which is not a secret, or everybody who has a login of a public identity provider."
            " Every statement that lets somebody in must name only what the vendor asked for: the"
            ' onboarding kit\'s principal and aws:PrincipalArn, no "*" and no account of somebody'
            " else. A statement of your own for GitHub, Google, Cognito or the like must compare,"
            " by StringEquals, a claim that says whose login it is (sub; for Cognito also aud)."
        ),
        "skipped": (
            "Not tried, because our own test of this check did not pass. The role needs no change."
        ),
    },
}
_STILL_SPREADING = (
    "The role accepted this tenant's External ID and then refused it, so its refusals prove nothing"
    " yet. IAM takes a moment to spread a change; verify again in a minute."
)


class ProofCheck(NamedTuple):
    name: str
    outcome: CheckOutcome
    detail: str


class ProofWarning(NamedTuple):
    """A fact that the customer should know, although it does not change the verdict."""

    name: str
    detail: str


class ProofFinding(NamedTuple):
    """The result of a proof's calls.

    - `role_unique_id`: the unique id of the role that accepted the broker.
    - `may_be_spreading`: IAM may still be propagating a change, so trying again may help.
    - `refused`: the role refused the tenant's External ID in the first call.
    - `access_until`: when the trust policy ends the access; None if no end is known.
    - `reads_itself`: whether the role may read itself; None if it was not tried or IAM did not
      answer.
    - `settings`: the role's settings, read by its own session, or the error; None if the role did
      not accept the broker.
    """

    verdict: Verdict
    checks: tuple[ProofCheck, ...]
    role_unique_id: str | None = None
    may_be_spreading: bool = False
    warnings: tuple[ProofWarning, ...] = ()
    refused: bool = False
    reads_trust: bool = False
    access_until: datetime | None = None
    permission_set: str | None = None  # the name in the role's tag
    reads_itself: bool | None = None
    settings: RoleSettings | StsError | None = None

    def with_check(self, check: ProofCheck) -> "ProofFinding":
        """Return the finding with this check, which replaces a check of the same name."""
        checks = {earlier.name: earlier for earlier in self.checks} | {check.name: check}
        return self._replace(checks=tuple(checks.values()))

    def doubted(self, why: str) -> "ProofFinding":
        """Return the finding as inconclusive, with each of its refusals as inconclusive too."""
        checks = []
        for check in self.checks:
            refused = check.outcome == ("failed" if check.name == OWN else "passed")
            if refused and check.name in _REFUSALS:
                check = ProofCheck(check.name, "inconclusive", why)  # noqa: PLW2901
            checks.append(check)
        return self._replace(verdict=Verdict.INCONCLUSIVE, checks=tuple(checks))


# Checks that a role refuses the stranger. Returns None if no stranger is configured.
StrangerCheck = Callable[[Grant], ProofCheck | None]


def prove(sts: Sts, grant: Grant, check_stranger: StrangerCheck) -> ProofFinding:
    """Make the calls of a full proof, and judge them. Opens no transaction and stores nothing."""
    try:
        session = sts.probe_own(grant)
    except StsError as error:
        return _not_accepted(error)
    own = check_of(OWN, "passed")
    if session.account_id != grant.role_arn.account_id:
        checks = own, check_of(ACCOUNT, "failed"), *_skipped(MISSING, FOREIGN)
        return ProofFinding(Verdict.UNASSUMABLE, checks, settings=session.settings)
    verdict, refusals = _try_refusals(sts, grant, check_stranger)
    checks = own, check_of(ACCOUNT, "passed"), *refusals
    finding = ProofFinding(verdict, checks, session.role_unique_id, settings=session.settings)
    if verdict is Verdict.PROVEN:
        return _accepted_again(sts, grant, finding)
    return finding


def prove_routinely(
    sts: Sts, grant: Grant, role_unique_id: str, check_stranger: StrangerCheck
) -> ProofFinding | None:
    """Make a routine proof of a role that was proven with this unique id.

    It omits the first call of a full proof. Returns None if AWS gives no clear answer, or if the
    role refuses its own External ID, or is another role: a full proof then has to find the verdict.
    A role that accepted a call that it must refuse is insecure, even if it refuses the next call.
    """
    verdict, refusals = _try_refusals(sts, grant, check_stranger)
    if verdict is Verdict.INCONCLUSIVE:
        return None
    try:
        session = sts.probe_own(grant, is_routine=True)
    except Refused:
        return None
    except StsError:
        if verdict is not Verdict.INSECURE:
            return None
        own = ProofCheck(OWN, "inconclusive", AWS_SILENT)
        return ProofFinding(verdict, (own, *_skipped(ACCOUNT), *refusals))
    if session.role_unique_id != role_unique_id:
        return None
    # The unique id belongs to one role in one account, so the account is the proven one.
    checks = check_of(OWN, "passed"), check_of(ACCOUNT, "passed"), *refusals
    return ProofFinding(verdict, checks, role_unique_id, settings=session.settings)


def _not_accepted(error: StsError) -> ProofFinding:
    """Return the finding for a role that did not accept the first call."""
    verdict, own = Verdict.INCONCLUSIVE, ProofCheck(OWN, "inconclusive", AWS_SILENT)
    refused = isinstance(error, Refused)
    if refused:
        verdict, own = Verdict.UNASSUMABLE, check_of(OWN, "failed")
    if isinstance(error, Misconfigured):
        own = own._replace(detail=error.detail)
    checks = own, *_skipped(ACCOUNT, MISSING, FOREIGN)
    return ProofFinding(verdict, checks, may_be_spreading=refused, refused=refused)


def _try_refusals(
    sts: Sts, grant: Grant, check_stranger: StrangerCheck
) -> tuple[Verdict, list[ProofCheck]]:
    """Make the calls that the role must refuse, and return the verdict so far and the checks."""
    checks = [
        refusal(MISSING, sts.probe_missing, grant),
        refusal(FOREIGN, sts.probe_foreign, grant),
    ]
    if stranger := check_stranger(grant):
        checks.append(stranger)
    outcomes = {check.outcome for check in checks}
    if "failed" in outcomes:
        return Verdict.INSECURE, checks
    if "inconclusive" in outcomes:
        return Verdict.INCONCLUSIVE, checks
    return Verdict.PROVEN, checks


def _accepted_again(sts: Sts, grant: Grant, proven: ProofFinding) -> ProofFinding:
    """Try the tenant's External ID again, and return the finding that counts.

    Without this call, the refusals might come from a role that refuses every call.
    """
    # Assume at first that IAM is still propagating this role, or a new role with this ARN.
    why, spreading = _STILL_SPREADING, True
    try:
        if sts.probe_again(grant) == proven.role_unique_id:
            return proven
    except Refused:
        pass
    except StsError:
        why, spreading = AWS_SILENT, False
    own = ProofCheck(OWN, "inconclusive", why)
    return proven.doubted(why).with_check(own)._replace(may_be_spreading=spreading)


def refuses(probe: Callable[[Grant], object], grant: Grant) -> bool | None:
    """Return whether the role refuses this call; None if AWS gave no clear answer."""
    try:
        probe(grant)
    except Refused:
        return True
    except StsError:
        return None
    return False


def refusal(name: str, probe: Callable[[Grant], None], grant: Grant) -> ProofCheck:
    """Make a call that the role must refuse, and return its check.

    The check fails if the role accepts the call, and passes on AccessDenied. Otherwise it is
    inconclusive.
    """
    refused = refuses(probe, grant)
    if refused is None:
        return ProofCheck(name, "inconclusive", AWS_SILENT)
    return check_of(name, "passed" if refused else "failed")


def check_of(name: str, outcome: CheckOutcome) -> ProofCheck:
    return ProofCheck(name, outcome, _DETAILS[name][outcome])


def _skipped(*names: str) -> Iterator[ProofCheck]:
    for name in names:
        yield ProofCheck(name, "skipped", NOT_TRIED)
