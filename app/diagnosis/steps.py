"""The steps of a diagnosis: first the vendor's side, then the role, then the role's rights.

All functions are pure, and take AWS's answers. `fix` begins with who can make the change: the
vendor or the customer.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

from app.aws.errors import Misconfigured, Refused, StsError
from app.aws.role_view import RoleSettings, RoleView
from app.config import Config
from app.diagnosis.role_rights import Cause, Gap
from app.health.checks import HealthFinding
from app.proofs.calls_and_verdict import check_of
from app.proofs.canary import Sight
from app.settings.valid_values import ROLE_CHAINING_MAX
from app.store.models.proof import OWN

Outcome = Literal["ok", "problem", "unknown", "skipped"]
_NOT_READ = StsError("Only a role that a proof has pinned is read.")
UNREAD = RoleView(_NOT_READ, _NOT_READ, _NOT_READ)


@dataclass(frozen=True)
class DiagnosisStep:
    outcome: Outcome
    detail: str
    fix: str | None = None
    name: str = ""


_ok = partial(DiagnosisStep, "ok")
_unknown = partial(DiagnosisStep, "unknown")
_problem = partial(DiagnosisStep, "problem")


class Evidence(NamedTuple):
    """AWS's answers. After a failure, Deputy makes no further calls."""

    config: Config
    # Whether our credentials are the broker's; None: AWS does not accept them
    identity: bool | StsError | None
    canary: tuple[Sight, HealthFinding] | None = None
    not_allowed: str | None = None  # why the settings do not allow this role
    error: StsError | None = None  # why the role did not let us in
    ended: str | None = None  # why the access has ended, if it has
    accepts_another: bool = False  # the role accepts another External ID of the tenant
    recreated: bool = False  # another role has the ARN of the proven role
    unfit: tuple[str, str] | None = None  # why a role that lets us in is not used, and the change
    view: RoleView = UNREAD
    gaps: tuple[Gap, ...] = ()  # rights of the permission set that the role lacks or may lack

    @property
    def missing(self) -> list[Gap]:
        """The rights that the role lacks according to IAM's answers."""
        return [gap for gap in self.gaps if gap.cause not in _UNTOLD]

    @property
    def unknown(self) -> list[Gap]:
        """The rights that the role may lack: IAM's answers do not show whether it has them."""
        return [gap for gap in self.gaps if gap.cause in _UNTOLD]

    @property
    def refused_untold(self) -> bool:
        """Return whether AWS refused for a reason that Deputy does not know."""
        return isinstance(self.error, Refused) and not self.ended and not self.accepts_another


def steps(evidence: Evidence) -> list[DiagnosisStep]:
    """Return all steps. If a step fails that the later ones need, the later ones are skipped."""
    result: list[DiagnosisStep] = []
    is_stopped = False
    for name, step in (OF_THE_VENDOR | _OF_THE_ROLE).items():
        judged = _NOT_TRIED if is_stopped else step(evidence)
        result.append(replace(judged, name=name))
        is_stopped |= name in NEEDED and judged.outcome != "ok"
    return result


def _credentials(evidence: Evidence) -> DiagnosisStep:
    if isinstance(evidence.identity, StsError):
        return _unknown(
            "AWS does not answer.",
            "Vendor: look at the network, and for aws.unreachable in the log.",
        )
    if evidence.identity is None:
        return _problem(
            "Deputy has no AWS credentials, or AWS refuses them.",
            "Vendor: look at this process's task role, instance profile or environment, and for"
            " aws.error in the log.",
        )
    return _ok("AWS accepts Deputy's own credentials.")


def _identity(evidence: Evidence) -> DiagnosisStep:
    if evidence.identity:
        return _ok("They are those of the broker, which customers' roles trust.")
    broker = evidence.config.aws.broker.arn
    return _problem(
        f"Deputy's credentials are not those of {broker}, which customers' roles trust.",
        "Vendor: run this process as the broker, or correct DEPUTY_BROKER_PRINCIPAL_ARN.",
    )


def _canary(evidence: Evidence) -> DiagnosisStep:
    if evidence.canary is None:
        return DiagnosisStep("skipped", "No canary is configured.")
    sight, finding = evidence.canary
    fix = f"Vendor: {finding.next}" if finding.next else None
    # A lost canary is no problem, because proofs count without it. It is only unknown whether the
    # broker may assume any role.
    return DiagnosisStep(_OUTCOMES_OF_CANARY.get(sight, "unknown"), finding.seen, fix)


