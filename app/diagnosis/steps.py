"""The steps of a diagnosis: first the vendor's side, then the role, then the role's rights.

Pure functions of AWS's answers. `fix` begins with who can do it: the vendor, or the customer.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from app.aws.errors import Misconfigured, Refused, StsError
from app.aws.role_view import RoleView
from app.config import Config
from app.diagnosis.role_rights import Cause, Gap
from app.health.checks import HealthFinding
from app.proofs.canary import Sight
from app.proofs.proof import check_of
from app.settings.checks import ROLE_CHAINING_MAX
from app.store.models.states import OWN

Outcome = Literal["ok", "problem", "unknown", "skipped"]
Said = tuple[Outcome, str, str | None]


@dataclass(frozen=True, slots=True)
class DiagnosisStep:
    name: str
    outcome: Outcome
    detail: str
    fix: str | None = None


class Evidence(NamedTuple):
    """AWS's answers. After a failure, nothing more is asked."""

    config: Config
    # True: they are the broker's credentials; None: AWS does not accept them
    identity: bool | StsError | None
    canary: tuple[Sight, HealthFinding] | None = None
    not_allowed: str | None = None  # why the settings do not allow this role
    error: StsError | None = None  # why the role did not let us in
    ended: str | None = None  # when the access ended, if the customer set that
    accepts_another: bool = False  # it accepts another of the tenant's External IDs than its own
    recreated: bool = False  # the role is not the one that was proven
    view: RoleView | None = None  # None: the role was not read
    gaps: tuple[Gap, ...] = ()  # rights of the set that the role lacks, or may lack

    @property
    def refused_untold(self) -> bool:
        """True if AWS refused, and nothing that Deputy knows explains it."""
        return isinstance(self.error, Refused) and not self.ended and not self.accepts_another


def steps(seen: Evidence) -> list[DiagnosisStep]:
    found: list[DiagnosisStep] = []
    for name, step in (*_OF_THE_VENDOR.items(), *_OF_THE_ROLE.items()):
        stopped = any(before.name in _NEEDED and before.outcome != "ok" for before in found)
        found.append(DiagnosisStep(name, *(_NOT_TRIED if stopped else step(seen))))
    return found


def for_the_tenant(found: list[DiagnosisStep]) -> list[DiagnosisStep]:
    """Return the steps with the vendor's steps merged into one.

    It hides their details, and says only whether the vendor must act.
    """
    ours = {step.outcome for step in found if step.name in _OF_THE_VENDOR}
    worst: Outcome = next((outcome for outcome in ("problem", "unknown") if outcome in ours), "ok")
    return [
        DiagnosisStep("vendor", worst, *_TOLD_TENANTS[worst]),
        *(s for s in found if s.name not in _OF_THE_VENDOR),
    ]


def conclusion(found: list[DiagnosisStep], why: str | None) -> str:
    """Return the detail of the most urgent step.

    If no step has a problem, return `why` (why no credentials are issued), or that nothing is
    wrong.
    """
    by_urgency = [
        step for outcome in ("problem", "unknown") for step in found if step.outcome == outcome
    ]
    first = next(
        (s for s in by_urgency if s.outcome == "problem" or s.name in {"vendor", *_NEEDED}), None
    )
    return (
        first.detail if first else why or "Deputy finds nothing that is wrong: the role lets us in."
    )


def _credentials(seen: Evidence) -> Said:
    if isinstance(seen.identity, StsError):
        return (
            "unknown",
            "AWS does not answer.",
            "Vendor: look at the network, and for aws.unreachable in the log.",
        )
    if seen.identity is None:
        fix = (
            "Vendor: look at this process's task role, instance profile or environment, and for"
            " aws.error in the log."
        )
        return "problem", "Deputy has no AWS credentials, or AWS refuses them.", fix
    return "ok", "AWS accepts Deputy's own credentials.", None


def _identity(seen: Evidence) -> Said:
    if seen.identity:
        return "ok", "They are those of the broker, which customers' roles trust.", None
    detail = (
        f"Deputy's credentials are not those of {seen.config.aws.broker.arn}, which customers'"
        " roles trust."
    )
    return (
        "problem",
        detail,
        "Vendor: run this process as the broker, or correct DEPUTY_BROKER_PRINCIPAL_ARN.",
    )


def _canary(seen: Evidence) -> Said:
    if seen.canary is None:
        return "skipped", "No canary is configured.", None
    sight, finding = seen.canary
    # Proofs count without the canary. It is only unknown whether the broker may call at all.
    outcome: Outcome = (
        "ok" if sight is Sight.SIGHTED else "problem" if sight is Sight.BLIND else "unknown"
    )
    return outcome, finding.seen, f"Vendor: {finding.next}" if finding.next else None


