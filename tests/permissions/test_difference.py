"""What two versions of a permission set differ in, in words for the customer's administrator."""

from dataclasses import replace

import pytest

from app.permissions import permission_sets
from app.permissions.difference import asks_for, difference

SET = permission_sets.load()["inventory"]
[FIRST, *REST] = SET.statements
AUDIT = {"name": "SecurityAudit", "why": "Reads all settings."}


def words(**changes):
    return list(difference(SET, replace(SET, **changes)).words())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"title": "Other words", "version": 9}, []),
        ({"managed_policies": (AUDIT,)}, ["Adds AWS's own policy SecurityAudit: Reads all settings."]),
        (
            {"statements": (FIRST | {"Action": [*FIRST["Action"], "s3:GetBucketAcl"]}, *REST)},
            ["May use s3:GetBucketAcl."],
        ),
        (
            {"statements": (FIRST | {"Action": FIRST["Action"][1:]}, *REST)},
            ["May no longer use s3:GetAccountPublicAccessBlock."],
        ),
        (
            {"statements": (FIRST | {"Resource": ["arn:aws:s3:::a"]}, *REST)},
            ['ReadBucketSettings: its Resource changes from * to ["arn:aws:s3:::a"].'],
        ),
        (
            {"statements": (FIRST | {"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, *REST)},
            ['ReadBucketSettings: its Condition changes from none to {"Bool": {"aws:SecureTransport": "true"}}.'],
        ),
        ({"statements": (FIRST | {"Resource": ["*"], "Action": FIRST["Action"][::-1]}, *REST)}, []),
    ],
)
def test_each_thing_that_differs_is_a_sentence(change, said):
    assert words(**change) == said
    assert (asks_for(SET) == asks_for(replace(SET, **change))) is (said == [])


def test_a_statement_that_goes_takes_its_actions_along():
    before = replace(SET, managed_policies=(AUDIT,))
    after = replace(SET, statements=tuple(REST))
    said = list(difference(before, after).words())
    assert said[0].startswith("May no longer use s3:GetAccountPublicAccessBlock, s3:GetBucketLocation, ")
    assert said[1:] == [
        "Takes away AWS's own policy SecurityAudit: Reads all settings.",
        "Takes away the statement ReadBucketSettings: Shows which buckets are public, encrypted, versioned and tagged.",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"access": "write"},
        {"parameters": ({"name": "Bucket", "pattern": "a+", "description": "x", "example": "a"},)},
        {"statements": (FIRST | {"Effect": "Deny"}, *REST)},
    ],
)
def test_what_else_makes_a_version(change):
    assert asks_for(SET) != asks_for(replace(SET, **change))
