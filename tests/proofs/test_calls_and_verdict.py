"""The proof's rules, restated here on their own and compared for everything that AWS may say to the
four calls.

The door is scripted: STS itself is tests/aws/test_sts.py, and the API with a real role is
tests/api.
"""

import dataclasses
import itertools
import re
from datetime import timedelta
from functools import partial

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from app.aws.errors import Misconfigured, Refused, Unavailable
from app.aws.sts import OwnProbe
from app.clock import now
from app.errors import ConflictError
from app.ids import Broker, Grant, RoleArn, new_external_id, new_id
from app.permissions.permission_sets import PermissionSets
from app.proofs import verification
from app.proofs.calls_and_verdict import AWS_SILENT, ProofCheck, prove, prove_routinely
from app.proofs.canary import Canary
from app.proofs.schedule import RoutineInterval
from app.rotation.switch import RotationPlan
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
from tests.support.databases import NOWHERE
from tests.support.rows import ADMIN

CONFIG = make_config(NOWHERE)
NO_CANARY = Canary(None, CONFIG)
GRANT = Grant(
    RoleArn.parse("arn:aws:iam::444455556666:role/deputy-0123abcd"), new_external_id(), new_id()
)
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
OPEN = (ACCEPTED, ACCEPTED, REFUSED, ACCEPTED)
CLOSED = (ACCEPTED, REFUSED, REFUSED, ACCEPTED)


class Door:
    """Answers the calls by a script: own, missing, foreign, own again; and notes which were made.

    An answer may be an iterator, for several proofs. `meanwhile`: what happens during the calls
    without an External ID of the first proofs.
    """

    broker = BROKER

    def __init__(self, script, *, account="444455556666", roles=("AROAONE",) * 2, meanwhile=()):
        names = ("own", "missing", "foreign", "again")
        self._script = dict(zip(names, script, strict=True))
        self._account, self._roles, self._meanwhile = account, roles, list(meanwhile)
        self.calls = []

    def probe_own(self, grant, *, is_routine=False):
        if is_routine:
            return OwnProbe(self._account, self.probe_again(grant), None)
        self._answer("own")
        return OwnProbe(self._account, self._roles[0], None)

    def probe_again(self, _grant):
        self._answer("again")
        return self._roles[1]

    def probe_missing(self, _grant):
        if self._meanwhile:
            self._meanwhile.pop(0)()
        self._answer("missing")

    def probe_foreign(self, _grant):
        self._answer("foreign")

    def _answer(self, call):
        self.calls.append(call)
        answer = self._script[call]
        match answer if isinstance(answer, str) else next(answer):
            case "refused":
                raise Refused(AWS_SAYS)
            case "unavailable":
                raise Unavailable(AWS_SAYS)
            case "misconfigured":
                raise Misconfigured("The account has switched STS off.")


def no_stranger(_grant):
    return None


@dataclasses.dataclass
class Expected:
    """What a full proof finds, restated in the words of invariant 5 (docs/architecture.md)."""

    verdict: Verdict
    outcomes: str
    calls: int  # of own, missing, foreign, own
    may_be_spreading: bool = False


NOT_ACCEPTED = {REFUSED: ("failed", Verdict.UNASSUMABLE)}


