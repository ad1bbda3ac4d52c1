"""What two versions of a permission set differ in, in words for the customer's administrator."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, strategies as st

from app.permissions import permission_sets
from app.permissions.difference_in_words import difference
from app.permissions.permission_sets import PermissionSet, read_document

SET = permission_sets.load()["inventory"]
[FIRST, *REST] = SET.statements
AUDIT, BUCKET, GUARD, SECURE = yaml.safe_load("""
- {name: SecurityAudit, why: Reads all settings.}
- name: Bucket
  pattern: "[a-z]{3}"
  description: The bucket with your reports
  example: abc
- Sid: Guard
  why: Keeps us out.
  Effect: Deny
  Action: ["s3:Get*", "s3:Put*"]
  Resource: "*"
- Bool: {"aws:SecureTransport": "true"}
""")
BASE = replace(SET, statements=(FIRST, GUARD), managed_policies=(AUDIT,), parameters=(BUCKET,))
READS = f"{FIRST['Sid']}: {FIRST['why']}"


def words(**changes):
    return list(difference(BASE, replace(BASE, **changes)).words())


def has_anything(found):
    return any([found.changed, *found.added, *found.removed])


# What changes: of the set, of its first statement, or of the one that guards; and what is said.
SENTENCES = yaml.safe_load("""
- - {set: {access: write}}
  - [Its access changes from read to write.]
- - {set: {managed_policies: []}}
  - ["Takes away AWS's own policy SecurityAudit: Reads all settings."]
- - {first: {Action: [<its own>, "s3:GetBucketAcl"]}}
  - ["<first> It also allows s3:GetBucketAcl."]
- - {first: {Action: [<its own but one>]}}
  - [<first> It no longer allows s3:GetAccountPublicAccessBlock.]
- - {guard: {Action: "s3:Get*"}}
  - ["Guard: Keeps us out. It no longer denies s3:Put*."]
- - {guard: {Action: ["s3:Get*", "s3:Put*", "s3:List*"]}}
  - ["Guard: Keeps us out. It also denies s3:List*."]
- - {first: {Resource: ["arn:aws:s3:::a"]}}
  - ["<first> It also applies to arn:aws:s3:::a. It no longer applies to *."]
- - {first: {Condition: {Bool: {"aws:SecureTransport": "true"}}}}
  - - '<first> Its Condition changes from none to {"Bool": {"aws:SecureTransport": "true"}}.'
- - {guard: {Action: "s3:Get*", Resource: a, why: Keeps us out of most.}}
  - - "Guard: Keeps us out of most. It no longer denies s3:Put*. It also applies to a. It no longer
       applies to *."
- - {guard: {Effect: Allow}}
  - - May use s3:Get*, s3:Put*.
    - "Guard: Keeps us out. Its Effect changes from Deny to Allow."
- - {parameters: []}
  - ["No longer asks for Bucket: The bucket with your reports"]
- - {parameters: [{}, {name: Prefix}]}
  - ["Asks for Prefix: The bucket with your reports"]
- - {parameters: [{pattern: "[a-z]{4}"}]}
  - ["Bucket: Its pattern changes from [a-z]{3} to [a-z]{4}."]
""")


@pytest.mark.parametrize(("change", "sentences"), SENTENCES)
def test_each_thing_that_differs_is_a_sentence(change, sentences):
    """Of what it has, a set may ask for more or less."""
    first, guard = change.get("first", {}), change.get("guard", {})
    own = FIRST["Action"]
    actions = {"<its own>": own, "<its own but one>": own[1:]}
    if "Action" in first:
        action, *more = first["Action"]
        first = first | {"Action": [*actions[action], *more]}
    changes = {"statements": (FIRST | first, GUARD | guard)} | change.get("set", {})
    if "parameters" in change:
        changes["parameters"] = tuple(BUCKET | each for each in change["parameters"])
    assert words(**changes) == [text.replace("<first>", READS) for text in sentences]


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Other words", "version": 9, "statements": (GUARD, FIRST | {"why": "Others"})},
        {"parameters": (BUCKET | {"description": "Other words", "example": "xyz"},)},
    ],
)
def test_words_and_order_alone_are_no_difference(change):
    assert words(**change) == []


def test_an_action_that_is_allowed_elsewhere_is_told_where_it_widens():
    narrow, wide = yaml.safe_load("""
    - {Sid: One, why: x, Effect: Allow, Action: "s3:GetObject", Resource: a}
    - {Sid: All, why: x, Effect: Allow, Action: ["s3:ListBucket"], Resource: "*"}
    """)
    before = replace(SET, statements=(narrow, wide))
    after = replace(SET, statements=(narrow, wide | {"Action": ["s3:ListBucket", "s3:GetObject"]}))
    assert list(difference(before, after).words()) == ["All: x It also allows s3:GetObject."]


def test_a_statement_that_goes_or_comes_says_what_it_has():
    before = replace(SET, statements=(FIRST | {"Action": "s3:GetObject"},))
    after = replace(SET, statements=(GUARD | {"Resource": ["a", "b"], "Condition": SECURE},))
    assert list(difference(before, after).words()) == [
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
    return (PermissionSet(**given_words, **lists), normal)


@given(leaves=st.fixed_dictionaries(_LEAVES), data=st.data())
def test_no_change_is_without_a_word(leaves, data):
    leaf = data.draw(st.sampled_from(sorted(leaves)))
    one, asked = made_of(leaves)
    other, asked_now = made_of(leaves | {leaf: data.draw(_LEAVES[leaf])})
    found = difference(one, other)
    said = list(found.words())
    assert (said == []) is (asked == asked_now), (leaf, said)
    assert has_anything(found) is bool(said)
    assert (one.document() == other.document()) is (said == []), "nor is it published as the same"
    assert read_document(other.document(), "x", 1).document() == other.document()
    assert (list(difference(other, one).words()) == []) is (said == [])
