"""The values everything turns on, against generated ones: what is a role's ARN and what only
looks like one.
"""

import re
import string
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, example, given, strategies as st

from app.connections.kit_names import kit_role_name, stack_name
from app.ids import (
    EXTERNAL_ID_PATTERN,
    IMPORTED_EXTERNAL_ID,
    ExternalId,
    RoleArn,
    first_id_at,
    foreign_external_id,
    new_external_id,
    new_id,
    time_of,
)

DIGITS = string.digits
NAME = string.ascii_letters + string.digits + "_+=,.@-"
# IAM's paths: anything printable in ASCII but the space, between slashes.
PATH = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "/")

GOOD = "arn:aws:iam::444455556666:role/deputy-0123abcd"

partitions = st.one_of(
    st.sampled_from(["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-eusc"]),
    st.lists(st.text(string.ascii_lowercase + DIGITS, min_size=1, max_size=6), max_size=3).map(
        lambda parts: "-".join(["aws", *parts])
    ),
)
accounts = st.text(DIGITS, min_size=12, max_size=12)
paths = st.lists(st.text(PATH, min_size=1, max_size=30), max_size=5).map(
    lambda parts: "".join(f"/{part}" for part in parts) + "/"
)
names = st.text(NAME, min_size=1, max_size=64)


def is_role_arn(text):
    """What IAM's reference says, without a regular expression: the oracle."""
    parts = text.split(":", 5)
    if len(parts) != 6 or len(text) > 2048:
        return False
    arn, partition, service, region, account, resource = parts
    first, *more = partition.split("-")
    kind, *steps = resource.split("/")
    return (
        (arn, service, region, kind, first) == ("arn", "iam", "", "role", "aws")
        and all(part and set(part) <= set(string.ascii_lowercase + DIGITS) for part in more)
        and len(account) == 12
        and set(account) <= set(DIGITS)
        and len(steps) >= 1
        and all(step and set(step) <= set(PATH) for step in steps[:-1])
        and sum(len(step) + 1 for step in steps[:-1]) + 1 <= 512
        and 1 <= len(steps[-1]) <= 64
        and set(steps[-1]) <= set(NAME)
    )


@given(partitions, accounts, paths, names)
def test_every_role_arn_is_taken_apart_and_keeps_its_text(partition, account, path, name):
    text = f"arn:{partition}:iam::{account}:role{path}{name}"
    assert is_role_arn(text)
    role = RoleArn.parse(text)
    assert (role.partition, role.account_id) == (partition, account)
    assert (role.path, role.name) == (path, name)
    assert role.text == str(role) == text


@given(
    st.tuples(
        st.just("arn:"),
        st.one_of(partitions, st.text(max_size=8)),
        st.sampled_from(
            [":iam::", ":iam::", ":iam::", ":sts::", ":IAM::", ":iam:eu-west-1:", ":iam:", "::"]
        ),
        st.one_of(accounts, st.text(max_size=13)),
        st.sampled_from(
            [":role", ":role", ":role", ":user", ":assumed-role", ":Role", "/role", ":"]
        ),
        st.one_of(paths, st.text(max_size=12)),
        st.one_of(names, st.text(max_size=70)),
    )
)
def test_a_text_in_the_form_of_an_arn_is_read_as_the_oracle_reads_it(parts):
    assert_agrees("".join(parts))


@given(st.data())
def test_an_arn_with_one_character_changed_is_read_as_the_oracle_reads_it(data):
    at = data.draw(st.integers(0, len(GOOD)))
    what = data.draw(
        st.one_of(st.characters(), st.sampled_from(["", "/", ":", "\n", "\0", "٣", "\uff10", "é"]))
    )
    assert_agrees(GOOD[:at] + what + GOOD[at + data.draw(st.integers(0, 1)) :])


@given(st.text())
@example("")
@example("role/deputy")
def test_any_text_that_is_no_role_arn_is_refused(text):
    assume(not is_role_arn(text))
    assert_agrees(text)


def assert_agrees(text):
    if is_role_arn(text):
        assert RoleArn.parse(text).text == text
    else:
        with pytest.raises(ValueError, match=r"role ARN|IAM role"):
            RoleArn.parse(text)


REPLACED = {
    "444455556666": ("٤٤٤٤٥٥٥٥٦٦٦٦", "44445555666", "4444555566667", ""),
    "deputy": ("dépùty", "deputy*", "dep uty"),
    ":role/": (":user/", ":role//", ":role/a//", ":role:", ":ROLE/"),
    "iam::": ("s3::", "iam:us-east-1:"),
    "arn:aws": ("arn:azure", "arn:AWS", "arn:aws-", "ARN:aws"),
    "role/deputy-0123abcd": ("root", "role/", "oidc-provider/x", "user/assumed-role/deputy-x/"),
}
LOOK_ALIKES = [
    *(GOOD.replace(part, other) for part, others in REPLACED.items() for other in others),
    *(f"{GOOD}\n", f"\n{GOOD}", f" {GOOD}", f"{GOOD}\0", f"{GOOD}/"),
    *("444455556666", "AROAEXAMPLEEXAMPLE"),
    GOOD.replace("iam", "sts").replace(":role/", ":assumed-role/"),
    f"arn:aws:iam::444455556666:role/{'n' * 65}",
    f"arn:aws:iam::444455556666:role/{'p' * 511}/n",  # a path of 513 characters
    f"arn:{'aws' + '-a' * 1020}:iam::444455556666:role/n",  # 2,074 characters
]


