"""What a role's trust policy adds to a proof: two checks, and warnings for the customer.

Only one thing that is read changes a verdict: a statement that lets the broker in without the External ID is insecure,
whatever the calls saw. A policy that cannot be read, or not understood, proves nothing and stops nothing.
"""

import json
from collections.abc import Collection, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime

from app.aws.sts import Refused, StsError, Told
from app.config import Broker
from app.connections import proof
from app.connections.proof import ProofCheck, ProofFinding
from app.connections.trust_policy import Reading, read
from app.ids import Grant
from app.store.models import Verdict
from app.store.models.states import DEMANDS, ONLY_US

ENDS = "trust_policy_ends_access"
RETIRED = "trust_policy_names_retired_external_id"

_MAY_NOT = (
    "The role may not read itself, so its trust policy was not seen. It is worth allowing, with the policy read-itself of"
    " the onboarding kit: the calls of a proof can't find a statement that lets in others, or us under another name."
)
_SILENT = "AWS did not show the role's trust policy in time. The next proof asks again."


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
        return finding._replace(checks=(*finding.checks, *skipped))
    tried = {*external_ids} - {*retired} | {grant.external_id}
    found = read(told[0].trust_policy, broker, grant.role_arn.account_id, tried, retired)
    demands, only_us = _demands(found), _only_us(found)
    warned = [it for it, warns in ((demands, demands.outcome == "inconclusive"), (only_us, found.others)) if warns]
    said = [proof.Warning(it.name, it.detail) for it in warned]
    if found.ends:
        said.append(proof.Warning(ENDS, f"The role's trust policy ends this access: {', '.join(found.ends)}."))
    text = json.dumps(told[0].trust_policy)
    if named := [it for it in sorted(retired) if it != grant.external_id and it in text]:
        said.append(proof.Warning(RETIRED, f"The role still accepts {', '.join(named)}, which was retired: remove it."))
    finding = finding._replace(checks=(*finding.checks, demands, only_us), warnings=(*finding.warnings, *said))
    until, permission_set = end_of(found.ends), told[0].permission_set
    finding = finding._replace(reads_trust=True, access_until=until, permission_set=permission_set)
    if not found.open or finding.verdict is Verdict.UNASSUMABLE:
        return finding
    return finding._replace(verdict=Verdict.INSECURE, role_unique_id=None, may_be_spreading=False)


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
        detail = (
            f"{_statements(found.open)} of the role's trust policy lets the broker in without this tenant's External ID."
            ' Add "StringEquals": {"sts:ExternalId": "<External ID>"} to its Condition, or remove it.'
        )
        return ProofCheck(DEMANDS, "failed", detail)
    if found.unclear:
        detail = (
            f"{_statements(found.unclear)} of the role's trust policy is written in a way that Deputy does not"
            " understand, so only the calls show that the role demands the External ID. The onboarding kit has a trust"
            " policy that Deputy understands."
        )
        return ProofCheck(DEMANDS, "inconclusive", detail)
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
