"""What a role's trust policy adds to a proof: two checks, and warnings for the customer.

Two things that are read change a verdict, whatever the calls saw. A statement that lets the broker in without the
External ID is insecure, and so is one that lets in every AWS account. A policy that cannot be read, or not understood,
proves nothing and stops nothing.
"""

import json
import re
from collections.abc import Collection, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime

from app.aws.sts import Refused, StsError, Told
from app.config import Broker
from app.connections import proof
from app.connections.proof import ProofCheck, ProofFinding, check_of
from app.connections.trust_policy import Reading, read
from app.ids import EXTERNAL_ID_PATTERN, Grant
from app.store.models import Verdict
from app.store.models.states import DEMANDS, ONLY_US, STRANGER

ENDS = "trust_policy_ends_access"
RETIRED = "trust_policy_names_retired_external_id"
UNREADABLE = proof.Warning(
    "role_unreadable",
    "The role could read itself until this proof, and may not any more. From now on Deputy does not see whom its trust"
    " policy lets in. If nobody meant that, allow it again with the policy read-itself of the onboarding kit.",
)

_MAY_NOT = (
    "The role may not read itself, so its trust policy was not seen. It is worth allowing, with the policy read-itself of"
    " the onboarding kit: the calls of a proof can't find a statement that lets in others, or us under another name."
)
_SILENT = "AWS did not show the role's trust policy in time. The next proof asks again."
_LETS_IN = (
    "of the role's trust policy lets the broker in without this tenant's External ID. Add"
    ' "StringEquals": {"sts:ExternalId": "<External ID>"} to its Condition, or remove it.'
)
_NOT_UNDERSTOOD = (
    "of the role's trust policy is written in a way that Deputy does not understand, so only the calls show that the role"
    " demands the External ID. The onboarding kit has a trust policy that Deputy understands."
)
_OWN_WORDS = {
    (DEMANDS, "failed"): f"A part {_LETS_IN}",
    (DEMANDS, "inconclusive"): f"A part {_NOT_UNDERSTOOD}",
    (ONLY_US, "failed"): "The role's trust policy also lets in others. Remove each that is not meant to use this role.",
}


def judge(
    finding: ProofFinding,
    told: Sequence[Told],
    grant: Grant,
    broker: Broker,
    external_ids: Collection[str],
    *,
    retired: Collection[str] = (),
) -> ProofFinding:
    """The finding, with what the trust policy says. `told`: one, if the role let us in; `external_ids`: all of the
    tenant's. A policy may still name those in `retired`, which are nobody else's: that is said, and stops nothing.
    """
    if not told or isinstance(told[0], StsError):
        why = proof.NOT_TRIED if not told else _MAY_NOT if isinstance(told[0], Refused) else _SILENT
        skipped = (ProofCheck(name, "skipped", why) for name in (DEMANDS, ONLY_US))
        reads_itself = False if told and isinstance(told[0], Refused) else None
        return finding._replace(checks=(*finding.checks, *skipped), reads_itself=reads_itself)
    tried = {*external_ids} - {*retired} | {grant.external_id}
    found = read(told[0].trust_policy, broker, grant.role_arn.account_id, tried, retired)
    demands, only_us = _demands(found), _only_us(found)
    warned = [it for it, warns in ((demands, demands.outcome == "inconclusive"), (only_us, found.others)) if warns]
    said = [proof.Warning(it.name, it.detail) for it in warned]
    if found.ends:
        said.append(proof.Warning(ENDS, f"The role's trust policy ends this access: {', '.join(found.ends)}."))
    accepted = re.findall(EXTERNAL_ID_PATTERN, json.dumps(told[0].trust_policy))
    if named := sorted({*accepted} & {*retired} - {grant.external_id}):
        said.append(proof.Warning(RETIRED, f"The role still accepts {', '.join(named)}, which was retired: remove it."))
    finding = finding._replace(
        checks=(*finding.checks, demands, only_us),
        warnings=(*finding.warnings, *said),
        reads_itself=True,
        reads_trust=True,
        access_until=end_of(found.ends),
        permission_set=told[0].permission_set,
    )
    return finding if finding.verdict is Verdict.UNASSUMABLE else _judged(finding, found)


def _judged(finding: ProofFinding, found: Reading) -> ProofFinding:
    if not (found.open or found.anybody):
        return finding
    checks = finding.checks
    if found.anybody:
        *calls, demands, only_us = (check for check in checks if check.name != STRANGER)
        checks = (*calls, check_of(STRANGER, "failed"), demands, only_us)
    return finding._replace(verdict=Verdict.INSECURE, checks=checks, role_unique_id=None, may_be_spreading=False)


def without_its_text(finding: ProofFinding) -> ProofFinding:
    """Return the outcomes in our own words alone.

    A role that lets everybody in may be somebody else's, and what it trusts is none of this tenant's business.
    """
    checks = [it._replace(detail=_OWN_WORDS.get((it.name, it.outcome), it.detail)) for it in finding.checks]
    return finding._replace(
        checks=tuple(checks), warnings=(), reads_trust=False, access_until=None, permission_set=None
    )


def end_of(times: Collection[str]) -> datetime | None:
    """When all of them have passed, the access has ended. None unless each is written as in the kit.

    Nor for the first and the last year: not every time zone has all of them, and PostgreSQL may answer in any.
    """
    try:
        ends = [datetime.strptime(it, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) for it in times]
    except ValueError:
        return None
    return max(ends) if ends and all(MINYEAR < it.year < MAXYEAR for it in ends) else None


def _demands(found: Reading) -> ProofCheck:
    if found.open:
        return ProofCheck(DEMANDS, "failed", f"{_statements(found.open)} {_LETS_IN}")
    if found.unclear:
        return ProofCheck(DEMANDS, "inconclusive", f"{_statements(found.unclear)} {_NOT_UNDERSTOOD}")
    detail = "Every statement of the trust policy that lets the broker in demands this tenant's External ID."
    return ProofCheck(DEMANDS, "passed", detail)


def _only_us(found: Reading) -> ProofCheck:
    if found.others:
        names = ", ".join(found.others)
        detail = f"The role's trust policy also lets in {names}. Remove each that is not meant to use this role."
        return ProofCheck(ONLY_US, "failed", detail)
    if 0 in found.unclear:
        return ProofCheck(ONLY_US, "inconclusive", "Deputy does not understand the role's trust policy.")
    return ProofCheck(ONLY_US, "passed", "The trust policy lets nobody in but the broker.")


def _statements(numbers: tuple[int, ...]) -> str:
    return "A part" if 0 in numbers else f"Statement {', '.join(map(str, numbers))}"
