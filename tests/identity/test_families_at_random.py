"""Keys that make, replace and revoke each other in any order: a plain model says who must be
dead after a revocation.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from app.errors import AppError, UnauthenticatedError
from app.identity.principals import ApiKeyPrincipal
from app.identity.scopes import ALL_SCOPES
from app.services import Services
from tests.attacks.evidence import case
from tests.conftest import OPERATOR
from tests.support.rows import tenant_row

EVERYTHING = ALL_SCOPES
KEYS = st.integers(0, 11)  # a place among the keys that there are by then
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), KEYS, st.booleans()),  # by whom; bound to the tenant?
        st.tuples(
            st.just("replace"), KEYS, KEYS, st.booleans()
        ),  # by whom, which, without a grace?
        st.tuples(st.just("replace"), KEYS, st.just(-1), st.booleans()),  # one's own maker
        st.tuples(st.just("link"), KEYS),
    ),
    min_size=3,
    max_size=14,
)


@dataclass(eq=False)
class Key:
    """A key, whom its text was given to, and who renewed it."""

    caller: ApiKeyPrincipal
    text: str
    given_to: "Key | None"
    links: list[str] = field(default_factory=list)
    renewed_by_others: bool = False  # by a key that does not descend from it

    def descends_from(self, other):
        return self is other or (self.given_to is not None and self.given_to.descends_from(other))


class Play:
    def __init__(self, services):
        self.services, self.tenant_id = services, tenant_row(services.db)
        self.keys: list[Key] = []
        _, text = services.api_keys.create_key(OPERATOR, name="x", scopes=EVERYTHING)
        self.vendor = services.api_keys.authenticate(text)  # who revokes
        for tenant_id in (None, None, self.tenant_id):
            self.add(OPERATOR, None, tenant_id)

    def add(self, caller, given_to, tenant_id):
        _, text = self.services.api_keys.create_key(
            caller, name="x", scopes=EVERYTHING, tenant_id=tenant_id
        )
        self.keys.append(Key(self.services.api_keys.authenticate(text), text, given_to))

    def step(self, kind, by, *more):
        asking = self.keys[by % len(self.keys)]
        if kind == "make":
            self.add(asking.caller, asking, self.tenant_id if more[0] else None)
        elif kind == "link":
            _, url = self.services.links.create(asking.caller, self.tenant_id)
            asking.links.append(url.rpartition("/")[2])
        else:
            which, at_once = more
            old = asking.given_to if which < 0 else self.keys[which % len(self.keys)]
            if old is None:
                return
            grace = 0 if at_once else 600
            _, _, text = self.services.api_keys.replace_key(
                asking.caller, old.caller.key_id, grace_seconds=grace
            )
            old.renewed_by_others |= not asking.descends_from(old)
            self.keys.append(Key(self.services.api_keys.authenticate(text), text, asking))

    def acts(self, key):
        try:
            self.services.api_keys.authenticate(key.text)
        except UnauthenticatedError:
            return False
        return True

    def opens(self, token):
        try:
            self.services.links.open(token, None)
        except AppError:
            return False
        return True


@pytest.fixture(scope="module")
def services(app) -> Services:
    return app.extensions["deputy"]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS, which=KEYS, by_command=st.booleans())
def test_nothing_that_descends_from_a_revoked_key_acts(services, steps, which, by_command):
    """What descends from a key was given to it, or to what descends from it. What others renewed
    is theirs from then on.
    """
    play = Play(services)
    for step in steps:
        try:
            play.step(*step)
        except AppError:
            """Refused: the asker has ended, or may not, or the key was replaced already."""
    revoked = play.keys[which % len(play.keys)]
    if by_command:
        services.api_keys.revoke_key(OPERATOR, revoked.caller.key_id)
    else:
        services.api_keys.revoke_key(play.vendor, revoked.caller.key_id)
    descendants = [key for key in play.keys if key.descends_from(revoked)]
    assert not play.acts(revoked)
    if not any(key.renewed_by_others for key in descendants):
        assert [key for key in descendants if play.acts(key)] == []
        assert [token for key in descendants for token in key.links if play.opens(token)] == []


ESCAPES = {
    "a child replaces its maker at once": [("make", 0, False), ("replace", 3, 0, True)],
    "a grandchild replaces its maker's maker": [
        ("make", 0, False),
        ("make", 3, True),
        ("make", 3, False),
        ("replace", 5, 0, True),
    ],
    "a successor's old key replaces the maker": [
        ("make", 0, False),
        ("replace", 0, 3, False),
        ("replace", 3, 0, True),
    ],
    "a child replaces the successor": [
        ("make", 0, False),
        ("replace", 3, 0, False),
        ("replace", 3, 4, False),
    ],
}


def test_a_thief_does_not_escape_by_replacing_the_stolen_key(services):
    for how, steps in ESCAPES.items():
        with case(how):
            play = Play(services)
            for step in steps:
                play.step(*step)
            stolen = play.keys[0]
            services.api_keys.revoke_key(play.vendor, stolen.caller.key_id)
            assert [play.acts(key) for key in play.keys] == [
                not key.descends_from(stolen) for key in play.keys
            ]