def expected_of(script, *, right_account, same_role):
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
    may help. The details are in our words.
    """
    account = "444455556666" if right_account else "777788889999"
    roles, proven = ("AROAONE", "AROAONE" if same_role else "AROATWO"), []
    for script in ALL:
        door = Door(script, account=account, roles=roles)
        finding = prove(door, GRANT, no_stranger)
        expected = expected_of(script, right_account=right_account, same_role=same_role)
        assert [check.name for check in finding.checks] == NAMES, script
        result = Expected(
            finding.verdict,
            " ".join(check.outcome for check in finding.checks),
            len(door.calls),
            finding.may_be_spreading,
        )
        assert result == expected, script
        assert door.calls == ["own", "missing", "foreign", "again"][: expected.calls], script
        let_in = right_account and script[0] == ACCEPTED
        assert finding.role_unique_id == ("AROAONE" if let_in else None), script
        proven += [script] if finding.verdict is Verdict.PROVEN else []
        for check in finding.checks:
            assert re.fullmatch(r"[A-Z][ -~]{20,400}", check.detail), check
            for secret in ("not authorized", "arn:", "111122223333", "DeputyBroker"):
                assert secret not in check.detail, script
            assert GRANT.external_id not in check.detail, script
    assert proven == ([CLOSED] if right_account and same_role else [])


def test_details_help():
    [_, _, missing, foreign] = prove(Door((ACCEPTED,) * 4), GRANT, no_stranger).checks
    assert '"StringEquals": {"sts:ExternalId": "<External ID>"}' in missing.detail
    assert "StringLike" in foreign.detail

    def detail_of_own(*script, **door):
        return prove(Door(script, **door), GRANT, no_stranger).checks[0].detail

    assert detail_of_own(*(MISCONFIGURED,) * 4) == "The account has switched STS off."
    assert detail_of_own(ACCEPTED, REFUSED, REFUSED, UNAVAILABLE) == AWS_SILENT, (
        "and not that the role is new"
    )
    made_again = detail_of_own(*CLOSED, roles=("AROAONE", "AROATWO"))
    assert "refusals prove nothing yet" in made_again


# --- the routine proof ---


def test_a_routine_proof_decides_by_two_refusals_or_one_acceptance_of_the_proven_role():
    for script in itertools.product(ANSWERS, repeat=3):
        door = Door((ACCEPTED, *script))
        finding, expected = prove_routinely(door, GRANT, "AROAONE", no_stranger), None
        if script[2] != REFUSED and ACCEPTED in script[:2]:
            expected = Verdict.INSECURE  # though a full proof might find nothing a moment later
        elif script == (REFUSED, REFUSED, ACCEPTED):
            expected = Verdict.PROVEN
        assert (finding and finding.verdict) == expected, script
        assert door.calls[:2] == ["missing", "foreign"]
    assert prove_routinely(Door(CLOSED), GRANT, "AROATWO", no_stranger) is None


@pytest.mark.parametrize("outcome", ["passed", "failed", "skipped", "inconclusive", None])
def test_the_stranger_is_tried_in_both_proofs(outcome):
    check = None if outcome is None else ProofCheck("stranger_refused", outcome, "…")

    def check_stranger(grant):
        assert grant is GRANT
        return check

    finding = prove(Door(CLOSED), GRANT, check_stranger)
    verdicts = {"failed": Verdict.INSECURE, "inconclusive": Verdict.INCONCLUSIVE}
    assert finding.verdict is verdicts.get(outcome, Verdict.PROVEN)
    assert finding.checks[4:] == ((check,) if outcome else ())
    routine = prove_routinely(Door(CLOSED), GRANT, "AROAONE", check_stranger)
    if outcome in {"failed", "inconclusive"}:  # a full proof stops there
        assert (routine and routine.verdict) == {"failed": Verdict.INSECURE}.get(outcome)
    else:
        assert routine == finding


# --- patience ---


@pytest.fixture
def sleeps(monkeypatch):
    """The pauses, which are not slept; the clock moves on by them."""
    slept = []
    monkeypatch.setattr(verification.time, "sleep", slept.append)
    monkeypatch.setattr(verification.time, "monotonic", lambda: sum(slept))
    return slept


def prove_patiently(door, patience):
    plan = RotationPlan(Connection(), (GRANT,), {}, frozenset())
    return (
        verification.Verification(None, None, NO_CANARY, PermissionSets(), door)
        ._prove_patiently(plan, Trigger.CREATED, patience)
        .finding
    )


def refusing(times):
    """A role that refuses its own ID so many times, and is then a good role."""
    own = itertools.chain(itertools.repeat(REFUSED, times), itertools.repeat(ACCEPTED))
    return Door((own, *CLOSED[1:]))


def test_a_role_that_is_seconds_old_is_tried_again_until_patience_ends(sleeps):
    door = refusing(3)
    assert prove_patiently(door, 5.0).verdict is Verdict.PROVEN
    assert (sleeps, door.calls.count("own")) == ([0.25, 0.5, 0.75], 4)
    sleeps.clear()
    assert prove_patiently(refusing(1000), 5.0).verdict is Verdict.UNASSUMABLE
    assert 4 < sum(sleeps) <= 5


def test_a_role_is_tried_once_without_patience_and_where_waiting_changes_nothing(sleeps):
    door, words = refusing(1), {answer[0]: answer for answer in ANSWERS}
    assert prove_patiently(door, 0.0).verdict is Verdict.UNASSUMABLE
    assert door.calls == ["own"]
    for script in ("uaaa", "maaa", "aara", "arua", "arra"):
        prove_patiently(Door([words[letter] for letter in script]), 5.0)
        assert sleeps == [], script


# --- storing: a verdict counts for the version that was tested, and for no other ---


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
        connection = Connection(
            tenant_id=tenant.id,
            external_id_id=own.id,
            role_arn="arn:aws:iam::444455556666:role/deputy-x",
            account_id="444455556666",
            permission_set="inventory",
        )
        db.add(connection)
    return connection


def verify(database, stored, door, trigger=Trigger.REQUESTED):
    return verification.Verification(
        database, RoutineInterval(database, CONFIG).current, NO_CANARY, PermissionSets(), door
    ).verify(ADMIN, stored.tenant_id, stored.id, trigger=trigger)


def changing(database, stored, change, times=1, script=CLOSED):
    """A door at which the connection changes during each of the first proofs."""

    def act():
        with database.write(SYSTEM) as db:
            change(db.get(Connection, stored.id))

    return Door(script, meanwhile=[act] * times)


def read(database, stored):
    """The connection's status, and how many proofs it has."""
    with database.read() as db:
        proofs = db.scalars(select(Proof.id).where(Proof.connection_id == stored.id)).all()
        return db.get(Connection, stored.id).status, len(proofs)


