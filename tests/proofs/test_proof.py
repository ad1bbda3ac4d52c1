"""The proof's rules, restated here on their own and compared for everything that AWS may say to the
four calls.

The door is scripted: STS itself is tests/aws/test_sts.py, and the API with a real role is
tests/api.
"""

import dataclasses
import itertools
import re
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from app.aws.errors import Misconfigured, Refused, Unavailable
from app.clock import now
from app.config import Broker
from app.errors import ConflictError
from app.ids import Grant, RoleArn, new_external_id, new_id
from app.permissions.permission_sets import PermissionSets
from app.proofs import verification
from app.proofs.canary import Canary
from app.proofs.proof import AWS_SILENT, ProofCheck, Warning as ProofWarning, prove, prove_routinely
from app.proofs.proof_interval import Pace
from app.rotation.candidates import Candidate, Plan
from app.store.database import SYSTEM
from app.store.models import (
    AuditEvent,
    Connection,
    ConnectionStatus,
    ExternalIdRow,
    ExternalIdState,
    Proof,
    Tenant,
    Trigger,
    Verdict,
)
from tests.conftest import make_config
from tests.support.rows import ADMIN

CONFIG = make_config("sqlite://")
NO_CANARY = Canary(None, CONFIG)
GRANT = Grant(RoleArn.parse("arn:aws:iam::444455556666:role/deputy-0123abcd"), new_external_id())
# AWS's text, which names the broker: it must not come out anywhere.
AWS_SAYS = "User: arn:aws:sts::111122223333:assumed-role/DeputyBroker/deputy is not authorized"

ACCEPTED, REFUSED, UNAVAILABLE, MISCONFIGURED = (
    "accepted",
    "refused",
    "unavailable",
    "misconfigured",
)
ANSWERS = (ACCEPTED, REFUSED, UNAVAILABLE, MISCONFIGURED)
BROKER = Broker.parse("arn:aws:iam::111122223333:role/DeputyBroker")
NAMES = [
    "own_external_id_accepted",
    "account_matches",
    "missing_external_id_refused",
    "foreign_external_id_refused",
]
ALL = list(itertools.product(ANSWERS, repeat=4))


class Door:
    """Answers the calls by a script: own, missing, foreign, own again; and notes which were
    made.
    """

    broker = BROKER

    def __init__(self, script, *, accounts=("444455556666",) * 2, roles=("AROAONE",) * 2) -> None:
        own, missing, foreign, again = script
        self._script = {"own": [own, again], "missing": [missing], "foreign": [foreign]}
        self._identities = list(zip(accounts, roles, strict=True))
        self.calls = []

    def probe_own(self, grant, read=None):
        identity = self._identities.pop(0)
        self._answer("own", grant)
        return identity

    def probe_again(self, grant, read=None):
        return self.probe_own(grant, read)[1]

    def probe_missing(self, grant):
        self._answer("missing", grant)

    def probe_foreign(self, grant):
        self._answer("foreign", grant)

    def _answer(self, call, grant) -> None:
        assert grant is GRANT
        self.calls.append(call)
        match self._script[call].pop(0):
            case "refused":
                raise Refused(AWS_SAYS)
            case "unavailable":
                raise Unavailable(AWS_SAYS)
            case "misconfigured":
                raise Misconfigured("The account has switched STS off.")


@dataclasses.dataclass
class Expected:
    """What a full proof finds, restated in the words of invariant 5 (docs/architecture.md)."""

    verdict: Verdict
    outcomes: str
    calls: int  # of own, missing, foreign, own
    may_be_spreading: bool = False


NOT_ACCEPTED = {REFUSED: ("failed", Verdict.UNASSUMABLE)}


def expected_of(script, *, right_account: bool, same_role: bool) -> Expected:
    own, missing, foreign, again = script
    if own != ACCEPTED:
        word, verdict = NOT_ACCEPTED.get(own, ("inconclusive", Verdict.INCONCLUSIVE))
        return Expected(
            verdict, f"{word} skipped skipped skipped", 1, may_be_spreading=own == REFUSED
        )
    if not right_account:
        return Expected(Verdict.UNASSUMABLE, "passed failed skipped skipped", 1)
    words = {ACCEPTED: "failed", REFUSED: "passed"}
    strangers = f"{words.get(missing, 'inconclusive')} {words.get(foreign, 'inconclusive')}"
    if ACCEPTED in {missing, foreign}:
        return Expected(Verdict.INSECURE, f"passed passed {strangers}", 3)
    if (missing, foreign) != (REFUSED, REFUSED):
        return Expected(Verdict.INCONCLUSIVE, f"passed passed {strangers}", 3)
    if again == ACCEPTED and same_role:
        return Expected(Verdict.PROVEN, "passed passed passed passed", 4)
    spreading = again in {ACCEPTED, REFUSED}
    return Expected(
        Verdict.INCONCLUSIVE, "inconclusive passed inconclusive inconclusive", 4, spreading
    )


