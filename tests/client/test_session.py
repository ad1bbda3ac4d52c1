"""The session: it works in the customer's account, asks what it was told to ask, and keeps the
key to itself.
"""

import datetime as dt
import json
import sys
import uuid
from contextlib import closing

import botocore.exceptions
import deputy_client
import pytest

from tests.client.people import CustomerAccount, environment, issued, run, secret_of


def account_of(session):
    with closing(session.client("sts", region_name="us-east-1")) as sts:
        return sts.get_caller_identity()["Account"]


def test_a_session_works_in_the_customers_account(deputy, place):
    place.fill(1)
    session = place.session(region_name="us-east-1")
    with closing(session.client("s3")) as s3:
        assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [place.bucket]
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            s3.put_object(Bucket=place.bucket, Key="x", Body=b"")
    assert account_of(session) == place.customer.account
    assert session.region_name == "us-east-1"
    credentials = session.get_credentials()
    assert credentials.method == "deputy"
    # DynamoDB's endpoints hold the account
    assert credentials.get_frozen_credentials().account_id == place.customer.account
    assert len(deputy.requests) == 1, "what the role may not do is not reported"


def test_a_session_asks_for_what_it_was_told_to(deputy, place):
    """Ids may be UUIDs, and a policy may be text."""
    narrow = {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Deny", "Action": "s3:*", "Resource": "*"},
    }
    for ids, policy in ((place.ids, narrow), (map(uuid.UUID, place.ids), json.dumps(narrow))):
        session = deputy_client.session(
            *ids,
            key=place.key,
            duration_seconds=900,
            session_policy=policy,
            reason="nightly scan",
            region_name="us-east-1",
        )
        with (
            closing(session.client("s3")) as s3,
            pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"),
        ):
            s3.list_buckets()
    [event, *_] = place.world.audit(connection_id=place.ids[1], action="credentials.issued")
    assert event["details"]["reason"] == "nightly scan"
    assert event["details"]["duration_seconds"] == 900


def test_the_key_comes_from_the_file_then_from_the_variable(deputy, place, monkeypatch, tmp_path):
    monkeypatch.setenv("DEPUTY_API_KEY", place.key)
    assert deputy_client.session(*place.ids)
    monkeypatch.setenv("DEPUTY_API_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_text(f"{place.key}\n")
    monkeypatch.setenv("DEPUTY_API_KEY", "dpk_wrong")
    assert deputy_client.session(*place.ids)
    with pytest.raises(deputy_client.NotPermitted):
        deputy_client.session(*place.ids, key="dpk_wrong")


def test_two_customers_do_not_mix_and_no_variable_of_aws_gets_between(
    deputy, place, world, monkeypatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "999999999999")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sandbox")
    places = (place, CustomerAccount(world))
    sessions = [each.session() for each in places]
    accounts = [each.customer.account for each in places]
    assert [account_of(session) for session in sessions] == accounts


class SignedError(Exception):
    """Ends a call before it is sent."""


@pytest.mark.usefixtures("deputy")
@pytest.mark.parametrize(
    ("service", "call", "wanted"),
    [
        ("bedrock", "list_foundation_models", {}),
        ("bedrock-runtime", "invoke_model", {"modelId": "a-model", "body": b"{}"}),
        ("s3", "list_buckets", {}),
    ],
)
def test_every_service_is_called_with_the_sessions_credentials(
    place, monkeypatch, service, call, wanted
):
    """A program may have a key for Bedrock, which botocore would prefer."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "the-programs-own-key")
    session = place.session()

    def end(request, **_event):
        raise SignedError(request.headers["Authorization"])

    with closing(session.client(service, region_name="us-east-1")) as client:
        client.meta.events.register("before-send", end)
        with pytest.raises(SignedError, match=f"={session.get_credentials().access_key}/"):
            getattr(client, call)(**wanted)


def test_over_tls_with_an_authority_of_ones_own(secure, place, deputy, monkeypatch, pauses):
    with pytest.raises(deputy_client.Unreachable, match="certificate"):
        place.session(url=secure.url)
    assert deputy.requests == []
    assert pauses == []
    monkeypatch.setenv("DEPUTY_CA_BUNDLE", str(secure.ca))
    assert place.session(url=secure.url)
    with pytest.raises(
        deputy_client.Unreachable, match=r"127\.0\.0\.2"
    ):  # not a name that it vouches for
        place.session(url=secure.url.replace("localhost", "127.0.0.2"))


def test_proxies_count_for_https_and_never_within_this_machine(deputy, place, monkeypatch, pauses):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(deputy_client.Unreachable, match="proxy"):
        place.session(url="https://deputy.example.com")
    assert place.session()


CHATTY = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
import deputy_client
session = deputy_client.session(*sys.argv[1:])
credentials = session.get_credentials()
print(repr(session), repr(credentials), vars(credentials)["_service"], file=sys.stdout)
frozen = credentials.get_frozen_credentials()
print(frozen.secret_key, frozen.token, file=sys.stderr)
"""


def test_a_session_shows_no_key_and_no_credentials(deputy, place):
    """In a process of its own: in this one, the service logs as well."""
    env = environment(DEPUTY_URL=deputy.url, DEPUTY_API_KEY=place.key)
    done = run(sys.executable, "-c", CHATTY, *place.ids, env=env)
    secrets = [place.key, secret_of(place.key), *done.stderr.split()]
    assert len(secrets) == 4, done.stderr
    assert "urllib3.connectionpool" in done.stdout
    assert not [secret for secret in secrets if secret in done.stdout]


def test_a_deputy_that_does_not_tell_the_account_will_do(deputy, place):
    end = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    deputy.answer_first(issued(end))
    credentials = place.session().get_credentials()
    assert credentials.get_frozen_credentials().account_id is None
