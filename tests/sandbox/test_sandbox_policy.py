"""The evaluator by itself: what no trust policy over HTTP shows, and the documents that it must
refuse.
"""

import json

import pytest

from sandbox.policy import (
    Caller,
    Decision,
    Grant,
    Kind,
    Request,
    UnsupportedPolicy,
    check_document,
    evaluate_identity,
    evaluate_resource,
)

USER = Caller(
    Kind.USER,
    "111122223333",
    "arn:aws:iam::111122223333:user/u",
    "arn:aws:iam::111122223333:user/u",
    "AIDA",
)
ROLE = "arn:aws:iam::111122223333:role/R"
SESSION = Caller(
    Kind.SESSION,
    "111122223333",
    "arn:aws:sts::111122223333:assumed-role/R/s",
    ROLE,
    "AROAABCDEFGHIJKLMNOP:s",
)


def policy(*statements, version="2012-10-17"):
    return json.dumps({"Version": version, "Statement": list(statements)})


def trust(principal="*", **more):
    return policy({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole", **more})


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        ({"NumericLessThanEquals": {"k": 5}}, {"k": "5"}, True),
        ({"DateLessThan": {"k": "2026-01-01T00:00:00Z"}}, {"k": "2025-12-31T23:59:59Z"}, True),
        ({"DateGreaterThanEquals": {"k": "1700000000"}}, {"k": "2023-11-14T22:13:20Z"}, True),
        ({"ArnLike": {"k": "arn:aws:iam::*:role/a"}}, {"k": "arn:aws:iam::1:role/a"}, True),
        ({"ArnLike": {"k": "arn:aws:*:role/a"}}, {"k": "arn:aws:iam::1:role/a"}, None),
        ({"IpAddress": {"k": "10.0.0.0/8"}}, {"k": "10.1.2.3"}, True),
        ({"StringLike": {"k": "${v}*"}}, {"k": "a*b", "v": "a*"}, True),
        (
            {"StringLike": {"k": "${v}"}},
            {"k": "aab", "v": "a*"},
            False,
        ),  # a variable's star is a star
        ({"StringLike": {"k": "${*}"}}, {"k": "x"}, False),
        ({"StringEquals": {"k": []}}, {"k": "x"}, None),
        ({"Bool": {"k": "yes"}}, {"k": "true"}, None),
        ({}, {}, None),
    ],
)
def test_other_operators(condition, context, holds):
    request = Request("sts:AssumeRole", "r", context)
    if holds is None:
        with pytest.raises(UnsupportedPolicy):
            evaluate_resource(trust(Condition=condition), USER, request, trust=True)
    else:
        assert (
            evaluate_resource(trust(Condition=condition), USER, request, trust=True) > 0
        ) is holds


@pytest.mark.parametrize(
    ("principal", "grant"),
    [
        ({"AWS": "111122223333"}, Grant.ACCOUNT),
        ({"AWS": ROLE}, Grant.PRINCIPAL),
        ({"AWS": SESSION.arn}, Grant.SESSION),
        ({"AWS": "AROAABCDEFGHIJKLMNOP"}, Grant.PRINCIPAL),
        ({"AWS": ["999999999999", "*"]}, Grant.PRINCIPAL),
        ({"AWS": f"{SESSION.arn}x"}, Grant.NONE),
        ({"Service": "ec2.amazonaws.com"}, Grant.NONE),
    ],
)
def test_how_a_session_is_named(principal, grant):
    assert (
        evaluate_resource(trust(principal), SESSION, Request("sts:AssumeRole", "r"), trust=True)
        is grant
    )


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        json.dumps({"Version": "2020-01-01", "Statement": []}),
        policy({"Effect": "Permit", "Action": "*", "Resource": "*"}),
        policy({"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}),
        policy({"Effect": "Allow", "Action": "*"}),
        policy({"Effect": "Allow", "Action": "*", "Resource": "*", "Surprise": 1}),
    ],
)
def test_malformed_documents_are_refused(text):
    with pytest.raises(UnsupportedPolicy):
        check_document(text)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ({"Action": "sts:Assume*", "Resource": "arn:aws:iam::*:role/deputy-*"}, True),
        ({"Action": "STS:assumerole", "Resource": "arn:aws:iam::*:role/*/deputy-*"}, False),
        ({"NotAction": "s3:*", "Resource": "*"}, True),
        ({"NotAction": "sts:*", "Resource": "*"}, False),
        ({"Action": "*", "NotResource": "arn:aws:iam::1:role/deputy-x"}, False),
        ({"Action": "*", "NotResource": "arn:aws:iam::2:*"}, True),
    ],
)
def test_actions_and_resources(statement, allowed):
    decision = evaluate_identity(
        [policy({"Effect": "Allow", **statement})],
        Request("sts:AssumeRole", "arn:aws:iam::1:role/deputy-x"),
    )
    assert (decision is Decision.ALLOWED) is allowed