@pytest.mark.parametrize("same_role", [True, False], ids=["same-role", "recreated"])
@pytest.mark.parametrize("right_account", [True, False], ids=["right-account", "other-account"])
def test_every_sequence_of_answers_is_judged_by_the_rules(right_account, same_role):
    """Its verdict, its four checks in their order, the calls that were made, and whether waiting
    may help.
    """
    accounts = ("444455556666" if right_account else "777788889999",) * 2
    roles, proven = ("AROAONE", "AROAONE" if same_role else "AROATWO"), []
    for script in ALL:
        door = Door(script, accounts=accounts, roles=roles)
        finding, expected = (
            prove(door, GRANT),
            expected_of(script, right_account=right_account, same_role=same_role),
        )
        assert [check.name for check in finding.checks] == NAMES, script
        result = Expected(
            finding.verdict,
            " ".join(check.outcome for check in finding.checks),
            len(door.calls),
            finding.may_be_spreading,
        )
        assert result == expected, script
        assert door.calls == ["own", "missing", "foreign", "own"][: expected.calls], script
        assert finding.role_unique_id == (
            "AROAONE" if finding.verdict is Verdict.PROVEN else None
        ), script
        proven += [script] if finding.verdict is Verdict.PROVEN else []
    assert proven == (
        [(ACCEPTED, REFUSED, REFUSED, ACCEPTED)] if right_account and same_role else []
    )


def test_details_are_in_our_words_and_help():
    for script in ALL:
        for check in prove(Door(script), GRANT).checks:
            assert re.fullmatch(r"[A-Z][ -~]{20,400}", check.detail), check
            for leaked in (
                "not authorized",
                "arn:",
                "111122223333",
                "DeputyBroker",
                GRANT.external_id,
            ):
                assert leaked not in check.detail, script
    [_, _, missing, foreign] = prove(Door((ACCEPTED,) * 4), GRANT).checks
    assert '"StringEquals": {"sts:ExternalId": "<External ID>"}' in missing.detail
    assert "StringLike" in foreign.detail

    def detail_of_own(*script, **door) -> str:
        return prove(Door(script, **door), GRANT).checks[0].detail

    assert detail_of_own(*(MISCONFIGURED,) * 4) == "The account has switched STS off."
    assert detail_of_own(ACCEPTED, REFUSED, REFUSED, UNAVAILABLE) == AWS_SILENT, (
        "and not that the role is new"
    )
    made_again = detail_of_own(ACCEPTED, REFUSED, REFUSED, ACCEPTED, roles=("AROAONE", "AROATWO"))
    assert "refusals prove nothing yet" in made_again


# --- the routine proof ---


def test_only_two_refusals_and_then_the_proven_role_pass_a_routine_proof():
    for script in itertools.product(ANSWERS, repeat=3):
        door = Door((script[2], script[0], script[1], script[2]))
        finding = prove_routinely(door, GRANT, "AROAONE", (), None)
        assert (finding is not None) == (script == (REFUSED, REFUSED, ACCEPTED)), script
        assert door.calls[:2] == ["missing", "foreign"]
    finding = prove_routinely(
        Door((ACCEPTED, REFUSED, REFUSED, ACCEPTED)), GRANT, "AROAONE", (), None
    )
    assert finding == prove(Door((ACCEPTED, REFUSED, REFUSED, ACCEPTED)), GRANT)
    assert (
        prove_routinely(Door((ACCEPTED, REFUSED, REFUSED, ACCEPTED)), GRANT, "AROATWO", (), None)
        is None
    )


@pytest.mark.parametrize("outcome", ["passed", "failed", "skipped", "inconclusive", None])
def test_a_further_question_is_asked_in_both_proofs(outcome):
    check = None if outcome is None else ProofCheck("further", outcome, "What it found.")
    warning = ProofWarning("further", "What the customer should know.")

    def further(grant):
        assert grant is GRANT
        return check, (warning,)

    script = (ACCEPTED, REFUSED, REFUSED, ACCEPTED)
    finding = prove(Door(script), GRANT, [further])
    verdicts = {"failed": Verdict.INSECURE, "inconclusive": Verdict.INCONCLUSIVE}
    assert finding.verdict is verdicts.get(outcome, Verdict.PROVEN)
    assert [check.name for check in finding.checks] == [*NAMES, *(["further"] if outcome else [])]
    assert finding.warnings == (warning,)
    routine = prove_routinely(Door(script), GRANT, "AROAONE", [further], None)
    assert routine == (finding if finding.verdict is Verdict.PROVEN else None)
    assert prove(Door((ACCEPTED, REFUSED, REFUSED, REFUSED)), GRANT, [further]).warnings == (
        warning,
    )


