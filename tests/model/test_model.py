"""A model plays against Deputy: any tenants, keys, connections, trust policies, rotations and
clocks, in any order.

After each step no credentials exist that the model forbids, and each hand-out has its audit event.
`make test` makes the same 30 runs each time; `make soak` makes 5,000 others. The openings are runs
whose steps are chosen, so that all that the model knows happens at least once.
"""

from collections import Counter
from contextlib import closing, nullcontext

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from app.factory import create_app
from app.ids import RoleArn
from tests.conftest import make_config
from tests.model.stage import ALL, Stage, without_sockets
from tests.model.surroundings import Surroundings
from tests.support.databases import new_database

_RUNS, _STEPS = 30, 11  # a run's tenants, keys and first proof cost as much as three steps
_SOAK_RUNS, _SOAK_STEPS = 500, 11
# What must happen in the openings, or the silence of the runs says nothing.
_HAPPENED = {
    "handed out from AWS",
    "handed out from memory",
    "asked AWS in vain",
    "a proof past its shelf life",
    "verdict proven",
    "verdict insecure",
    "verdict unassumable",
    "proven scheduled",
    "switched",
    "approved verified",
    "POST complete 200",
    "signed up 201",
    "signed up 403",
    "signed up 404",
    "attack 403",
    "attack 404",
    "issue unauthenticated",
    "issue not_found",
    "issue suspended",
    "issue connection_not_verified",
    "issue external_id_withdrawn",
    "issue role_refused",
}


@pytest.fixture(scope="module")
def stage(aws, canary_stack):
    with new_database() as url:
        canary = canary_stack.canary_role_arn
        assert canary is not None
        config = make_config(
            url,
            canary_role_arn=RoleArn.parse(canary),
            connection_rate=6_000,
            tenant_revokes=100,
            issue_rate=100_000,
            log_level="WARNING",
        )
        with without_sockets(aws):
            apps = create_app(config), create_app(config)
        with closing(Stage(apps, aws, url.replace("+psycopg", ""), canary)) as made:
            yield made
        for app in apps:
            app.extensions["deputy"].db.engine.dispose()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch, impatient):
    """AWS is on this machine. What a role that refuses is given, what a tenant may ask, and which
    counts of past seconds are deleted, other tests are about.
    """
    monkeypatch.setattr("app.limits.tenant_share.TenantShare.request", lambda *_: nullcontext())
    monkeypatch.setattr("app.limits.counting_in_database._forget", lambda *_, **__: None)


def played_on(stage, kind=Surroundings):
    return type("Played", (kind,), {"stage": stage, "seen": Counter()})


def play(stage, runs, steps, *, seed_=None):
    machine = played_on(stage)
    run_state_machine_as_test(
        machine if seed_ is None else seed(seed_)(machine),
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            derandomize=seed_ is None,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
        _min_steps=steps - 1,
    )
    return machine.seen


class Opened(Surroundings):
    """A run whose steps are chosen."""

    def asks(self, key, app=0, seconds=900):
        """Ask for Acme's first connection with one of the model's keys."""
        connection = self.model.connections[0]
        self.begin()
        self.ask(app, self.model.keys[key], connection.tenant, connection, seconds=seconds)

    def is_suspended_elsewhere(self):
        """The process that is asked then has not heard of it."""
        self.suspend(0, 0, "vendor")
        self.asks(_WORKER, app=1, seconds=1800)


_WORKER, _STRANGER = 4, 6  # places among the keys of the beginning: Acme's worker's, Globex's
_VERIFY = "connections:write POST /connections/{c}/verify"
_EDIT = "a_customer_edits_a_trust_policy", 0
# The steps of each opening: a rule and what it is given.
_OPENINGS = (
    (
        ("asks", _WORKER),
        ("asks", _WORKER),
        ("asks", _STRANGER),
        ("asks", _WORKER, 1),
        ("is_suspended_elsewhere",),
        ("asks", _WORKER),
        ("resume", 0, 0, "vendor"),
        ("another_tenants_key", 0, 0, 0, _VERIFY, False),
        ("another_tenants_key", 0, 0, 1, _VERIFY, False),
        ("a_sign_up_service_makes_a_key", 0, 0, 0, frozenset({"credentials:issue"})),
        ("a_sign_up_service_makes_a_key", 0, 0, 0, ALL),
        ("revoke_a_key", 0, _WORKER - 1),
        ("asks", _WORKER),
    ),
    (
        (*_EDIT, "without a condition", True),
        ("asks", _WORKER),
        (*_EDIT, "somebody else's alone", True),
        (*_EDIT, "as the kit says", True),
        (*_EDIT, "somebody else's alone", False),
        ("asks", _WORKER),
        (*_EDIT, "as the kit says", True),
        ("time_passes", 26 * 60),
        ("a_background_worker_comes_back", 75),
        ("a_background_worker_comes_back", 75),
    ),
    (
        ("a_tenant_adds_a_role_that_writes", 0, 0, True),
        ("delete", 0, 1, "vendor"),
        ("a_rotation_is_carried_through", 0, 0, False),
        ("an_emergency", 0, 0),
    ),
)


def test_all_that_the_model_knows_happens_in_the_openings(stage):
    kind = played_on(stage, Opened)
    for steps in _OPENINGS:
        machine = kind()
        try:
            machine.two_tenants(reads=True, luck=1)
            for rule, *given in steps:
                getattr(machine, rule)(*given)
                machine.no_credentials_exist_that_the_model_forbids()
        finally:
            machine.teardown()
    assert {event for event in _HAPPENED if not kind.seen[event]} == set()


def test_no_credentials_exist_that_the_model_forbids(stage):
    seen = play(stage, _RUNS, _STEPS)
    assert seen["runs"] >= _RUNS
    assert seen["somebody asks"] >= (_STEPS - 1) * _RUNS, "without the runs that Hypothesis gave up"
    assert seen["handed out from AWS"] > _RUNS


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1, 11))
def test_no_credentials_exist_that_the_model_forbids_in_many_more_runs(stage, number):
    seen = play(stage, _SOAK_RUNS, _SOAK_STEPS, seed_=number)
    assert seen["runs"] >= _SOAK_RUNS
