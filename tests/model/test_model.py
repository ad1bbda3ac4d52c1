"""A model plays against Deputy: any tenants, keys, connections, trust policies, rotations and
clocks, in any order.

After each step no credentials exist that the model forbids, and each hand-out has its audit event.
`make test` makes the same 90 runs each time; `make soak` makes 5,000 others, which are longer.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from app.factory import create_app
from app.ids import RoleArn
from sandbox.server import Sandbox
from sandbox.vendor import VendorStack
from tests.conftest import make_config
from tests.model.stage import Stage, Wire
from tests.model.surroundings import Surroundings
from tests.support.databases import new_database

_RUNS, _STEPS = 90, 11  # a run's tenants, keys and first proof cost as much as three steps
_SOAK_RUNS, _SOAK_STEPS = 500, 11
# What must have happened in that many runs, or their silence says nothing.
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
    *(f"signed up {status}" for status in (201, 403, 404)),
    "attack 403",
    "attack 404",
    *(
        f"issue {code}"
        for code in (
            "unauthenticated",
            "not_found",
            "suspended",
            "connection_not_verified",
            "external_id_withdrawn",
            "role_refused",
        )
    ),
}


@pytest.fixture(scope="module")
def stage(aws: Sandbox, canary_stack: VendorStack) -> Iterator[Stage]:
    with new_database("sqlite") as url:
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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.aws.query._pool", lambda *_: (Wire(aws), "/"))
            apps = create_app(config), create_app(config)
        yield Stage(apps, aws, url.removeprefix("sqlite:///"), canary)
        for app in apps:
            app.extensions["deputy"].db.engine.dispose()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    """AWS is on this machine. What a role that refuses is given, what a tenant may ask, and which
    counts of past seconds are deleted, other tests are about.
    """
    monkeypatch.setattr("app.limits.tenant_share.TenantShare.request", lambda *_: nullcontext())
    monkeypatch.setattr("app.limits.quotas._forget", lambda *_, **__: None)


def play(stage: Stage, runs: int, steps: int, *, seed_: int | None = None) -> Counter[str]:
    machine = type("Played", (Surroundings,), {"stage": stage, "seen": Counter()})
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


def test_no_credentials_exist_that_the_model_forbids(stage: Stage):
    seen = play(stage, _RUNS, _STEPS)
    assert seen["runs"] >= _RUNS
    assert seen["somebody asks"] >= (_STEPS - 1) * seen["runs"]
    assert {what for what in _HAPPENED if not seen[what]} == set()


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1, 11))
def test_no_credentials_exist_that_the_model_forbids_in_many_more_runs(stage: Stage, number: int):
    seen = play(stage, _SOAK_RUNS, _SOAK_STEPS, seed_=number)
    assert seen["runs"] >= _SOAK_RUNS