# --- patience ---


class Roles:
    """A role that refuses its own ID so many times, and is then a good role."""

    broker = BROKER

    def __init__(self, refusals: int) -> None:
        self.left = refusals
        self.own = 0

    def probe_own(self, _grant, _read=None):
        self.own += 1
        if self.left > 0:
            self.left -= 1
            raise Refused
        return "444455556666", "AROAONE"

    def probe_again(self, grant, read=None):
        return self.probe_own(grant, read)[1]

    def probe_missing(self, _grant):
        raise Refused

    probe_foreign = probe_missing


@pytest.fixture
def sleeps(monkeypatch):
    """The pauses, which are not slept; the clock moves on by them."""
    slept = []
    monkeypatch.setattr(verification.time, "sleep", slept.append)
    monkeypatch.setattr(verification.time, "monotonic", lambda: sum(slept))
    return slept


def prove_patiently(door, patience: float):
    plan = Plan((Candidate(new_id(), GRANT),), frozenset(), frozenset())
    before = verification._Tested(Connection(), refusal_would_break_it=False, plan=plan)
    return (
        verification.Verification(None, door, None, NO_CANARY, PermissionSets())
        ._prove_patiently(before, Trigger.CREATED, patience)
        .finding
    )


def test_a_role_that_is_seconds_old_is_tried_again_until_patience_ends(sleeps):
    door = Roles(refusals=3)
    assert prove_patiently(door, 5.0).verdict is Verdict.PROVEN
    assert (sleeps, door.own) == ([0.25, 0.5, 0.75], 5)
    sleeps.clear()
    assert prove_patiently(Roles(refusals=1000), 5.0).verdict is Verdict.UNASSUMABLE
    assert 4 < sum(sleeps) <= 5


def test_a_role_is_tried_once_without_patience_and_where_waiting_changes_nothing(sleeps):
    door, words = Roles(refusals=1), {answer[0]: answer for answer in ANSWERS}
    assert prove_patiently(door, 0.0).verdict is Verdict.UNASSUMABLE
    assert door.own == 1
    for script in ("uaaa", "maaa", "aara", "arua", "arra"):
        prove_patiently(Door([words[letter] for letter in script]), 5.0)
        assert sleeps == [], script


# --- storing: a verdict counts for the version that was tested, and for no other ---


class Meanwhile:
    """A door at which something happens to the connection while each of the first proofs is
    being made.
    """

    broker = BROKER

    def __init__(
        self, database, connection_id, changes, *, script=(ACCEPTED, REFUSED, REFUSED, ACCEPTED)
    ) -> None:
        self._database, self._connection_id = database, connection_id
        self._changes = list(changes)
        self._script = script
        self.proofs = 0

    def probe_own(self, _grant, _read=None):
        return "444455556666", "AROAONE"

    def probe_again(self, _grant, _read=None):
        return "AROAONE"

    def probe_missing(self, _grant) -> None:
        self.proofs += 1
        if self._changes:
            with self._database.write(SYSTEM) as db:
                self._changes.pop(0)(db.get(Connection, self._connection_id))
        if self._script[1] == REFUSED:
            raise Refused

    def probe_foreign(self, _grant) -> None:
        raise Refused


@pytest.fixture
def stored(database):
    """A pending connection of a new tenant's."""
    tenant = Tenant(id=new_id(), name="Acme")
    with database.write(SYSTEM) as db:
        db.add(tenant)
        db.flush()
        own = ExternalIdRow(
            tenant_id=tenant.id, value=new_external_id(), state=ExternalIdState.CURRENT
        )
        db.add(own)
        db.flush()
        arn = "arn:aws:iam::444455556666:role/deputy-x"
        connection = Connection(
            tenant_id=tenant.id,
            external_id_id=own.id,
            role_arn=arn,
            account_id="444455556666",
            permission_set="inventory",
        )
        db.add(connection)
    return connection


def verify(database, stored, door, trigger=Trigger.REQUESTED):
    return verification.Verification(
        database, door, Pace(database, CONFIG), NO_CANARY, PermissionSets()
    ).verify(ADMIN, stored.tenant_id, stored.id, trigger=trigger)


