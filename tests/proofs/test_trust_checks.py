"""What a trust policy, once read, does to a finding: the one thing that overrules it, and what
is only said.
"""

from datetime import UTC, datetime

import pytest
import yaml

from app.aws.errors import Refused, StsError, Unavailable
from app.aws.role_view import RoleSettings
from app.ids import Broker, Grant, RoleArn, new_external_id, new_id
from app.onboarding.kit_trust_policy import trust_policy as kit_policy
from app.proofs.calls_and_verdict import ProofCheck, ProofFinding, ProofWarning, check_of
from app.proofs.policy_statements import Globs
from app.proofs.trust_checks import ENDS, RETIRED, judge
from app.rotation.switch import RotationPlan
from app.store.models import Connection, Verdict
from app.store.models.proof import DEMANDS, ONLY_US, STRANGER

BROKER = Broker.parse("arn:aws:iam::111122223333:role/DeputyBroker")
GRANT = Grant(
    RoleArn.parse("arn:aws:iam::444455556666:role/deputy-0123abcd"), new_external_id(), new_id()
)
OURS = {BROKER.account_id, "222233334444"}
CALLS = (ProofCheck("own_external_id_accepted", "passed", "…"),)
KIT = kit_policy(BROKER, GRANT.external_id)
[ALLOW] = KIT["Statement"]
HOLE = {**ALLOW, "Condition": {"StringEquals": {"sts:RoleSessionName": "x"}}}
ODD = {
    **ALLOW,
    "Condition": {
        "StringEquals": {"aws:PrincipalOrgID": "o-1"},
        "ArnEquals": ALLOW["Condition"]["ArnEquals"],
    },
}


def policy(*statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}


def judged(verdict, settings, *, calls=CALLS, retired=(), of_others=()):
    """`settings`: the trust policy that was read, or the reason why none was."""
    if not isinstance(settings, StsError):
        settings = RoleSettings(settings, 3600, None)
    unique_id = "AROAONE" if verdict is Verdict.PROVEN else None
    finding = ProofFinding(verdict, calls, unique_id, True, settings=settings)
    return judge(finding, GRANT, plan_of(*retired), BROKER, own_accounts=OURS, of_others=of_others)


def plan_of(*retired):
    external_ids = dict.fromkeys((GRANT.external_id, *retired))
    return RotationPlan(Connection(), (), external_ids, frozenset(retired))


def accepting(*external_ids, **conditions):
    accepts = {**ALLOW["Condition"]["StringEquals"], "sts:ExternalId": list(external_ids)}
    return {**ALLOW, "Condition": {**ALLOW["Condition"], "StringEquals": accepts, **conditions}}


def test_a_retired_external_id_is_nobody_elses_and_its_statement_keeps_no_access():
    [retired], end = [new_external_id()], "2030-01-31T12:00:00Z"
    ends = accepting(GRANT.external_id, DateLessThan={"aws:CurrentTime": end})
    for old, statements, warnings in (
        (retired, [accepting(retired), ends], [ENDS, RETIRED]),
        (GRANT.external_id, [ends], [ENDS]),  # still paired
    ):
        finding = judged(Verdict.PROVEN, policy(*statements), retired=[old])
        assert finding.verdict is Verdict.PROVEN
        assert finding.access_until == datetime(2030, 1, 31, 12, tzinfo=UTC)
        assert [warning.name for warning in finding.warnings] == warnings


def test_what_a_proof_costs_does_not_grow_with_each_rotation(monkeypatch):
    """A key of the tenant's rotates twenty times a day, and its customer writes the policy."""
    retired = [new_external_id() for _ in range(2_000)]
    texts = []
    matching = Globs.matching
    monkeypatch.setattr(
        Globs, "matching", lambda globs, text: texts.append(text) or matching(globs, text)
    )
    accepts_all = accepting(*retired, StringLike={"sts:ExternalId": "*"})
    judged(Verdict.PROVEN, policy(ALLOW, accepts_all), retired=retired)
    assert 0 < len(texts) < 50, "a retired one is compared with nothing"


def outcomes(finding):
    assert [check.name for check in finding.checks] == [CALLS[0].name, DEMANDS, ONLY_US]
    return [check.outcome for check in finding.checks[1:]]


@pytest.mark.parametrize("verdict", Verdict)
def test_a_hole_overrules_every_verdict_of_the_calls_and_nothing_else_that_is_read_does(verdict):
    """But for a role that is in another account, or refuses us: that is said first."""
    finding = judged(verdict, policy(HOLE, ALLOW, HOLE))
    assert finding.verdict is (verdict if verdict is Verdict.UNASSUMABLE else Verdict.INSECURE)
    assert outcomes(finding)[0] == "failed"
    assert finding.checks[1].detail.startswith("Statement 1, 3 of"), "all of them are named"
    for trust in (KIT, policy(ALLOW, ODD), policy(ALLOW, {**ALLOW, "Principal": "*"}), None, 5):
        finding = judged(verdict, trust)
        assert (finding.verdict, finding.may_be_spreading) == (verdict, True), trust


EVERYBODY = {
    **ALLOW,
    "Principal": "*",
    "Condition": {"StringEquals": ALLOW["Condition"]["StringEquals"]},
}


