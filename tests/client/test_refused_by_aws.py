"""AWS does not take what Deputy issued: the client says so, once a minute, and asks for other
credentials.
"""

import logging
import threading
from contextlib import closing

import boto3
import botocore.exceptions
import deputy_client
import pytest
from deputy_client import credentials, refusals
from deputy_client.service import Service

from tests.client.people import CustomerAccount


@pytest.fixture
def moment(monkeypatch) -> list[float]:
    """The clock that counts the minute between two reports; stands still."""
    now = [1000.0]
    monkeypatch.setattr(refusals, "monotonic", lambda: now[0])
    monkeypatch.setattr(credentials, "_reports", refusals.Gate())
    return now


def asked(deputy):
    return [request["PATH_INFO"].rpartition("/")[2] for request in deputy.requests]


def refusal_of(session, **options):
    with closing(session.client("sts", region_name="us-east-1", **options)) as sts:
        try:
            sts.get_caller_identity()
        except botocore.exceptions.ClientError as error:
            return str(error.response["Error"]["Code"])
    return "none"


def test_a_refusal_is_reported_once_a_minute_however_many_sessions_meet_it(
    deputy, place, world, moment
):
    """Another connection's report does not wait."""
    sessions = [place.session() for _ in range(2)]
    place.customer.remove_role(place.role_name)
    for session in sessions * 3:
        assert refusal_of(session) == "InvalidClientTokenId"
    assert asked(deputy).count("report-refused") == 1
    other = CustomerAccount(world)
    assert deputy_client.report_refused(other.session())
    [event] = place.world.audit(connection_id=place.ids[1], action="connection.refusal_reported")
    assert event["outcome"] == "ok"
    moment[0] += 59
    assert not deputy_client.report_refused(sessions[0])
    moment[0] += 2
    assert deputy_client.report_refused(sessions[0])
    assert asked(deputy).count("report-refused") == 3


def test_the_next_call_asks_for_other_credentials(deputy, place, moment):
    """The customer made the role again, and Deputy proved it: a worker goes on without a
    restart.
    """
    session = place.session()
    trust = place.world.kit(place.tenant)["trust_policy"]
    place.customer.remove_role(place.role_name)
    place.customer.role(place.role_name, trust)
    place.admin("/verify")
    assert refusal_of(session) == "InvalidClientTokenId"
    assert refusal_of(session) == "none"
    assert asked(deputy) == ["credentials", "report-refused", "credentials"]


def test_a_thread_that_asks_while_the_report_is_on_its_way_ends_no_recovery(
    deputy, place, moment, monkeypatch
):
    """Until Deputy has the report, it answers with the same session."""
    session, report = place.session(), Service.report_refused
    trust = place.world.kit(place.tenant)["trust_policy"]
    place.customer.remove_role(place.role_name)
    place.customer.role(place.role_name, trust)

    def another_thread_first(service, question):
        moment[0] += 0.01
        other = threading.Thread(target=session.get_credentials().get_frozen_credentials)
        other.start()
        other.join()
        moment[0] += 0.01
        report(service, question)
        place.admin("/verify")

    monkeypatch.setattr(Service, "report_refused", another_thread_first)
    assert refusal_of(session) == "InvalidClientTokenId"
    moment[0] += 1
    assert refusal_of(session) == "none"


def test_an_expiry_is_reported_before_its_time_alone(deputy, place, moment, clock):
    session = place.session(duration_seconds=900)
    sts = session.client("sts", region_name="us-east-1")
    old = session.get_credentials().get_frozen_credentials()
    clock.shift(901)
    stale = {
        "aws_access_key_id": old.access_key,
        "aws_secret_access_key": old.secret_key,
        "aws_session_token": old.token,
    }
    assert refusal_of(session, **stale) == "ExpiredToken"
    assert sts.get_caller_identity()["Account"] == place.customer.account
    sts.close()
    assert "report-refused" not in asked(deputy)
    mine = session.get_credentials()
    mine.rejected(mine._issued.access_key_id, as_expired=True)
    assert asked(deputy).count("report-refused") == 1


def test_what_deputy_did_not_issue_is_not_reported(deputy, place, moment):
    """A key of the program's own, or one that deputy-credential-process made up to fail closed."""
    session = place.session()
    strange = {
        "aws_access_key_id": "ASIAMADEUPMADEUPMADE",
        "aws_secret_access_key": "x" * 40,
        "aws_session_token": "x" * 400,
    }
    assert refusal_of(session, **strange) == "InvalidClientTokenId"
    assert asked(deputy) == ["credentials"]
    with pytest.raises(deputy_client.ConfigurationError, match="deputy_client"):
        deputy_client.report_refused(boto3.session.Session(**strange))
    assert asked(deputy) == ["credentials"]


def test_a_report_that_fails_leaves_the_program_with_awss_error(deputy, place, moment, caplog):
    session = place.session()
    place.customer.remove_role(place.role_name)
    deputy.instead = lambda: (503, {}, b"")
    with caplog.at_level(logging.WARNING, logger="deputy_client"):
        assert refusal_of(session) == "InvalidClientTokenId"
    assert "Deputy could not be told" in caplog.text
    assert asked(deputy) == ["credentials", "report-refused"], "one attempt"
    moment[0] += 61
    with pytest.raises(deputy_client.Unreachable):
        deputy_client.report_refused(session)


def test_every_session_of_a_connection_recovers_by_one_report(deputy, place, moment):
    sessions = [place.session() for _ in range(3)]
    trust = place.world.kit(place.tenant)["trust_policy"]
    place.customer.remove_role(place.role_name)
    place.customer.role(place.role_name, trust)
    place.admin("/verify")
    for session in sessions:
        assert refusal_of(session) == "InvalidClientTokenId"
        assert refusal_of(session) == "none"


def test_refusals_for_another_reason_issue_once_more_a_minute(deputy, place, moment):
    """AWS refuses a session that works, for example in a region that is not enabled."""
    own = place.session().get_credentials()
    for _ in range(5):
        own.rejected(own.get_frozen_credentials().access_key, as_expired=False)
        moment[0] += 1
    assert asked(deputy).count("credentials") == 2
    assert asked(deputy).count("report-refused") == 1
