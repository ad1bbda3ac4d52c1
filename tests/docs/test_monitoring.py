"""What the guide says of the proofs' calls in CloudTrail: how many they are, and filters that are
quiet about the refused ones, and about nothing else.
"""

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern, EventPatternParser

from tests.conftest import make_config
from tests.support.databases import NOWHERE

GUIDE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
SHOWN = GUIDE.partition("\n### Keep alarms quiet about proofs\n")[2]
CLOUDWATCH = re.search(r"^```\n(\{.*?\})\n```$", SHOWN, re.MULTILINE | re.DOTALL)[1]
EVENTBRIDGE = re.search(r"^```json\n(.*?)```$", SHOWN, re.MULTILINE | re.DOTALL)[1]
ISSUER = "userIdentity.sessionContext.sessionIssuer.arn"

Event = dict[str, Any]


def role(arn="arn:aws:iam::111122223333:role/DeputyBroker"):
    """userIdentity, as CloudTrail records a session of this role."""
    session = arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + "/deputy"
    return {
        "type": "AssumedRole",
        "arn": session,
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": arn}},
    }


def user(arn):
    return {"type": "IAMUser", "arn": arn}


def call(identity, name="AssumeRole", error="AccessDenied"):
    return {"userIdentity": identity, "eventName": name} | ({"errorCode": error} if error else {})


QUIET = [
    call(role()),
    call(role(), error=None),
    call(user("arn:aws:iam::111122223333:user/ann"), error=None),
]
LOUD = [
    call(role("arn:aws:iam::111122223333:role/Another")),
    call(role("arn:aws:iam::444455556666:role/DeputyBroker")),
    call(role("arn:aws:iam::111122223333:role/DeputyBroker2")),
    call(user("arn:aws:iam::111122223333:user/DeputyBroker")),
    call({"type": "AWSService", "invokedBy": "ec2.amazonaws.com"}),
    call(role(), name="ListRoles"),
    call(role(), name="AssumeRoleWithSAML"),
    call(role(), name="Decrypt", error="AccessDeniedException"),
]


def metric_filter(pattern):
    """CloudWatch's pattern, in the forms that the guide uses. `!=` is false for a field that is
    not there.
    """
    term = r'\$\.([\w.]+) (?:(!?=) "([^"]*)"|NOT EXISTS)'
    rest = re.sub(rf"{term}|&&|\|\||[(){{}}\s]", "", pattern)
    assert rest == "", f"{rest}: the test knows no such form"

    def said(found, event):
        path, operator, wanted = found.groups()
        value = event
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if operator is None or value is None:
            return str(operator is None and value is None)
        return str(fnmatchcase(value, wanted) == (operator == "="))

    def matches(event):
        text = re.sub(term, lambda found: said(found, event), pattern.strip("{} \n"))
        words = " ".join(text.replace("&&", " and ").replace("||", " or ").split())
        return bool(eval(words))  # noqa: S307  True, False, and, or, parentheses

    return matches


def rule(pattern):
    parsed = EventPattern(pattern, EventPatternParser(pattern).parse())
    return lambda event: parsed.matches_event(
        {"detail-type": "AWS API Call via CloudTrail", "detail": event}
    )


FILTERS = {"CloudWatch": metric_filter(CLOUDWATCH), "EventBridge": rule(EVENTBRIDGE)}


@pytest.mark.parametrize("filter_of", FILTERS)
def test_an_alarm_is_quiet_about_the_refused_calls_of_proofs_and_nothing_else(filter_of):
    matches = FILTERS[filter_of]
    assert [event for event in QUIET if matches(event)] == []
    assert [event for event in LOUD if not matches(event)] == []


def test_for_a_broker_that_is_a_user_its_own_arn_is_compared():
    broker = "arn:aws:iam::111122223333:user/deputy/broker"
    deep, flat = json.loads(EVENTBRIDGE), {"arn": [{"anything-but": broker}, {"exists": False}]}
    deep["detail"]["$or"][1] = {"userIdentity": flat}
    as_user = CLOUDWATCH.replace(ISSUER, "userIdentity.arn").replace(
        "arn:aws:iam::111122223333:role/DeputyBroker", broker
    )
    for matches in (metric_filter(as_user), rule(json.dumps(deep))):
        assert not matches(call(user(broker)))
        assert matches(call(user(broker), name="ListRoles"))
        for other in (user("arn:aws:iam::111122223333:user/ann"), role(), {"type": "AWSService"}):
            assert matches(call(other))


def test_the_price_of_a_day_is_that_of_the_default_interval():
    """For 10,000 connections: three calls each, of which a good role refuses two; with a
    stranger one more.
    """
    proofs = 10_000 * 86_400 // make_config(NOWHERE).proofs.reprove_every
    refused, events = 2 * proofs, 2 * proofs  # a customer sees the accepted call, and one GetRole
    row = (
        f"| vendor's | {3 * proofs:,}, {3 * proofs / 86_400:.1f} a second | {3 * proofs:,} in the"
        " broker's account, of which"
    )
    words = " ".join(GUIDE.split())
    assert f"{row} {refused:,} are `AccessDenied` |" in words
    assert (
        f"| customers | none | {events:,}, {events // 10_000} for each role in its account" in words
    )
    assert (
        f"{4 * proofs:,} calls a day, of which {proofs:,} are recorded as `AccessDenied` in the"
        " stranger's" in words
    )
