"""The calls of a rotation: which External IDs a role accepts, and which it refuses."""

from collections.abc import Callable, Iterable

from app.aws.sts import Refused, Sts, StsError
from app.ids import Grant
from app.proofs.proof import ProofCheck, ProofFinding
from app.rotation.candidates import PlanFinding, RotationPlan
from app.store.models import Verdict
from app.store.models.states import OWN

_ACCEPTS_RETIRED = (
    "The role accepts only an External ID of this tenant that was retired. Update the role: its"
    " trust policy must name the current one, as in the onboarding kit."
)


def try_external_ids(
    sts: Sts, plan: RotationPlan, prove: Callable[[Grant], ProofFinding]
) -> PlanFinding:
    """Try the role with the External IDs of the plan. Opens no transaction.

    `prove` makes the proof with one External ID.
    """
    for candidate in plan.own:
        finding = prove(candidate.grant)
        if not finding.refused:
            break
    if finding.verdict is not Verdict.PROVEN:
        return PlanFinding(plan, finding, candidate.id)
    upcoming = refuses_retiring = None
    if plan.upcoming and plan.upcoming != candidate:
        upcoming = prove(plan.upcoming.grant)
        if upcoming.verdict is Verdict.INSECURE:
            # The role accepted a call that it must refuse. That alone decides the verdict.
            return PlanFinding(plan, upcoming, candidate.id)
    if plan.retiring and plan.retiring != candidate:
        refuses_retiring = refuses(sts, plan.retiring.grant)
    return PlanFinding(plan, finding, candidate.id, upcoming, refuses_retiring)


def refuses(sts: Sts, grant: Grant) -> bool | None:
    """Return whether the role refuses this External ID; None if AWS gave no clear answer."""
    try:
        sts.probe_again(grant)
    except Refused:
        return True
    except StsError:
        return None
    return False


def accepts_any(sts: Sts, grants: Iterable[Grant]) -> bool:
    """Return whether the role accepts one of these grants. Stops at the first that it accepts."""
    return any(refuses(sts, grant) is False for grant in grants)


def look_for_retired(sts: Sts, tested: PlanFinding) -> PlanFinding:
    """Try the retired External IDs if the role refused all others, and return the result.

    If the role accepts a retired one, the finding says so.
    """
    finding = tested.finding
    grants = [candidate.grant for candidate in tested.plan.retired]
    if not finding.refused or not accepts_any(sts, grants):
        return tested
    checks = (ProofCheck(OWN, "failed", _ACCEPTS_RETIRED), *finding.checks[1:])
    return tested._replace(finding=finding._replace(checks=checks))