def _lets_us_try(evidence: Evidence) -> DiagnosisStep:
    error = evidence.error
    if evidence.not_allowed:
        return _problem(
            f"The settings do not allow this role. {evidence.not_allowed}",
            "Vendor: compare DEPUTY_ROLE_PREFIX and DEPUTY_VENDOR_ACCOUNT_IDS with the"
            " parameters of broker.yaml's stack.",
        )
    if not error or isinstance(error, Refused) or _region_is_off(error):
        return _ok("AWS answers our call of AssumeRole for this role.")
    return _unknown(
        "AWS gave no clear answer to AssumeRole: it throttles us, or did not answer in time.",
        "Vendor: try again in a minute; then look for aws.error and aws.unreachable in the log.",
    )


def _role(evidence: Evidence) -> DiagnosisStep:
    if evidence.error or evidence.accepts_another:
        return _role_without_access(evidence)
    if evidence.recreated:
        return _problem(
            "The role under this ARN is not the one that was proven: it was deleted and made"
            " again.",
            "Vendor or customer: verify the connection; a proof pins the new role.",
        )
    if evidence.unfit:
        why, change = evidence.unfit
        return _problem(why, f"Customer: {change}")
    return _ok(check_of(OWN, "passed").detail)


def _role_without_access(evidence: Evidence) -> DiagnosisStep:
    refused = isinstance(evidence.error, Refused)
    if refused and evidence.ended:
        fix = "Customer: to continue the access, set AccessUntil to a later time, or to none."
        return _problem(evidence.ended, fix)
    if evidence.accepts_another:
        return _problem(
            "The role accepts another of the tenant's External IDs than the one that the last"
            " proof found.",
            "Vendor or customer: verify the connection; a proof takes the one that the role"
            " accepts.",
        )
    if refused:
        return _problem(
            "The role does not let us in. AWS gives the same answer if the role does not"
            " exist, if its trust policy refuses us, and if a policy of the organisation"
            " blocks us.",
            f"Customer: {check_of(OWN, 'failed').detail}",
        )
    return _unknown("AWS gave no answer about the role.")


def _duration(evidence: Evidence) -> DiagnosisStep:
    aws, settings = evidence.config.aws, evidence.view.settings
    seconds = aws.max_session_seconds
    if seconds <= ROLE_CHAINING_MAX:  # the lowest maximum that a role can have
        detail = f"Sessions of at most {seconds} s are asked for, which every role allows."
        if aws.broker.is_role and seconds == ROLE_CHAINING_MAX:
            detail += " AWS gives no more to a broker that is itself a role (role chaining)."
        return _ok(detail)
    if isinstance(settings, StsError):
        return _unseen(settings)
    allowed = f"The role allows sessions of {settings.max_seconds} s"
    if settings.max_seconds < seconds:
        return _problem(
            f"{allowed} at most, and workers may ask for {seconds} s, which AWS refuses.",
            f"Customer: set the role's maximum session duration to {seconds} s. Vendor: or ask"
            " for less.",
        )
    return _ok(f"{allowed}, and workers may ask for {seconds} s.")


def _region(evidence: Evidence) -> DiagnosisStep:
    region = evidence.config.aws.region
    if not evidence.error:
        return _ok(f"STS is active in {region} for the account.")
    if not _region_is_off(evidence.error):
        return _NOT_REACHED
    return _problem(
        f"The account has switched STS off in {region}, the region that Deputy works from.",
        f"Customer: enable the region {region}, and activate STS for it in the account settings"
        " of IAM.",
    )


def _mfa(evidence: Evidence) -> DiagnosisStep:
    if evidence.refused_untold:
        return _unknown(
            "A trust policy that demands MFA (aws:MultiFactorAuthPresent) refuses us like this."
            " The broker can never meet it, as no person signs in.",
            "Customer: remove aws:MultiFactorAuthPresent and aws:MultiFactorAuthAge from the"
            " statement for the broker.",
        )
    if evidence.error:
        return _NOT_REACHED
    detail, settings = "The role lets us in without MFA.", evidence.view.settings
    if (
        isinstance(settings, RoleSettings)
        and "aws:multifactorauth" in json.dumps(settings.trust_policy).lower()
    ):
        detail += (
            " A part of its trust policy demands MFA, which the broker can never meet: that part"
            " never lets us in."
        )
    return _ok(detail)


