"""The scene of the attacks: Acme is the attacker's tenant (A), Globex the victim's (B), and Mallory
holds every right in A.

What is shared among tests is only looked at, or attacked in vain; a test that changes something
makes its own tenants.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from app.aws.sts import Sts
from app.identity.scopes import ALL_SCOPES
from tests.attacks.evidence import Scene
from tests.support.cast import World

SERVICES = "deputy"


@pytest.fixture(autouse=True)
def impatient(impatient) -> None:
    """Every test of this folder is."""


@pytest.fixture(scope="session")
def scene(aws, admin) -> Scene:
    world = World(aws, admin)
    acme, globex = world.tenant("Acme"), world.tenant("Globex")
    return Scene(
        world=world,
        acme=acme,
        globex=globex,
        ours=world.connection(acme),
        theirs=world.connection(globex),
        mallory=world.key(*ALL_SCOPES, tenant=acme),
    )


@pytest.fixture(autouse=True)
def tenants_without_a_share(monkeypatch) -> None:
    """Tests share Mallory's key, and ask more in a second than a program does;
    test_attack_availability.py has the bound.
    """
    monkeypatch.setattr("app.limits.tenant_share.TenantShare.request", lambda *_: nullcontext())


@pytest.fixture
def meanwhile(monkeypatch) -> Callable[..., list[Any]]:
    """`meanwhile("assume", act)`: right after AWS has answered that call, once, somebody else does
    `act` and gets done.

    Returns a list that holds what `act` returned, as soon as it ran. The sandbox can hang up on a
    slow call but not answer it late; so AWS's slowness is made here, around the call, and all else
    is real.
    """

    def arrange(call, act):
        inner, happened = getattr(Sts, call), []

        def slow(self, *args, **kwargs):
            try:
                return inner(self, *args, **kwargs)
            finally:
                if not happened:
                    happened.append(None)
                    happened[0] = in_another_thread(act)

        monkeypatch.setattr(Sts, call, slow)
        return happened

    return arrange


def in_another_thread(act):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(timeout=30)
