"""The part of a proof that a role's trust policy decides: two checks, and warnings.

Two facts in the policy change a verdict, whatever the calls showed. A statement that lets the
broker in without the External ID is insecure, and so is one that lets in every AWS account. A
policy that can't be read or is not understood changes no verdict.

A role that moves to Deputy from another system of the vendor's may list that system's values beside
the External ID. Deputy serves nobody under those values, so they are a warning. The External ID of
another tenant is insecure.
"""

import json
import re
from collections.abc import Collection, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import NamedTuple

from app.aws.sts import Refused, StsError, Told
from app.config import Broker
from app.ids import EXTERNAL_ID_PATTERN, Grant
from app.proofs import proof
from app.proofs.proof import ProofCheck, ProofFinding, check_of
from app.proofs.trust_policy import Reading, read
from app.store.models import Verdict
from app.store.models.states import DEMANDS, ONLY_US, STRANGER

ENDS = "trust_policy_ends_access"
RETIRED = "trust_policy_names_retired_external_id"
OTHER_IDS = "trust_policy_lists_other_external_ids"
UNREADABLE = proof.Warning(
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
    "of the role's trust policy lets the broker in without this tenant's External ID. Add"
    ' "StringEquals": {"sts:ExternalId": "<External ID>"} to its Condition, or remove it.'
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
_OWN_WORDS = {
    (DEMANDS, "failed"): f"A part {_LETS_IN}",
    (DEMANDS, "inconclusive"): f"A part {_NOT_UNDERSTOOD}",
    (
        ONLY_US,
        "failed",
    ): "The role's trust policy also lets in others. Remove what neither you nor the vendor needs.",
}
# Matches a principal's account
_ACCOUNT = re.compile(r"(?:arn:aws[a-z-]*:(?:iam|sts)::)?([0-9]{12})(?::.+)?", re.DOTALL)


class Expected(NamedTuple):
    """The broker, accounts and External IDs that a trust policy is compared with."""

    broker: Broker
    own_accounts: Collection[str]  # the vendor's
    external_ids: Collection[str]  # all of the tenant's
    retired: Collection[str]  # those that are retired; naming one is a warning
    of_others: Collection[str]  # those in `named_external_ids` that belong to other tenants


def judge(
    finding: ProofFinding, told: Sequence[Told], grant: Grant, expected: Expected
) -> ProofFinding:
    """Return the finding with the results of the trust policy.

    `told`: one reading, if the role let us in.
    """
    if not told or isinstance(told[0], StsError):
        why = proof.NOT_TRIED if not told else _MAY_NOT if isinstance(told[0], Refused) else _SILENT
        skipped = (ProofCheck(name, "skipped", why) for name in (DEMANDS, ONLY_US))
        reads_itself = False if told and isinstance(told[0], Refused) else None
        return finding._replace(checks=(*finding.checks, *skipped), reads_itself=reads_itself)
    broker, own_accounts, external_ids, retired, of_others = expected
    tried = {*external_ids} - {*retired} | {grant.external_id}
    reading = read(told[0].trust_policy, broker, grant.role_arn.account_id, tried, retired)
    demands, only_us = _demands(reading, of_others), _only_us(reading, own_accounts)
    warnings = [
        proof.Warning(check.name, check.detail) for check in (demands, only_us) if _warns(check)
    ]
    if number := len({value for _, value in reading.listed if value.lower() not in of_others}):
        warnings.append(proof.Warning(OTHER_IDS, _other_ids(number)))
    if reading.ends:
        warnings.append(
            proof.Warning(
                ENDS, f"The role's trust policy ends this access: {', '.join(reading.ends)}."
            )
        )
    if named := sorted(_named(told[0].trust_policy) & {*retired} - {grant.external_id}):
        detail = f"The role still accepts {', '.join(named)}, which was retired: remove it."
        warnings.append(proof.Warning(RETIRED, detail))
    finding = finding._replace(
        checks=(*finding.checks, demands, only_us),
        warnings=(*finding.warnings, *warnings),
        reads_itself=True,
        reads_trust=True,
        access_until=end_of(reading.ends),
        permission_set=told[0].permission_set,
    )
    if finding.verdict is Verdict.UNASSUMABLE or not (
        demands.outcome == "failed" or reading.anybody
    ):
        return finding
    return _insecure(finding, lets_in_anybody=bool(reading.anybody))


def named_external_ids(told: Sequence[Told]) -> set[str]:
    """Return what looks like an External ID of Deputy's in the trust policy, in lower case.

    AWS limits their number.
    """
    if not told or isinstance(told[0], StsError):
        return set()
    return {value.lower() for value in _named(told[0].trust_policy)}


def _named(trust_policy: object) -> set[str]:
    return _ids_in(json.dumps(trust_policy))


def _ids_in(text: str) -> set[str]:
    return {*re.findall(EXTERNAL_ID_PATTERN, text, re.IGNORECASE)}


def _insecure(finding: ProofFinding, *, lets_in_anybody: bool) -> ProofFinding:
    checks = finding.checks
    if lets_in_anybody:
        *calls, demands, only_us = (check for check in checks if check.name != STRANGER)
        checks = (*calls, check_of(STRANGER, "failed"), demands, only_us)
    return finding._replace(
        verdict=Verdict.INSECURE, checks=checks, role_unique_id=None, may_be_spreading=False
    )


def without_its_text(finding: ProofFinding) -> ProofFinding:
    """Return the finding with the outcomes in our own words alone.

    A role that lets everybody in may belong to another party. Its trust policy must not be shown to
    this tenant.
    """
    checks = [
        it._replace(detail=_OWN_WORDS.get((it.name, it.outcome), it.detail))
        for it in finding.checks
    ]
    return finding._replace(
        checks=tuple(checks), warnings=(), reads_trust=False, access_until=None, permission_set=None
    )


def end_of(times: Collection[str]) -> datetime | None:
    """Return the latest of these times, at which the access ends, or None if that is unknown.

    It is unknown unless each is written as in the kit, and none is in the first or the last year.
    Not every time zone has all of those years, and PostgreSQL may answer in any.
    """
    try:
        ends = [datetime.strptime(it, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) for it in times]
    except ValueError:
        return None
    return max(ends) if ends and all(MINYEAR < it.year < MAXYEAR for it in ends) else None


def _demands(reading: Reading, of_others: Collection[str]) -> ProofCheck:
    with_anothers = tuple(
        dict.fromkeys(
            n for n, value in reading.compared if not _ids_in(value.lower()).isdisjoint(of_others)
        )
    )
    if 0 in reading.unclear and of_others:  # it is unknown which statement let us in
        with_anothers = (0,)
    failures = ((reading.open, _LETS_IN), (with_anothers, _OF_ANOTHER))
    if details := [f"{_statements(numbers)} {words}" for numbers, words in failures if numbers]:
        return ProofCheck(DEMANDS, "failed", " ".join(details))
    if reading.unclear:
        return ProofCheck(
            DEMANDS, "inconclusive", f"{_statements(reading.unclear)} {_NOT_UNDERSTOOD}"
        )
    fixed = (
        "this tenant's External ID or another fixed value"
        if reading.listed
        else "this tenant's External ID"
    )
    detail = f"Every statement of the trust policy that lets the broker in demands {fixed}."
    return ProofCheck(DEMANDS, "passed", detail)


def _only_us(reading: Reading, own_accounts: Collection[str]) -> ProofCheck:
    ours = [
        name
        for name in reading.others
        if (parts := _ACCOUNT.fullmatch(name)) and parts[1] in own_accounts
    ]
    others = [name for name in reading.others if name not in ours]
    details = []
    if others:
        names = ", ".join(others)
        details.append(
            f"The role's trust policy also lets in {names}. Remove each that is not meant to use"
            " this role."
        )
    if ours:
        names = ", ".join(ours)
        details.append(
            f"The role's trust policy also lets in {names} in the vendor's own AWS accounts. Ask"
            " the vendor what it still needs before you remove anything of it."
        )
    if details:
        return ProofCheck(ONLY_US, "failed", " ".join(details))
    if 0 in reading.unclear:
        return ProofCheck(
            ONLY_US, "inconclusive", "Deputy does not understand the role's trust policy."
        )
    return ProofCheck(ONLY_US, "passed", "The trust policy lets nobody in but the broker.")


def _warns(check: ProofCheck) -> bool:
    return check.outcome == ("inconclusive" if check.name == DEMANDS else "failed")


def _other_ids(number: int) -> str:
    values = (
        "1 fixed value of sts:ExternalId"
        if number == 1
        else f"{number} fixed values of sts:ExternalId"
    )
    return (
        f"The role's trust policy also lists {values} beside this tenant's External ID, the only"
        " one that this connection uses. Ask the vendor what it still needs, as in a move from"
        " another system, before you remove anything."
    )


def _statements(numbers: tuple[int, ...]) -> str:
    return "A part" if 0 in numbers else f"Statement {', '.join(map(str, numbers))}"
