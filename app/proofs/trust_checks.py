"""The checks and warnings of a proof that follow from the role's trust policy.

Three kinds of statement make a role insecure, even if all calls passed: a statement that accepts
the broker without the External ID, one that accepts another tenant's External ID, and one that lets
in every AWS account, or everybody at a public identity provider. A policy that can't be read or is
not understood changes no verdict.

A role that was moved to Deputy from another system of the vendor may still accept the External IDs
of that system. Deputy uses them for no tenant, so they cause only a warning.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence

from app.aws.errors import Refused
from app.aws.role_view import RoleSettings
from app.ids import EXTERNAL_ID_PATTERN, Broker, Grant
from app.proofs.access_end import end_of
from app.proofs.calls_and_verdict import NOT_TRIED, ProofCheck, ProofFinding, ProofWarning, check_of
from app.proofs.trust_policy import Reading, read
from app.rotation.switch import RotationPlan
from app.store.models import Verdict
from app.store.models.proof import DEMANDS, ONLY_US, STRANGER

ENDS = "trust_policy_ends_access"
RETIRED = "trust_policy_names_retired_external_id"
OTHER_IDS = "trust_policy_lists_other_external_ids"
UNREADABLE = ProofWarning(
    "role_unreadable",
    "The role could read itself until this proof, and may not any more. From now on Deputy does not"
    " see whom its trust policy lets in. If nobody meant that, allow it again with the policy"
    " read-itself of the onboarding kit.",
)

_MAY_NOT = (
    "The role may not read itself, so its trust policy was not seen. It is worth allowing, with the"
    " policy read-itself of the onboarding kit: the calls of a proof can't find a statement that"
    " lets in others, or us under another name."
)
_SILENT = "AWS did not show the role's trust policy in time. The next proof asks again."
_LETS_IN = (
    "of the role's trust policy lets the broker in without this tenant's External ID, or with"
    ' another customer\'s. Its Condition must compare sts:ExternalId by "StringEquals" with fixed'
    " values, of which none is another customer's; or remove it."
)
_OF_ANOTHER = (
    "of the role's trust policy accepts an External ID that belongs to another customer. Remove"
    " that value."
)
_NOT_UNDERSTOOD = (
    "of the role's trust policy is written in a way that Deputy does not understand, so only the"
    " calls show that the role demands the External ID. The onboarding kit has a trust policy that"
    " Deputy understands."
)
_DEMANDED = (
    "Every statement of the trust policy that lets the broker in demands this tenant's External ID"
)
_OTHER_IDS = (
    "The role's trust policy also lists {values} of sts:ExternalId beside this tenant's External"
    " ID, the only one that this connection uses. Ask the vendor what it still needs, as in a move"
    " from another system, before you remove anything."
)
_OWN_WORDS = {
    (DEMANDS, "failed"): f"A part {_LETS_IN}",
    (DEMANDS, "inconclusive"): f"A part {_NOT_UNDERSTOOD}",
    (
        ONLY_US,
        "failed",
    ): "The role's trust policy also lets in others. Remove what neither you nor the vendor needs.",
}
# Matches the account of a principal, alone or in an ARN
_ACCOUNT = re.compile(r"(?:arn:aws[a-z-]*:(?:iam|sts)::)?([0-9]{12})(?::.+)?", re.DOTALL)


def judge(
    finding: ProofFinding,
    grant: Grant,
    plan: RotationPlan,
    broker: Broker,
    *,
    own_accounts: Collection[str],
    of_others: Collection[str],
) -> ProofFinding:
    """Return the finding with the checks and warnings of the trust policy.

    The checks are skipped if the trust policy was not read. `plan`: has the tenant's External IDs.
    `own_accounts`: the vendor's accounts. `of_others`: the External IDs in the policy
    that belong to other tenants.
    """
    settings = finding.settings
    if not isinstance(settings, RoleSettings):
        return _without_policy(finding)
    policy, retired = settings.trust_policy, plan.retired_ids - {grant.external_id}
    tried = plan.external_ids.keys() - retired
    reading = read(policy, broker, grant.role_arn.account_id, tried, retired)
    demands = _demands(reading, of_others)
    only_us = _only_us(reading, own_accounts)
    if finding.verdict is not Verdict.UNASSUMABLE:
        if reading.anybody:
            finding = finding.with_check(check_of(STRANGER, "failed"))
        if reading.anybody or demands.outcome == "failed":
            finding = finding._replace(verdict=Verdict.INSECURE, may_be_spreading=False)
    still_named = sorted(retired & _ids_in(json.dumps(policy)))
    finding = finding.with_check(demands).with_check(only_us)
    return finding._replace(
        warnings=tuple(_warnings(reading, demands, only_us, of_others, still_named)),
        reads_itself=True,
        reads_trust=True,
        access_until=end_of(reading.ends),
        permission_set=settings.permission_set,
    )


def _without_policy(finding: ProofFinding) -> ProofFinding:
    why = _SILENT
    if finding.settings is None:
        why = NOT_TRIED
    elif isinstance(finding.settings, Refused):
        why, finding = _MAY_NOT, finding._replace(reads_itself=False)
    for name in (DEMANDS, ONLY_US):
        finding = finding.with_check(ProofCheck(name, "skipped", why))
    return finding


def _warnings(
    reading: Reading,
    demands: ProofCheck,
    only_us: ProofCheck,
    of_others: Collection[str],
    retired: Sequence[str],
) -> Iterator[ProofWarning]:
    if demands.outcome == "inconclusive":
        yield ProofWarning(DEMANDS, demands.detail)
    if only_us.outcome == "failed":
        yield ProofWarning(ONLY_US, only_us.detail)
    listed = {value for _, value in reading.listed if value.lower() not in of_others}
    if listed:
        values = f"{len(listed)} fixed values" if len(listed) > 1 else "1 fixed value"
        yield ProofWarning(OTHER_IDS, _OTHER_IDS.format(values=values))
    if reading.ends:
        dates = ", ".join(reading.ends)
        yield ProofWarning(ENDS, f"The role's trust policy ends this access: {dates}.")
    if retired:
        detail = f"The role still accepts {', '.join(retired)}, which was retired: remove it."
        yield ProofWarning(RETIRED, detail)


def named_external_ids(finding: ProofFinding) -> set[str]:
    """Return the texts in the trust policy that look like Deputy's External IDs, in lower case.

    AWS's limit for a policy's size also limits their number.
    """
    if not isinstance(finding.settings, RoleSettings):
        return set()
    return _ids_in(json.dumps(finding.settings.trust_policy).lower())


def _ids_in(text: str) -> set[str]:
    return {*re.findall(EXTERNAL_ID_PATTERN, text, re.IGNORECASE)}


def without_its_text(finding: ProofFinding) -> ProofFinding:
    """Return the finding without any text from the trust policy.

    A role that lets everybody in may belong to another party. Its trust policy must not be shown to
    this tenant.
    """
    checks = []
    for check in finding.checks:
        detail = _OWN_WORDS.get((check.name, check.outcome), check.detail)
        checks.append(check._replace(detail=detail))
    return finding._replace(
        checks=tuple(checks), warnings=(), reads_trust=False, access_until=None, permission_set=None
    )


def _demands(reading: Reading, of_others: Collection[str]) -> ProofCheck:
    with_anothers = set()
    for number, value in reading.compared:
        if not _ids_in(value.lower()).isdisjoint(of_others):
            with_anothers.add(number)
    if 0 in reading.unclear and of_others:  # it is unknown which statement let us in
        with_anothers = {0}
    details = []
    if reading.open:
        details.append(f"{_statements(reading.open)} {_LETS_IN}")
    if with_anothers:
        details.append(f"{_statements(with_anothers)} {_OF_ANOTHER}")
    if details:
        return ProofCheck(DEMANDS, "failed", " ".join(details))
    if reading.unclear:
        detail = f"{_statements(reading.unclear)} {_NOT_UNDERSTOOD}"
        return ProofCheck(DEMANDS, "inconclusive", detail)
    fixed = " or another fixed value" if reading.listed else ""
    return ProofCheck(DEMANDS, "passed", f"{_DEMANDED}{fixed}.")


def _only_us(reading: Reading, own_accounts: Collection[str]) -> ProofCheck:
    ours, others = [], []
    for name in reading.others:
        match = _ACCOUNT.fullmatch(name)
        if match and match[1] in own_accounts:
            ours.append(name)
        else:
            others.append(name)
    details = []
    if others:
        details.append(
            f"The role's trust policy also lets in {', '.join(others)}. Remove each that is not"
            " meant to use this role."
        )
    if ours:
        details.append(
            f"The role's trust policy also lets in {', '.join(ours)} in the vendor's own AWS"
            " accounts. Ask the vendor what it still needs before you remove or narrow anything of"
            " it."
        )
    if details:
        return ProofCheck(ONLY_US, "failed", " ".join(details))
    if 0 in reading.unclear:
        return ProofCheck(
            ONLY_US, "inconclusive", "Deputy does not understand the role's trust policy."
        )
    return ProofCheck(ONLY_US, "passed", "The trust policy lets nobody in but the broker.")


def _statements(numbers: Collection[int]) -> str:
    return "A part" if 0 in numbers else f"Statement {', '.join(map(str, sorted(numbers)))}"