def _organization(evidence: Evidence) -> DiagnosisStep:
    if evidence.refused_untold:
        return _unknown(
            "A service or resource control policy that denies principals outside the"
            " organisation looks the same as an absent role.",
            "Customer: ask the organisation's administrator for an exception for account"
            f" {evidence.config.aws.broker.account_id}.",
        )
    fix = (
        "Customer: ask the organisation's administrator to allow it for this role, or work"
        " without it."
    )
    return _ceiling(evidence, "organization", "the organisation's policies", fix)


def _boundary(evidence: Evidence) -> DiagnosisStep:
    settings = evidence.view.settings
    if isinstance(settings, RoleSettings) and settings.boundary is None:
        return _ok("The role has no permissions boundary.")
    fix = "Customer: add it to the permissions boundary of the role, or take the boundary off."
    return _ceiling(evidence, "boundary", "the role's permissions boundary", fix)


def _ceiling(evidence: Evidence, cause: Cause, policies: str, fix: str) -> DiagnosisStep:
    if unseen := _no_decisions(evidence):
        return unseen
    denied = [gap for gap in evidence.gaps if gap.cause == cause]
    if denied:
        return _problem(f"Denied by {policies}: {_some(denied)}.", fix)
    if partly := _partly_seen(evidence):
        return partly
    return _ok(f"Nothing that the permission set asks for is denied by {policies}.")


def _permissions(evidence: Evidence) -> DiagnosisStep:
    if unseen := _no_decisions(evidence):
        return unseen
    if evidence.missing:
        return _problem(
            f"The role lacks {_some(evidence.missing)}.",
            "Customer: update the stack (or the Terraform or AWS CLI role) from the onboarding"
            " kit, and see permissions.",
        )
    if partly := _partly_seen(evidence):
        return partly
    if evidence.gaps:
        return _ok(
            "The role lacks nothing that can be checked without a request; unknown:"
            f" {_some(evidence.gaps)}."
        )
    return _ok("The role has all rights of the permission set.")


def _partly_seen(evidence: Evidence) -> DiagnosisStep | None:
    """Return the step's result if IAM was not asked about some rights, otherwise None."""
    if any(gap.cause == "not_seen" for gap in evidence.gaps):
        return _unknown("Deputy could ask IAM about a part of the role's rights only.")
    return None


def _no_decisions(evidence: Evidence) -> DiagnosisStep | None:
    """Return the step's result if the role's rights are unknown, otherwise None."""
    if evidence.error:
        return _NOT_REACHED
    decisions = evidence.view.decisions
    return _unseen(decisions) if isinstance(decisions, StsError) else None


def _unseen(error: StsError) -> DiagnosisStep:
    if error is _NOT_READ:
        return _unknown(
            "The role was not read: Deputy reads a role only after a proof, which shows whose"
            " it is.",
            "Vendor or customer: verify the connection, then diagnose it again.",
        )
    if isinstance(error, Refused):
        return _unknown(
            "The role may not read itself, or not ask IAM for its own rights.",
            "Customer: allow it, with the policy read-itself of the onboarding kit.",
        )
    return _unknown(
        "IAM did not answer in time.",
        "Vendor or customer: diagnose the connection again in a minute.",
    )


def _some(gaps: Iterable[Gap]) -> str:
    names = sorted({gap.action or gap.policy or "" for gap in gaps})
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _region_is_off(error: StsError) -> bool:
    return isinstance(error, Misconfigured) and error.field is None


_OUTCOMES_OF_CANARY: dict[Sight, Outcome] = {Sight.SIGHTED: "ok", Sight.BLIND: "problem"}
_Steps = dict[str, Callable[[Evidence], DiagnosisStep]]
OF_THE_VENDOR: _Steps = {
    "our_credentials": _credentials,
    "our_identity": _identity,
    "canary": _canary,
    "aws_lets_us_try": _lets_us_try,
}
_OF_THE_ROLE: _Steps = {
    "role": _role,
    "session_duration": _duration,
    "region": _region,
    "mfa": _mfa,
    "organization": _organization,
    "permissions_boundary": _boundary,
    "permissions": _permissions,
}
# If one of these steps is not ok, the later steps are skipped.
NEEDED = {"our_credentials", "our_identity", "aws_lets_us_try"}
_UNTOLD: set[Cause] = {"condition", "pattern", "not_seen"}
_NOT_TRIED = DiagnosisStep("skipped", "Not tried, as an earlier step found why nothing works.")
_NOT_REACHED = DiagnosisStep("skipped", "Not seen, as the role did not let us in.")