def _lets_us_try(seen: Evidence) -> Said:
    if seen.not_allowed:
        detail = f"The settings do not allow this role. {seen.not_allowed}"
        fix = (
            "Vendor: compare DEPUTY_ROLE_PREFIX and DEPUTY_VENDOR_ACCOUNT_IDS with the parameters"
            " of broker.yaml's stack."
        )
        return "problem", detail, fix
    if seen.error is None or isinstance(seen.error, Refused) or _region_is_off(seen.error):
        return "ok", "AWS answers our call of AssumeRole for this role.", None
    detail = "AWS gave no clear answer to AssumeRole: it throttles us, or did not answer in time."
    return (
        "unknown",
        detail,
        "Vendor: try again in a minute; then look for aws.error and aws.unreachable in the log.",
    )


def _role(seen: Evidence) -> Said:
    if isinstance(seen.error, Refused) and seen.ended:
        fix = "Customer: to continue the access, set AccessUntil to a later time, or to none."
        return "problem", seen.ended, fix
    if seen.accepts_another:
        detail = (
            "The role accepts another of the tenant's External IDs than the one that the last proof"
            " found."
        )
        fix = (
            "Vendor or customer: verify the connection; a proof takes the one that the role"
            " accepts."
        )
        return "problem", detail, fix
    if isinstance(seen.error, Refused):
        detail = (
            "The role does not let us in. AWS gives the same answer if the role does not exist, if"
            " its trust policy refuses us, and if a policy of the organisation blocks us."
        )
        return "problem", detail, f"Customer: {check_of(OWN, 'failed').detail}"
    if seen.error is not None:
        return "unknown", "AWS gave no answer about the role.", None
    if seen.recreated:
        detail = (
            "The role under this ARN is not the one that was proven: it was deleted and made again."
        )
        return (
            "problem",
            detail,
            "Vendor or customer: verify the connection; a proof pins the new role.",
        )
    return "ok", check_of(OWN, "passed").detail, None


def _duration(seen: Evidence) -> Said:
    most = seen.config.aws.max_session_seconds
    is_chained = seen.config.aws.broker.is_role and most == ROLE_CHAINING_MAX
    chained = (
        " AWS gives no more to a broker that is itself a role (role chaining)."
        if is_chained
        else ""
    )
    if most <= ROLE_CHAINING_MAX:  # the lowest maximum that a role can have
        return (
            "ok",
            f"Sessions of at most {most} s are asked for, which every role allows.{chained}",
            None,
        )
    if seen.view is None or isinstance(seen.view.settings, StsError):
        return _unseen(seen, seen.view and seen.view.settings)
    allows = seen.view.settings.max_seconds
    if allows < most:
        detail = (
            f"The role allows sessions of {allows} s at most, and workers may ask for {most} s,"
            " which AWS refuses."
        )
        fix = (
            f"Customer: set the role's maximum session duration to {most} s. Vendor: or ask for"
            " less."
        )
        return "problem", detail, fix
    return "ok", f"The role allows sessions of {allows} s, and workers may ask for {most} s.", None


def _region(seen: Evidence) -> Said:
    region = seen.config.aws.region
    if seen.error is not None and _region_is_off(seen.error):
        detail = f"The account has switched STS off in {region}, the region that Deputy works from."
        fix = (
            f"Customer: enable the region {region}, and activate STS for it in the account settings"
            " of IAM."
        )
        return "problem", detail, fix
    if seen.error is not None:
        return _NOT_REACHED
    return "ok", f"STS is active in {region} for the account.", None


def _mfa(seen: Evidence) -> Said:
    if seen.error is not None:
        detail = (
            "A trust policy that demands MFA (aws:MultiFactorAuthPresent) refuses us like this. The"
            " broker can never meet it, as no person signs in."
        )
        keys = "aws:MultiFactorAuthPresent and aws:MultiFactorAuthAge"
        fix = f"Customer: remove {keys} from the statement for the broker."
        return ("unknown", detail, fix) if seen.refused_untold else _NOT_REACHED
    settings = seen.view and seen.view.settings
    policy = (
        ""
        if not settings or isinstance(settings, StsError)
        else json.dumps(settings.trust_policy).lower()
    )
    more = (
        " A part of its trust policy demands MFA, which the broker can never meet: that part never"
        " lets us in."
    )
    return (
        "ok",
        f"The role lets us in without MFA.{more if 'aws:multifactorauth' in policy else ''}",
        None,
    )


