"""Faults on demand, in Python and over HTTP."""

import json
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import HTTPClientError

from tests.sandbox.sandbox_people import (
    CUSTOMER,
    DENIED,
    FOREIGN,
    OWN,
    VENDOR_ROOT,
    document,
    statement,
)

CONDITION = {"StringEquals": {"sts:ExternalId": OWN}}


@pytest.fixture
def role_arn(people):
    return people.role(VENDOR_ROOT, CONDITION)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("throttle", (400, "Throttling")),
        ("error", (500, "InternalFailure")),
        ("deny", DENIED),
        ("region_disabled", (403, "RegionDisabledException")),
        ("expired_token", (403, "ExpiredToken")),
        ("packed_policy_too_large", (400, "PackedPolicyTooLarge")),
    ],
)
def test_kinds(people, role_arn, kind, answer):
    people.sandbox.faults.add(kind, times=1)
    assert people.outcome(role_arn, OWN) == answer
    assert people.outcome(role_arn, OWN) == "allowed"
    assert [call.outcome for call in people.sandbox.sts_calls] == [answer[1], "allowed"]


def test_a_timeout_hangs_and_drops_the_connection(people, role_arn):
    people.sandbox.faults.add("timeout", seconds=0.1, times=1)
    start = time.monotonic()
    with pytest.raises(HTTPClientError):
        people.assume(role_arn, OWN)
    assert time.monotonic() - start >= 0.1
    assert people.sandbox.sts_calls[-1].outcome == "dropped"


@pytest.mark.parametrize(
    ("matcher", "struck"),
    [("own", OWN), ("missing", None), ("foreign", FOREIGN), (FOREIGN, FOREIGN)],
)
def test_which_call_is_struck(people, role_arn, matcher, struck):
    people.sandbox.faults.add("throttle", external_id=matcher)
    for external_id in (OWN, None, FOREIGN):
        throttled = people.outcome(role_arn, external_id) == (400, "Throttling")
        assert throttled == (external_id == struck)


def test_a_role_spreads_after_it_is_made_and_after_its_trust_changes(people, monkeypatch):
    people.sandbox.faults.add("spreading", seconds=60)
    role = people.role(VENDOR_ROOT)
    assert people.outcome(role) == DENIED
    with monkeypatch.context() as patch:
        a_minute_later = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(minutes=1))
        patch.setattr("sandbox.faults.datetime", a_minute_later)
        assert people.outcome(role) == "allowed"
    people.client("iam", CUSTOMER).update_assume_role_policy(
        RoleName=role.rpartition("/")[2], PolicyDocument=document(statement(Principal=VENDOR_ROOT))
    )
    assert people.outcome(role) == DENIED
    people.sandbox.faults.clear()
    assert people.outcome(role) == "allowed"


def call(sandbox, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{sandbox.url}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_over_http(people, sandbox, role_arn):
    assert call(sandbox, "GET", "/_sandbox/health") == (200, {"status": "ok"})
    status, fault = call(
        sandbox, "POST", "/_sandbox/faults", {"kind": "throttle", "role_arn": role_arn, "times": 5}
    )
    assert (status, fault["kind"], fault["times"]) == (201, "throttle", 5)
    assert people.outcome(role_arn, OWN) == (400, "Throttling")
    assert call(sandbox, "DELETE", "/_sandbox/faults") == (204, None)
    assert people.outcome(role_arn, OWN) == "allowed"
    recorded = call(sandbox, "GET", "/_sandbox/calls")[1]["sts_calls"]
    assert [made["outcome"] for made in recorded] == ["Throttling", "allowed"]
    assert recorded[0]["role_arn"] == role_arn