def test_what_only_looks_like_a_role_arn_is_refused():
    for text in LOOK_ALIKES:
        assert not is_role_arn(text)
        assert_agrees(text)


def test_the_longest_name_and_path_are_taken():
    assert RoleArn.parse(f"arn:aws:iam::444455556666:role/{'p' * 510}/{'n' * 64}").name == "n" * 64


def test_what_is_wrong_is_said_without_repeating_it():
    """It may hold anything: the text goes into an answer and into the log."""
    with pytest.raises(ValueError) as caught:
        RoleArn.parse("arn:aws:iam::444455556666:role/<script>")
    assert "script" not in str(caught.value)


# --- External IDs ---


def test_every_digit_of_an_external_id_is_drawn():
    """A constant or a counter in it would be a pattern that a trust policy, or an attacker,
    could use.
    """
    assert EXTERNAL_ID_PATTERN == r"dpy-[0-9a-f]{64}"
    made = [new_external_id() for _ in range(500)]
    assert all(re.fullmatch(EXTERNAL_ID_PATTERN, value, re.ASCII) for value in made)
    for place in range(4, 68):
        assert len({value[place] for value in made}) == 16, f"digit {place}"


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_foreign_id_keeps_both_ends_and_draws_the_middle(digits):
    own = ExternalId(f"dpy-{digits}")
    foreign = foreign_external_id(own)
    assert re.fullmatch(EXTERNAL_ID_PATTERN, foreign)
    assert foreign != own
    assert (foreign[:20], foreign[-20:]) == (own[:20], own[-20:])
    assert foreign[20:-20] != own[20:-20]


@given(st.from_regex(IMPORTED_EXTERNAL_ID, fullmatch=True))
def test_a_foreign_id_of_an_imported_one_has_sixteen_drawn_characters_at_least(own):
    kept = min(len(own) - 1, 604)
    foreign = foreign_external_id(own)
    assert IMPORTED_EXTERNAL_ID.fullmatch(foreign)
    assert foreign.startswith(own[:kept])
    assert foreign.endswith(own[-kept:])
    assert len(foreign) == 2 * kept + 16
    assert foreign not in {own, foreign_external_id(own)}


def test_no_two_foreign_ids_are_the_same_and_none_is_the_own_one(monkeypatch):
    """A fixed one could be allowed by a trust policy, or issued to somebody."""
    own = new_external_id()
    assert len({foreign_external_id(own) for _ in range(1000)}) == 1000
    drawn = iter([own[20:48], "5" * 28])
    monkeypatch.setattr("app.ids.secrets.token_hex", lambda _: next(drawn))
    assert foreign_external_id(own) == f"{own[:20]}{'5' * 28}{own[48:]}"


def test_ids_come_in_order_of_creation():
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == 10_000
    assert made[0].version == 7


def test_the_first_id_of_a_moment_bounds_what_is_made_then():
    """To the millisecond, which a UUIDv7 has in its first 48 bits. Before 1970 there is none."""
    noon = datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
    assert time_of(first_id_at(noon)) == noon
    before = datetime.now(UTC)
    made = new_id()
    assert first_id_at(before) <= made < first_id_at(datetime.now(UTC) + timedelta(milliseconds=1))
    assert abs((time_of(made) - before).total_seconds()) < 60
    assert first_id_at(datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC)).hex == f"{1000:012x}{0:020x}"
    assert (
        first_id_at(datetime(1970, 1, 1, tzinfo=UTC))
        == first_id_at(datetime(1, 1, 2, tzinfo=UTC))
        == uuid.UUID(int=0)
    )


@given(st.text(NAME, max_size=50), st.text("0123456789abcdef", min_size=8, max_size=8))
@example("", "0123abcd")
@example("_acme.", "0123abcd")
def test_cloudformation_accepts_a_stacks_name_with_any_prefix(prefix, tenant):
    name = stack_name(prefix, tenant)
    assert re.fullmatch(r"[a-zA-Z][-a-zA-Z0-9]{0,127}", name)
    assert name.endswith(tenant)


def test_a_stacks_name_begins_as_its_roles_names_do():
    names = {
        "Acme-": "Acme-1a",
        "a.b_": "a-b-1a",
        "": "deputy-1a",
        "9x": "deputy-9x1a",
        "_acme-": "deputy-acme-1a",
        "_X-": "deputy-X-1a",
    }
    assert {prefix: stack_name(prefix, "1a") for prefix in names} == names


def test_the_kits_role_is_named_after_the_end_of_the_tenants_id():
    tenant_id = uuid.UUID("01890000-0000-7000-8000-0000deadbeef")
    assert kit_role_name("deputy-", tenant_id, "-x") == "deputy-deadbeef-x"