@pytest.mark.parametrize("verdict", Verdict)
def test_a_role_for_everybody_is_insecure_whatever_the_stranger_was_told(verdict):
    failed = [
        (CALLS[0].name, "passed"),
        (STRANGER, "failed"),
        (DEMANDS, "passed"),
        (ONLY_US, "failed"),
    ]
    for asked in ("passed", "skipped", None):
        calls = CALLS if asked is None else (*CALLS, check_of(STRANGER, asked))
        finding = judged(verdict, policy(ALLOW, EVERYBODY), calls=calls)
        if verdict is Verdict.UNASSUMABLE:
            assert (finding.verdict, finding.checks[: len(calls)]) == (verdict, calls)
        else:
            assert finding.verdict is Verdict.INSECURE
            assert [(check.name, check.outcome) for check in finding.checks] == failed


def test_what_was_not_read_is_skipped_and_says_why():
    """It says nothing of an end either."""
    not_accepted = ProofFinding(Verdict.PROVEN, CALLS)
    not_tried = judge(not_accepted, GRANT, plan_of(), BROKER, own_accounts=OURS, of_others=())
    for finding, why, reads_itself in (
        (judged(Verdict.PROVEN, Refused()), "It is worth allowing", False),
        (judged(Verdict.PROVEN, Unavailable()), "did not show", None),
        (not_tried, "Not tried", None),
    ):
        assert outcomes(finding) == ["skipped", "skipped"]
        assert all(why in check.detail for check in finding.checks[1:])
        assert (finding.verdict, finding.warnings, finding.reads_trust) == (
            Verdict.PROVEN,
            (),
            False,
        )
        assert finding.reads_itself is reads_itself


def test_a_policy_that_is_not_understood_is_a_warning():
    finding = judged(Verdict.PROVEN, None)
    assert outcomes(finding)[0] == "inconclusive"
    assert finding.warnings == (ProofWarning(DEMANDS, finding.checks[1].detail),)
    assert finding.checks[1].detail.startswith("A part of")


def test_an_external_id_of_another_tenant_counts_only_where_it_may_let_in():
    anothers = new_external_id()
    denied = {**accepting(anothers), "Effect": "Deny"}
    for trust, outcome in (
        (policy(ALLOW, denied), "passed"),
        (policy(accepting(GRANT.external_id, anothers), denied), "passed"),
        (policy(ALLOW, denied, ODD), "inconclusive"),
        ({"Statement": "not understood", "Id": anothers}, "failed"),
        (
            policy(accepting(GRANT.external_id, f"${{aws:PrincipalTag/none, '{anothers}'}}")),
            "failed",
        ),
    ):
        assert outcomes(judged(Verdict.PROVEN, trust, of_others={anothers}))[0] == outcome, trust


def test_the_vendors_own_accounts_are_not_somebody_else():
    """Nobody is told to remove what the vendor may still need. Everybody else's principals are
    named as before.
    """
    ours = [
        "arn:aws:iam::111122223333:role/Old",
        "arn:aws:sts::222233334444:assumed-role/Old/x",
        "222233334444",
    ]
    others = [
        "arn:aws:iam::999999999999:root",
        "arn:*:iam::111122223333:role/x",
        "AROAABCDEFGHIJKLMNOP",
    ]
    both = {"Effect": "Allow", "Principal": {"AWS": [*ours, *others]}, "Action": "sts:AssumeRole"}

    def warned_of(*statements):
        found = judged(Verdict.PROVEN, policy(*statements))
        assert outcomes(found)[1] == "failed"
        return next(warning.detail for warning in found.warnings if warning.name == ONLY_US)

    detail = warned_of(ALLOW, both)
    assert f"also lets in {', '.join(others)}. Remove each" in detail
    assert (
        f"also lets in {', '.join(ours)} in the vendor's own AWS accounts. Ask the vendor" in detail
    )
    assert "Remove" not in warned_of(ALLOW, {**both, "Principal": {"AWS": ours}})


@pytest.mark.parametrize(
    ("condition", "year"),
    yaml.safe_load("""
    - [{DateLessThan: {aws:CurrentTime: "2099-01-01T00:00:00Z"}}, 2099]
    # either is enough
    - - DateLessThan: {aws:CurrentTime: ["2099-01-01T00:00:00Z", "2098-01-01T00:00:00Z"]}
      - 2099
    - [{DateLessThan: {aws:CurrentTime: "2099-01-01"}}, null]
    - [{DateLessThan: {aws:CurrentTime: "2099-02-31T00:00:00Z"}}, null]
    # in some time zone that is the year 10000
    - [{DateLessThan: {aws:CurrentTime: "9999-12-31T23:59:59Z"}}, null]
    - [{DateLessThan: {aws:CurrentTime: "0001-01-01T00:00:00Z"}}, null]
    - [{NumericLessThan: {aws:EpochTime: "4070908800"}}, null]
    - [{DateGreaterThan: {aws:CurrentTime: "2020-01-01T00:00:00Z"}}, null]
    """),
)
def test_the_end_is_known_if_it_is_written_as_in_the_kit(condition, year):
    found = judged(Verdict.PROVEN, policy({**ALLOW, "Condition": ALLOW["Condition"] | condition}))
    assert found.reads_trust
    assert found.access_until == (year and datetime(year, 1, 1, tzinfo=UTC))
