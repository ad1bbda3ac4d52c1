"""The proof: a role accepts the tenant's External ID from our broker, and demands it.

An accepted call with the right External ID proves nothing, because a role without the condition
accepts any. So a full proof makes four calls in this order: own ID, no ID, a foreign ID, own ID
again (invariant 5; docs/architecture.md has the list). Refusals count only between two acceptances,
because a new role refuses every call until IAM has propagated it. A routine proof leaves out the
first call: the acceptance of the last proof stands for it. Only AccessDenied is a refusal. Every
other error is inconclusive. If the role accepts one call that it must refuse, the verdict is
insecure.

The calls can't show whom else the role trusts. Its trust policy shows that, if the role may read
itself (app/proofs/trust_checks.py).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from app.aws.sts import Misconfigured, Read, Refused, Sts, StsError, Unavailable
from app.ids import Grant
from app.store.models import Verdict
from app.store.models.states import ACCOUNT, FOREIGN, MISSING, OWN, STRANGER

CheckOutcome = Literal["passed", "failed", "inconclusive", "skipped"]

_REFUSALS = frozenset({OWN, MISSING, FOREIGN, STRANGER})  # the checks that a refusal decides
NOT_TRIED = "Not tried, as an earlier check did not pass."
AWS_SILENT = "AWS did not give a clear answer; try again in a moment."
_DETAILS = {
    (OWN, "passed"): "The role accepts this tenant's External ID.",
    (OWN, "failed"): (
        "The role can't be assumed with this tenant's External ID. Check that the role exists under"
        " exactly this ARN, that its trust policy names the broker given in the onboarding kit, and"
        " that sts:ExternalId in it has exactly the tenant's External ID. A role that was just"
        " created can take a minute."
    ),
    (ACCOUNT, "passed"): "The role is in the account that its ARN names.",
    (ACCOUNT, "failed"): "AWS says that this role is in another account than its ARN names.",
    (MISSING, "passed"): "The role refuses the broker when no External ID is sent.",
    (MISSING, "failed"): (
        'The role can be assumed without any External ID. Add "StringEquals": {"sts:ExternalId":'
        ' "<External ID>"} to the Condition of every statement that allows sts:AssumeRole, without'
        " IfExists or ForAllValues."
    ),
    (FOREIGN, "passed"): "The role refuses the broker with another External ID.",
    (FOREIGN, "failed"): (
        "The role accepts an External ID that is not this tenant's. Compare sts:ExternalId with"
        " StringEquals and the exact value; no StringLike, no * or ?."
    ),
    (
        STRANGER,
        "passed",
    ): "The role refuses another principal of ours that sends this tenant's External ID.",
    (STRANGER, "failed"): (
        "The role lets in another AWS account that sends this tenant's External ID, which is not a"
        " secret. Every statement that allows sts:AssumeRole must name only what the vendor asked"
        ' for: the onboarding kit\'s principal and aws:PrincipalArn, no "*" and no account of'
        " somebody else."
    ),
    (
        STRANGER,
        "skipped",
    ): "Not tried, because our own test of this check did not pass. The role needs no change.",
}
_STILL_SPREADING = (
    "The role accepted this tenant's External ID and then refused it, so its refusals prove nothing"
    " yet. IAM takes a moment to spread a change; verify again in a minute."
)


class ProofCheck(NamedTuple):
    name: str
    outcome: CheckOutcome
    detail: str


class Warning(NamedTuple):  # noqa: A001  the word of the API
    """A fact that changes no verdict, but that the customer should know."""

    name: str
    detail: str


class ProofFinding(NamedTuple):
    """The result of a proof's calls.

    - `role_unique_id`: set when the role is proven.
    - `may_be_spreading`: waiting may help, because IAM may still propagate a change.
    - `refused`: the role refused its own External ID, in the first call.
    - `access_until`: by the trust policy, if it was read.
    - `reads_itself`: whether the role may read itself; None: it was not asked, or did not answer.
    - `let_in_as`: the unique id of the role that accepted us.
    """

    verdict: Verdict
    checks: tuple[ProofCheck, ...]
    role_unique_id: str | None = None
    may_be_spreading: bool = False
    warnings: tuple[Warning, ...] = ()
    refused: bool = False
    reads_trust: bool = False
    access_until: datetime | None = None
    permission_set: str | None = None  # the name in the role's tag
    reads_itself: bool | None = None
    let_in_as: str | None = None

    def doubted(self, why: str) -> "ProofFinding":
        """Return the same refusal as an inconclusive finding, because it proves nothing yet."""
        own = ProofCheck(OWN, "inconclusive", why)
        return self._replace(verdict=Verdict.INCONCLUSIVE, checks=(own, *self.checks[1:]))


# A further question about a role, asked between the refusals and the last acceptance. Its check is
# None if this deployment can't ask it. A failed check makes the role insecure.
Extra = Callable[[Grant], tuple[ProofCheck | None, tuple[Warning, ...]]]
Extras = Sequence[Extra]


def prove(sts: Sts, grant: Grant, extras: Extras = (), read: Read | None = None) -> ProofFinding:
    """Make a full proof: make the calls and judge them. Opens no transaction and stores nothing.

    `read` is called with the trust policy, once, if the role accepts its own ID.
    """
    try:
        account_id, role_unique_id = sts.probe_own(grant, read)
    except StsError as error:
        refused = isinstance(error, Refused)
        why = error.detail if isinstance(error, Misconfigured) else AWS_SILENT
        own = check_of(OWN, "failed") if refused else ProofCheck(OWN, "inconclusive", why)
        verdict = Verdict.UNASSUMABLE if refused else Verdict.INCONCLUSIVE
        checks = (own, *_skipped(ACCOUNT, MISSING, FOREIGN))
        return ProofFinding(verdict, checks, may_be_spreading=refused, refused=refused)
    own = check_of(OWN, "passed")
    if account_id != grant.role_arn.account_id:
        return ProofFinding(
            Verdict.UNASSUMABLE, (own, check_of(ACCOUNT, "failed"), *_skipped(MISSING, FOREIGN))
        )
    strangers, warnings = _strangers(sts, grant, extras)
    checks = (own, check_of(ACCOUNT, "passed"), *strangers)
    if any(check.outcome == "failed" for check in strangers):
        finding = ProofFinding(Verdict.INSECURE, checks, warnings=warnings)
    elif any(check.outcome == "inconclusive" for check in strangers):
        finding = ProofFinding(Verdict.INCONCLUSIVE, checks, warnings=warnings)
    else:
        finding = _accepted_again(sts, grant, role_unique_id, checks, warnings)
    return finding._replace(let_in_as=role_unique_id)


def prove_routinely(
    sts: Sts, grant: Grant, role_unique_id: str, extras: Extras, read: Read | None
) -> ProofFinding | None:
    """Prove a role that was proven under this unique id, without the first acceptance.

    Returns None unless the role is proven: a full proof has to judge every other outcome.
    """
    strangers, warnings = _strangers(sts, grant, extras)
    if any(check.outcome in {"failed", "inconclusive"} for check in strangers):
        return None
    try:
        if sts.probe_again(grant, read) != role_unique_id:
            return None
    except StsError:
        return None
    # The unique id belongs to one role in one account, so the account is the proven one.
    ours = check_of(OWN, "passed"), check_of(ACCOUNT, "passed")
    checks = (*ours, *strangers)
    return ProofFinding(
        Verdict.PROVEN, checks, role_unique_id, warnings=warnings, let_in_as=role_unique_id
    )


def _strangers(
    sts: Sts, grant: Grant, extras: Extras
) -> tuple[tuple[ProofCheck, ...], tuple[Warning, ...]]:
    """Make the calls that the role must refuse, and ask the further questions."""
    refusals = (
        refusal(MISSING, sts.probe_missing, grant),
        refusal(FOREIGN, sts.probe_foreign, grant),
    )
    asked = [extra(grant) for extra in extras]
    checks = (*refusals, *(check for check, _ in asked if check is not None))
    return checks, tuple(warning for _, warnings in asked for warning in warnings)


def _accepted_again(
    sts: Sts,
    grant: Grant,
    role_unique_id: str,
    checks: tuple[ProofCheck, ...],
    warnings: tuple[Warning, ...],
) -> ProofFinding:
    """Make the last call.

    Without it, the refusals might be those of a role that refuses every call.
    """
    spreading = True  # IAM propagates the role, or another one in its place
    try:
        if sts.probe_again(grant) == role_unique_id:
            return ProofFinding(Verdict.PROVEN, checks, role_unique_id, warnings=warnings)
    except StsError as error:
        spreading = isinstance(error, Refused)
    own = ProofCheck(OWN, "inconclusive", _STILL_SPREADING if spreading else AWS_SILENT)
    unproven = (unproven_by(own.detail, check) for check in checks[1:])
    return ProofFinding(
        Verdict.INCONCLUSIVE, (own, *unproven), may_be_spreading=spreading, warnings=warnings
    )


def unproven_by(why: str, check: ProofCheck) -> ProofCheck:
    """Return the check, or an inconclusive one in the place of a refusal that proves nothing."""
    rests_on_it = check.outcome == ("failed" if check.name == OWN else "passed")
    return (
        ProofCheck(check.name, "inconclusive", why)
        if check.name in _REFUSALS and rests_on_it
        else check
    )


def refusal(name: str, probe: Callable[[Grant], None], grant: Grant) -> ProofCheck:
    """Make a call that the role must refuse, and return its check.

    An accepted call fails, AccessDenied passes, and anything else is inconclusive.
    """
    try:
        probe(grant)
    except Refused:
        return check_of(name, "passed")
    except (Misconfigured, Unavailable):
        return ProofCheck(name, "inconclusive", AWS_SILENT)
    return check_of(name, "failed")


def check_of(name: str, outcome: CheckOutcome) -> ProofCheck:
    return ProofCheck(name, outcome, _DETAILS[name, outcome])


def _skipped(*names: str) -> tuple[ProofCheck, ...]:
    return tuple(ProofCheck(name, "skipped", NOT_TRIED) for name in names)
