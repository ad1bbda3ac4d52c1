"""The names of proofs' sessions: no role can tell them from issuances, and Deputy can."""

import re
import uuid

from app.aws.session_names import ProofNames, session_name
from app.ids import RoleArn, new_id
from tests.support.cast import SESSION_NAME

ROLE = RoleArn.parse("arn:aws:iam::444455556666:role/deputy-0123abcd")
OTHER = RoleArn.parse("arn:aws:iam::444455556666:role/deputy-0123abce")
OLD, NEW = "o" * 40, "n" * 40


def test_a_proofs_session_name_could_be_an_issuances():
    """Not even the id's time tells: it is a key's of the last two years, and another each time."""
    names = [ProofNames((NEW,)).make(ROLE) for _ in range(200)]
    ids = [uuid.UUID(re.fullmatch(SESSION_NAME, name)[1]) for name in names]
    assert re.fullmatch(SESSION_NAME, session_name(new_id()))
    assert {(made.version, made.variant) for made in ids} == {(7, new_id().variant)}
    newest = new_id().int >> 80
    ages = [(newest - (made.int >> 80)) / 86_400_000 for made in ids]  # days
    assert min(ages) >= 0
    assert max(ages) <= 730
    assert max(ages) - min(ages) > 365
    assert len(set(ids)) == len({name[-24:] for name in names}) == 200


def test_a_name_that_an_earlier_release_made_is_recognized():
    """Customers keep CloudTrail's events for years."""
    name = "deputy-018900000000700080000000deadbeef-68a24461ce549162a20485c2"
    assert ProofNames((OLD,)).recognizes(name, ROLE.text)


def test_each_secret_key_recognizes_what_it_signed_and_the_first_signs():
    before, during, after = ProofNames((OLD,)), ProofNames((NEW, OLD)), ProofNames((NEW,))
    for names, recognized_by in (
        (before, (before, during)),
        (during, (during, after)),
        (after, (during, after)),
    ):
        name = names.make(ROLE)
        assert [each for each in (before, during, after) if each.recognizes(name, ROLE.text)] == [
            *recognized_by
        ]


def test_no_other_name_and_no_name_for_another_role_is_recognized():
    names = ProofNames((NEW,))
    name = names.make(ROLE)
    for role in (OTHER.text, f"{ROLE.text} ", ""):
        assert not names.recognizes(name, role)
    changed = [
        name[:place] + ("0" if name[place] != "0" else "1") + name[place + 1 :]
        for place in (7, 38, 40, 63)
    ]
    others = (session_name(new_id()), "", "deputy-", "\udcff", "٣" * 64, "a\0b")
    for text in (*changed, *others):
        assert not names.recognizes(text, ROLE.text)
