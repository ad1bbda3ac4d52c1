"""The calls of a rotation: which External IDs a role accepts, and which it refuses."""

from collections.abc import Callable

from app.aws.sts import Refused, Sts, StsError
from app.ids import Grant
from app.proofs.proof import ProofCheck, ProofFinding
from app.rotation.candidates import Answers, Plan
from app.store.models import Verdict, states

_ACCEPTS_RETIRED = (
    "The role accepts only an External ID of this tenant that was retired. Update the role: its"
    " trust policy must name the current one, as in the onboarding kit."
)


def try_external_ids(sts: Sts, plan: Plan, prove: Callable[[Grant], ProofFinding]) -> Answers:
    """Make the calls. `prove` makes the proof with one External ID. Opens no transaction."""
    for candidate in plan.own:
        finding = prove(candidate.grant)
        if not finding.refused:
            break
    if finding.verdict is not Verdict.PROVEN:
        return Answers(plan, finding, candidate.id)
    upcoming = prove(plan.upcoming.grant) if plan.upcoming and plan.upcoming != candidate else None
    if upcoming is not None and upcoming.verdict is Verdict.INSECURE:
        # One accepted call that must be refused decides, whatever the other answers
        return Answers(plan, upcoming, candidate.id)
    old = plan.retiring if plan.retiring != candidate else None
    return Answers(plan, finding, candidate.id, upcoming, refuses(sts, old.grant) if old else None)


def refuses(sts: Sts, grant: Grant) -> bool | None:
    """Return whether the role refuses this External ID; None if AWS gave no clear answer."""
    try:
        sts.probe_again(grant)
    except Refused:
        return True
    except StsError:
        return None
    return False


def look_for_retired(sts: Sts, answers: Answers) -> Answers:
    """Return the answers, after trying retired External IDs if the role refused all others.

    If the role accepts a retired one, the finding says so.
    """
    retired = answers.plan.retired if answers.finding.refused else ()
    if not any(refuses(sts, one.grant) is False for one in retired):
        return answers
    own = ProofCheck(states.OWN, "failed", _ACCEPTS_RETIRED)
    checks = tuple(own if check.name == states.OWN else check for check in answers.finding.checks)
    return answers._replace(finding=answers.finding._replace(checks=checks))