def read(database, stored) -> tuple[ConnectionStatus, int]:
    """The connection's status, and how many proofs it has."""
    with database.read() as db:
        proofs = db.scalars(select(Proof.id).where(Proof.connection_id == stored.id)).all()
        return db.get(Connection, stored.id).status, len(proofs)


def bump(connection: Connection) -> None:
    connection.version += 1


def test_a_verdict_on_an_older_version_is_dropped_and_the_proof_made_again(database, stored):
    door = Meanwhile(database, stored.id, [bump])
    tested = verify(database, stored, door)
    assert (tested.status, tested.role_unique_id) == (ConnectionStatus.VERIFIED, "AROAONE")
    assert [check["name"] for check in tested.proof.checks][:4] == NAMES
    assert door.proofs == 2
    assert read(database, stored) == (ConnectionStatus.VERIFIED, 1)


def test_a_connection_that_keeps_changing_takes_no_verdict(database, stored):
    door = Meanwhile(database, stored.id, [bump] * 10)
    with pytest.raises(ConflictError):
        verify(database, stored, door)
    assert door.proofs == 3
    assert read(database, stored) == (ConnectionStatus.PENDING, 0)


def test_what_was_made_due_meanwhile_stays_due(database, stored):
    """For a reason that came after the calls, which this proof does not answer."""
    soon = now() + timedelta(seconds=7)

    def made_due(connection: Connection) -> None:
        connection.due_at, connection.due_for = soon, Trigger.ISSUING

    tested = verify(database, stored, Meanwhile(database, stored.id, [made_due]))
    assert tested.status is ConnectionStatus.VERIFIED
    assert (tested.due_at, tested.due_for) == (soon, Trigger.ISSUING)


def test_a_drift_is_counted_and_on_record_with_its_checks(database, stored):
    def counted() -> float:
        return (
            REGISTRY.get_sample_value("deputy_drift_exposed_seconds_count", {"status": "insecure"})
            or 0
        )

    verify(database, stored, Meanwhile(database, stored.id, []))
    before = counted()
    tested = verify(database, stored, Meanwhile(database, stored.id, [], script=OPEN))
    assert counted() == before + 1
    with database.read() as db:
        latest = (
            select(AuditEvent.details)
            .where(AuditEvent.connection_id == stored.id)
            .order_by(AuditEvent.id.desc())
        )
        details = db.scalars(latest.limit(1)).one()
    assert (details["verdict"], details["status"]) == ("insecure", "insecure")
    assert details["checks"] == {check["name"]: check["outcome"] for check in tested.proof.checks}
    assert details["checks"]["missing_external_id_refused"] == "failed"


class Overtaken(Meanwhile):
    """A door whose first proof is slow: another proof, through `quicker`, begins later and is
    stored before it.
    """

    def __init__(self, database, stored, quicker: Meanwhile, trigger=Trigger.REQUESTED) -> None:
        super().__init__(database, stored.id, [])
        self._stored, self._quicker, self._trigger = stored, quicker, trigger

    def probe_missing(self, grant) -> None:
        if self.proofs == 0:
            verify(self._database, self._stored, self._quicker, self._trigger)
            self._script = self._quicker._script  # what the role says from now on
            self.proofs += 1
            raise Refused  # what it had said before
        super().probe_missing(grant)


OPEN = (ACCEPTED, ACCEPTED, REFUSED, ACCEPTED)
CLOSED = (ACCEPTED, REFUSED, REFUSED, ACCEPTED)


@pytest.mark.parametrize(("trigger", "proofs"), [(Trigger.REQUESTED, 3), (Trigger.SCHEDULED, 2)])
def test_a_slow_proof_does_not_overrule_an_insecure_verdict_stored_meanwhile(
    database, stored, trigger, proofs
):
    """A second insecure verdict leaves the version as it is, so the latest proof has to be compared
    too. A routine proof counts up in the row of the first.
    """
    verify(database, stored, Meanwhile(database, stored.id, [], script=OPEN))
    slow = Overtaken(database, stored, Meanwhile(database, stored.id, [], script=OPEN), trigger)
    assert verify(database, stored, slow).status is ConnectionStatus.INSECURE
    assert slow.proofs == 2
    assert read(database, stored) == (ConnectionStatus.INSECURE, proofs)


def test_two_proofs_at_once_with_one_verdict_are_both_stored(database, stored):
    verify(database, stored, Meanwhile(database, stored.id, []))
    slow = Overtaken(database, stored, Meanwhile(database, stored.id, [], script=CLOSED))
    assert verify(database, stored, slow).status is ConnectionStatus.VERIFIED
    assert slow.proofs == 1
    assert read(database, stored) == (ConnectionStatus.VERIFIED, 3)
