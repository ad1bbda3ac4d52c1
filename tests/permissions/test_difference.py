"""What two versions of a permission set differ in, in words for the customer's administrator."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from app.permissions import permission_sets
from app.permissions.difference import difference
from app.permissions.permission_sets import PermissionSet

SET = permission_sets.load()["inventory"]
[FIRST, *REST] = SET.statements
AUDIT = {"name": "SecurityAudit", "why": "Reads all settings."}
BUCKET = {
    "name": "Bucket",
    "pattern": "[a-z]{3}",
    "description": "The bucket with your reports",
    "example": "abc",
}
GUARD = {
    "Sid": "Guard",
    "why": "Keeps us out.",
    "Effect": "Deny",
    "Action": ["s3:Get*", "s3:Put*"],
    "Resource": "*",
}
SECURE = {"Bool": {"aws:SecureTransport": "true"}}
BASE = replace(SET, statements=(FIRST, GUARD), managed_policies=(AUDIT,), parameters=(BUCKET,))
READS = f"{FIRST['Sid']}: {FIRST['why']}"


def words(**changes):
    return list(difference(BASE, replace(BASE, **changes)).words())


def has_anything(found):
    return any([found.changed, *found.added, *found.removed])


def of_first(**changes):
    return {"statements": (FIRST | changes, GUARD)}


def of_guard(**changes):
    return {"statements": (FIRST, GUARD | changes)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"access": "write"}, ["Its access changes from read to write."]),
        (
            {"managed_policies": ()},
            ["Takes away AWS's own policy SecurityAudit: Reads all settings."],
        ),
        (
            of_first(Action=[*FIRST["Action"], "s3:GetBucketAcl"]),
            ["May use s3:GetBucketAcl.", f"{READS} It also allows s3:GetBucketAcl."],
        ),
        (
            of_first(Action=FIRST["Action"][1:]),
            [
                "May no longer use s3:GetAccountPublicAccessBlock.",
                f"{READS} It no longer allows s3:GetAccountPublicAccessBlock.",
            ],
        ),
        (of_guard(Action="s3:Get*"), ["Guard: Keeps us out. It no longer denies s3:Put*."]),
        (
            of_guard(Action=["s3:Get*", "s3:Put*", "s3:List*"]),
            ["Guard: Keeps us out. It also denies s3:List*."],
        ),
        (
            of_first(Resource=["arn:aws:s3:::a"]),
            [f"{READS} It also applies to arn:aws:s3:::a. It no longer applies to *."],
        ),
        (
            of_first(Condition=SECURE),
            [
                (
                    f"{READS} Its Condition changes from none to"
                    ' {"Bool": {"aws:SecureTransport": "true"}}.'
                )
            ],
        ),
        (
            of_guard(Action="s3:Get*", Resource="a", why="Keeps us out of most."),
            [
                (
                    "Guard: Keeps us out of most. It no longer denies s3:Put*."
                    " It also applies to a. It no longer applies to *."
                )
            ],
        ),
        (
            of_guard(Effect="Allow"),
            [
                "May use s3:Get*, s3:Put*.",
                "Guard: Keeps us out. Its Effect changes from Deny to Allow.",
            ],
        ),
        ({"parameters": ()}, ["No longer asks for Bucket: The bucket with your reports"]),
        (
            {"parameters": (BUCKET, BUCKET | {"name": "Prefix"})},
            ["Asks for Prefix: The bucket with your reports"],
        ),
        (
            {"parameters": (BUCKET | {"pattern": "[a-z]{4}"},)},
            ["Bucket: Its pattern changes from [a-z]{3} to [a-z]{4}."],
        ),
    ],
)
def test_each_thing_that_differs_is_a_sentence(change, said):
    assert words(**change) == said


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"title": "Other words", "version": 9},
        {"statements": (GUARD, FIRST)},
        {"parameters": (BUCKET | {"description": "Other words", "example": "xyz"},)},
        of_first(
            why="Other words",
            Resource=["*"],
            Action=[*FIRST["Action"][::-1], FIRST["Action"][0]],
            Condition={},
        ),
    ],
)
def test_words_and_order_alone_are_no_difference(change):
    assert words(**change) == []
    assert not has_anything(difference(BASE, replace(BASE, **change)))


def test_an_action_that_is_allowed_elsewhere_is_told_where_it_widens():
    narrow = {
        "Sid": "One",
        "why": "x",
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": "a",
    }
    wide = {
        "Sid": "All",
        "why": "x",
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": "*",
    }
    before = replace(SET, statements=(narrow, wide))
    after = replace(SET, statements=(narrow, wide | {"Action": ["s3:ListBucket", "s3:GetObject"]}))
    assert list(difference(before, after).words()) == ["All: x It also allows s3:GetObject."]


def test_a_statement_that_goes_or_comes_says_what_it_has():
    before = replace(SET, statements=(FIRST | {"Action": "s3:GetObject"},))
    after = replace(SET, statements=(GUARD | {"Resource": ["a", "b"], "Condition": SECURE},))
    assert list(difference(before, after).words()) == [
        "May no longer use s3:GetObject.",
        (
            'Adds the statement Guard: Keeps us out. It denies s3:Get*, s3:Put* on a, b if {"Bool":'
            ' {"aws:SecureTransport": "true"}}.'
        ),
        (
            "Takes away the statement ReadBucketSettings: Shows which buckets are public,"
            " encrypted, versioned and tagged. It allows s3:GetObject on *."
        ),
    ]


# --- no change is without a word ---

_TEXTS = st.sampled_from(["a:B", ["a:B"], ["a:C"], ["a:B", "a:C"], ["a:C", "a:B", "a:B"]])
_CONDITIONS = st.sampled_from(
    [None, {}, {"Bool": {"a": "1"}}, {"Bool": {"a": True}}, {"Bool": {"a": 1}}]
)
_PATTERNS = st.sampled_from([None, "a+", "b+"])
_LEAVES = {
    "access": st.sampled_from(["read", "write"]),
    **{
        f"{sid}.{field}": values
        for sid in ("A", "B")
        for field, values in {
            "there": st.booleans(),
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Action": _TEXTS,
            "Resource": _TEXTS,
            "Condition": _CONDITIONS,
        }.items()
    },
    "P": st.booleans(),
    "Q": st.booleans(),
    "X": _PATTERNS,
    "Y": _PATTERNS,
}


def _listed(value):
    return [value] if isinstance(value, str) else value


def made_of(leaves):
    """A set, and what it asks for, in one form only."""
    statements = []
    for sid in ("A", "B"):
        if leaves[f"{sid}.there"]:
            fields = {
                key: leaves[f"{sid}.{key}"] for key in ("Effect", "Action", "Resource", "Condition")
            }
            statements.append({"Sid": sid, "why": "x"} | fields)
    policies = [{"name": name, "why": "x"} for name in ("P", "Q") if leaves[name]]
    parameters = [
        BUCKET | {"name": name, "pattern": leaves[name]} for name in ("X", "Y") if leaves[name]
    ]
    lists = {"statements": statements, "managed_policies": policies, "parameters": parameters}
    given_words = {
        "name": "x",
        "version": 1,
        "title": "x",
        "description": "x",
        "access": leaves["access"],
    }
    asked = [
        one | {field: sorted({*_listed(one[field])}) for field in ("Action", "Resource")}
        for one in statements
    ]
    asked = [one | {"Condition": one["Condition"] or None} for one in asked]
    normal = repr((leaves["access"], asked, policies, parameters))
    return (
        PermissionSet(**given_words, **{key: tuple(value) for key, value in lists.items()}),
        normal,
    )


@given(leaves=st.fixed_dictionaries(_LEAVES), data=st.data())
def test_no_change_is_without_a_word(leaves, data):
    leaf = data.draw(st.sampled_from(sorted(leaves)))
    one, asked = made_of(leaves)
    other, asked_now = made_of(leaves | {leaf: data.draw(_LEAVES[leaf])})
    found = difference(one, other)
    said = list(found.words())
    assert (said == []) is (asked == asked_now), (leaf, said)
    assert has_anything(found) is bool(said)
    assert (list(difference(other, one).words()) == []) is (said == [])
