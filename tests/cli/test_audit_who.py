"""`audit who`: whose a session in a line of CloudTrail is."""

import re
from datetime import timedelta
from uuid import UUID

import pytest

from app.aws.session_names import ProofNames, session_name
from app.clock import now
from app.ids import RoleArn, first_id_at, new_id
from app.store.database import SYSTEM
from app.store.models import AuditEvent
from tests.cli.conftest import Cli
from tests.support.cast import path_of
from tests.support.rows import place

ROLE = RoleArn.parse("arn:aws:iam::444455556666:role/deputy-nowhere")
ELSEWHERE = "arn:aws:iam::444455556666:role/deputy-elsewhere"


@pytest.fixture
def issued(world):
    """A session that was handed out three times, by a key without a tenant: its last event."""
    connection = world.connection()
    worker = world.key("credentials:issue")
    for reason in ("the first", "the second", "the third"):
        worker("POST", path_of(connection, "/credentials"), {"reason": reason})
    [event, *_] = world.audit(connection_id=connection["id"], action="credentials.issued")
    return {**event["details"], "connection": connection, "key_id": event["actor"]["id"]}


def test_a_hand_out_is_found_by_the_session_and_by_its_name(cli, issued):
    connection, role = issued["connection"], issued["connection"]["role_arn"]
    name, session = issued["session_name"], issued["access_key_id"]
    account, role_name = role.split(":")[4], role.rpartition("/")[2]
    arn = f"arn:aws:sts::{account}:assumed-role/{role_name}/{name}"
    ways = (session, f"{session} --role {role}", name, f"{name} --role {role}", arn)
    answers = [cli(f"audit who {words}") for words in (*ways, f"AROAEXAMPLE:{name}")]
    assert answers == answers[:1] * len(answers)
    row = answers[0]
    assert row["answer"] == "Deputy handed out credentials of this session."
    expected = {"access_key_id": session, "session_name": name, "role_arn": role, "hand_outs": 3}
    expected |= {"api_key": "a program", "api_key_id": issued["key_id"]}
    expected |= {"tenant_id": connection["tenant_id"], "connection_id": connection["id"]}
    assert row | expected == row
    latest = [
        f"{each['reason']} {each['source']} {each['client_address']}" for each in row["latest"]
    ]
    hand_outs = ("the third cache", "the second cache", "the first sts")
    assert latest == [f"{hand_out} 127.0.0.1" for hand_out in hand_outs]
    text = cli.text(f"audit who '{session}'")
    assert text.startswith("Deputy handed out credentials")
    assert "accessKeyId" in text


def test_another_role_than_the_sessions_is_an_error(cli, world, issued):
    proof = world.calls_for(world.proven()["role_arn"])[0]
    for session in (issued["access_key_id"], proof.session_name):
        assert "of another role" in cli.refused(f"audit who '{session}' --role '{ELSEWHERE}'")


def test_a_proof_is_found_by_its_name_with_its_role_and_without(cli, world, monkeypatch):
    monkeypatch.setattr("app.issuing.session_origins._ROLES", 2)
    world.connection(), world.connection()
    connection = world.proven()
    for call in world.calls_for(connection["role_arn"]):
        for words in ("", f"--role {connection['role_arn']}"):
            row = cli(f"audit who {call.session_name} {words}")
            assert row["answer"].startswith("Deputy proved or diagnosed the role")
            assert "opened from the account 111122223333" in row["to_do"]
            assert row["role_arn"] == connection["role_arn"]
            assert [each["connection_id"] for each in row["connections"]] == [connection["id"]]
    world.admin("DELETE", path_of(connection), expect=204)
    [left] = cli(f"audit who {call.session_name}")["connections"]
    assert left["status"] == "deleted", "a proof is still a proof"


def test_a_proof_of_a_role_that_two_tenants_have_names_both(app, cli):
    services = app.extensions["deputy"]
    both = {str(place(services).connection_id) for _ in range(2)}
    session = ProofNames(services.config.database.secret_keys).make(ROLE)
    row = cli(f"audit who '{session}' --role '{ROLE.text}'")
    assert both <= {each["connection_id"] for each in row["connections"]}


def test_a_proof_that_a_removed_secret_key_signed_is_found_with_that_key_again(config, start, cli):
    old, new = "o" * 40, "n" * 40
    name = ProofNames((old,)).make(ROLE)
    without = cli(f"audit who '{name}' --role '{ROLE.text}'")
    assert without["answer"].startswith("Deputy did not make this name with the secret keys")
    assert "at the end of the list" in without["to_do"]
    with_it = Cli(start({}, secret_keys=(new, old)))
    assert with_it(f"audit who '{name}' --role '{ROLE.text}'")["role_arn"] == ROLE.text


def test_a_name_that_a_customer_made_up_is_neither_an_issuance_nor_a_proof(cli, world, issued):
    """Whoever reads the role's CloudTrail knows ids of keys, and names of proofs of this role."""
    connection, copied = world.proven(), UUID(issued["key_id"])
    proof = world.calls_for(connection["role_arn"])[0].session_name
    key_of_proof, own_digits = proof.split("-")[1], issued["session_name"][-24:]
    begin = f"deputy-{key_of_proof}"
    for name in (session_name(new_id()), f"{begin}-{own_digits}", f"{begin}-{'0' * 24}"):
        row = cli(f"audit who '{name}' --role '{connection['role_arn']}'")
        assert "did not make this name" in row["answer"]
    for name in (session_name(copied), session_name(copied, proof[-24:])):
        for words in ("", f"--role {issued['connection']['role_arn']}", f"--role {ELSEWHERE}"):
            row = cli(f"audit who {name} {words}")
            assert "no hand-out of such a session is on record" in row["answer"]
            assert row["api_key_id"] == str(copied)


def test_another_name_is_not_deputys(cli):
    for name in ("alice@example.com", "deputy-x", "Deputy", "deputy-" + "g" * 57):
        assert "its names are deputy-" in cli(f"audit who '{name}'")["answer"]


def test_text_that_is_no_session_is_refused_in_a_line(cli):
    for text in ("", "x", "a b", "a" * 65, "\x1b[31mred", "٣" * 20, "arn:aws:iam::1:role/"):
        output = cli.text(f"audit who -- '{text}'", fails=2)
        assert "must be an access key id, or the name of a" in re.sub(r"[\s│]+", " ", output)
        assert "\x1b" not in output


def test_an_answer_says_how_far_back_the_log_reaches(app, cli, world, issued):
    """An event that is older than the log has left it, and so nobody can say that it was not
    there.
    """
    services = app.extensions["deputy"]
    row = cli("audit who ASIAEXAMPLEEXAMPLE01")
    assert row["answer"].startswith("No hand-out of a session")
    assert "months that you archived" in row["to_do"]
    oldest = now() - timedelta(days=1000)
    row = {"action": "tests.old", "outcome": "ok", "actor_kind": "worker", "actor_name": "x"}
    with services.db.write(SYSTEM) as db:
        db.add(AuditEvent(id=first_id_at(oldest), at=oldest, details={}, **row))
    name = session_name(UUID(issued["key_id"]))
    assert cli(f"audit who {name}")["log_begins_at"] == oldest.isoformat()