def _organization(seen: Evidence) -> Said:
    account = seen.config.aws.broker.account_id
    if seen.refused_untold:
        detail = (
            "A service or resource control policy that denies principals outside the organisation"
            " looks the same as an absent role."
        )
        fix = (
            "Customer: ask the organisation's administrator for an exception for account"
            f" {account}."
        )
        return "unknown", detail, fix
    if seen.error is not None:
        return _NOT_REACHED
    fix = (
        "Customer: ask the organisation's administrator to allow it for this role, or work"
        " without it."
    )
    return _ceiling(seen, "organization", "the organisation's policies", fix)


def _boundary(seen: Evidence) -> Said:
    if seen.error is not None:
        return _NOT_REACHED
    if (
        seen.view is not None
        and not isinstance(seen.view.settings, StsError)
        and seen.view.settings.boundary is None
    ):
        return "ok", "The role has no permissions boundary.", None
    fix = "Customer: add it to the permissions boundary of the role, or take the boundary off."
    return _ceiling(seen, "boundary", "the role's permissions boundary", fix)


def _ceiling(seen: Evidence, cause: Cause, who: str, fix: str) -> Said:
    if seen.view is None or isinstance(seen.view.decisions, StsError):
        return _unseen(seen, seen.view and seen.view.decisions)
    denied = [gap for gap in seen.gaps if gap.cause == cause]
    if denied:
        return "problem", f"Denied by {who}: {_some(denied)}.", fix
    return "ok", f"Nothing that the permission set asks for is denied by {who}.", None


def _permissions(seen: Evidence) -> Said:
    if seen.error is not None:
        return _NOT_REACHED
    if seen.view is None or isinstance(seen.view.decisions, StsError):
        return _unseen(seen, seen.view and seen.view.decisions)
    missing = [gap for gap in seen.gaps if gap.cause not in UNTOLD]
    if missing:
        fix = (
            "Customer: update the stack (or the Terraform or AWS CLI role) from the onboarding kit,"
            " and see permissions."
        )
        return "problem", f"The role lacks {_some(missing)}.", fix
    if seen.gaps:
        return (
            "ok",
            (
                "The role lacks nothing that can be checked without a request; unknown:"
                f" {_some(seen.gaps)}."
            ),
            None,
        )
    return "ok", "The role has all rights of the permission set.", None


def _unseen(seen: Evidence, why: RoleView | object) -> Said:
    if seen.view is None:
        detail = (
            "The role was not read: Deputy reads a role only after a proof, which shows whose"
            " it is."
        )
        return (
            "unknown",
            detail,
            "Vendor or customer: verify the connection, then diagnose it again.",
        )
    if isinstance(why, Refused):
        fix = "Customer: allow it, with the policy read-itself of the onboarding kit."
        return "unknown", "The role may not read itself, or not ask IAM for its own rights.", fix
    return (
        "unknown",
        "IAM did not answer in time.",
        "Vendor or customer: diagnose the connection again in a minute.",
    )


def _some(gaps: Iterable[Gap]) -> str:
    named = sorted({gap.action or gap.policy or "" for gap in gaps})
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return ", ".join(named[:5]) + more


def _region_is_off(error: StsError) -> bool:
    return isinstance(error, Misconfigured) and error.field is None


_OF_THE_VENDOR: dict[str, Callable[[Evidence], Said]] = {
    "our_credentials": _credentials,
    "our_identity": _identity,
    "canary": _canary,
    "aws_lets_us_try": _lets_us_try,
}
_OF_THE_ROLE: dict[str, Callable[[Evidence], Said]] = {
    "role": _role,
    "session_duration": _duration,
    "region": _region,
    "mfa": _mfa,
    "organization": _organization,
    "permissions_boundary": _boundary,
    "permissions": _permissions,
}
# Without these, no later step is tried
_NEEDED = {"our_credentials", "our_identity", "aws_lets_us_try"}
UNTOLD: set[Cause] = {"condition", "pattern", "not_seen"}
_NOT_TRIED: Said = "skipped", "Not tried, as an earlier step found why nothing works.", None
_NOT_REACHED: Said = "skipped", "Not seen, as the role did not let us in.", None
_TOLD_TENANTS: dict[Outcome, tuple[str, str | None]] = {
    "ok": ("The vendor's side works.", None),
    "unknown": (
        "The vendor's side gave no clear answer.",
        "Customer: try again in a minute. If it stays so, tell the vendor.",
    ),
    "problem": (
        "Something on the vendor's side is wrong. The role needs no change.",
        "Customer: tell the vendor.",
    ),
}