def bump(connection):
    connection.version += 1


def test_a_verdict_on_an_older_version_is_dropped_and_the_proof_made_again(database, stored):
    door = changing(database, stored, bump, times=3)
    with pytest.raises(ConflictError):
        verify(database, stored, door)
    assert door.calls.count("missing") == 3, "it kept changing"
    assert read(database, stored) == (ConnectionStatus.PENDING, 0)
    door = changing(database, stored, bump)
    tested = verify(database, stored, door)
    assert (tested.status, tested.role_unique_id) == (ConnectionStatus.VERIFIED, "AROAONE")
    assert [check["name"] for check in tested.proof.checks][:4] == NAMES
    assert door.calls.count("missing") == 2
    assert read(database, stored) == (ConnectionStatus.VERIFIED, 1)


def test_what_was_made_due_meanwhile_stays_due(database, stored):
    """For a reason that came after the calls, which this proof does not answer."""
    soon = now() + timedelta(seconds=7)

    def make_due(connection):
        connection.due_at, connection.due_for = soon, Trigger.ISSUING

    tested = verify(database, stored, changing(database, stored, make_due))
    assert tested.status is ConnectionStatus.VERIFIED
    assert (tested.due_at, tested.due_for) == (soon, Trigger.ISSUING)


def test_a_drift_is_counted_and_on_record_with_its_checks(database, stored):
    def counted():
        return (
            REGISTRY.get_sample_value("deputy_drift_exposed_seconds_count", {"status": "insecure"})
            or 0
        )

    verify(database, stored, Door(CLOSED))
    before = counted()
    tested = verify(database, stored, Door(OPEN))
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


def overtaken(database, stored, script, trigger=Trigger.REQUESTED):
    """A door whose first proof is slow: another proof begins later and is stored before it.

    The role answers by the script from then on. To the slow proof it had answered as a good role.
    """
    missing = itertools.chain([REFUSED], itertools.repeat(script[1]))
    quicker = partial(verify, database, stored, Door(script), trigger)
    return Door((ACCEPTED, missing, REFUSED, ACCEPTED), meanwhile=[quicker])


@pytest.mark.parametrize(("trigger", "proofs"), [(Trigger.REQUESTED, 3), (Trigger.SCHEDULED, 2)])
def test_a_slow_proof_does_not_overrule_an_insecure_verdict_stored_meanwhile(
    database, stored, trigger, proofs
):
    """A second insecure verdict leaves the version as it is, so the latest proof has to be compared
    too. A routine proof counts up in the row of the first.
    """
    verify(database, stored, Door(OPEN))
    slow = overtaken(database, stored, OPEN, trigger)
    assert verify(database, stored, slow).status is ConnectionStatus.INSECURE
    assert slow.calls.count("missing") == 2
    assert read(database, stored) == (ConnectionStatus.INSECURE, proofs)


def test_two_proofs_at_once_with_one_verdict_are_both_stored(database, stored):
    verify(database, stored, Door(CLOSED))
    slow = overtaken(database, stored, CLOSED)
    assert verify(database, stored, slow).status is ConnectionStatus.VERIFIED
    assert slow.calls.count("missing") == 1
    assert read(database, stored) == (ConnectionStatus.VERIFIED, 3)
