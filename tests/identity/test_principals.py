"""Until when keys and links are good, to the microsecond, in memory and in the database; and who
acts for the vendor.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.errors import ForbiddenError, UnauthenticatedError
from app.identity.principals import (
    WORKER,
    LinkPrincipal,
    Principal,
    SystemPrincipal,
    key_is_live,
    live_links,
    principal_at_counter,
)
from app.identity.scopes import Scope
from app.ids import new_id
from app.services import Services
from app.store.models import ApiKey, OnboardingLink
from tests.conftest import OPERATOR
from tests.support.rows import ADMIN, link_row, tenant_row

NOON = datetime(2036, 1, 31, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
EXPIRIES = [(NOON - MOMENT, False), (NOON, False), (NOON + MOMENT, True)]


@pytest.fixture
def services(app, monkeypatch) -> Services:
    monkeypatch.setattr("app.identity.principals.now", lambda: NOON)
    return app.extensions["deputy"]


@pytest.mark.parametrize(("expires_at", "good"), [(None, True), *EXPIRIES])
def test_a_key_is_over_at_the_moment_that_it_names(services, expires_at, good):
    made, _ = services.api_keys.create_key(
        OPERATOR,
        name="a worker",
        scopes=frozenset({Scope.TENANTS_READ}),
        tenant_id=None,
        expires_at=expires_at,
    )
    with services.db.read() as db:
        _, principal = principal_at_counter(db, made.lookup)
        found = db.scalar(select(ApiKey.id).where(ApiKey.id == made.id, key_is_live()))
    assert (found is not None) == good
    if good:
        principal.ensure_live()
        with services.db.write(principal):
            return
    with pytest.raises(UnauthenticatedError):
        principal.ensure_live()
    with pytest.raises(UnauthenticatedError), services.db.write(principal):
        pytest.fail("it may write")


def opens_a_page(services, link_id):
    with services.db.read() as db:
        return (
            db.execute(live_links().where(OnboardingLink.id == link_id)).one_or_none() is not None
        )


def test_a_link_ends_at_its_expiry_with_its_revocation_and_with_its_tenants_suspension(services):
    for expires_at, good in EXPIRIES:
        link = link_row(services.db, tenant_row(services.db), expires_at=expires_at)
        assert opens_a_page(services, link) == good, expires_at
    revoked = {"expires_at": NOON + MOMENT, "revoked_at": NOON - MOMENT}
    link = link_row(services.db, tenant_row(services.db), **revoked)
    assert not opens_a_page(services, link)
    suspended = tenant_row(services.db)
    link = link_row(services.db, suspended, expires_at=NOON + MOMENT)
    services.tenants.suspend(ADMIN, suspended, reason="a test")
    assert not opens_a_page(services, link)


def test_a_key_that_lacks_permission_sets_is_told_which():
    scanner = replace(ADMIN, permission_sets=frozenset({"inventory"}))
    with pytest.raises(ForbiddenError, match=r"that the role has: bucket-sync, reports\.$"):
        scanner.require_sets(frozenset({"inventory", "reports", "bucket-sync"}))


def test_only_a_principal_that_no_tenant_confines_acts_for_the_vendor():
    tenant_id = new_id()
    confined = (
        replace(ADMIN, tenant_scope=tenant_id),
        LinkPrincipal(tenant_id, new_id()),
        SystemPrincipal(WORKER, tenant_id),
    )
    assert [principal.is_vendor for principal in confined] == [False] * 3
    assert [ADMIN.is_vendor, OPERATOR.is_vendor] == [True, True]


def test_a_principal_that_does_not_say_how_it_is_checked_again_cannot_act():
    class Workload(Principal):
        tenant_scope = None
        actor = WORKER

    with pytest.raises(TypeError, match="reauthorize"):
        Workload()
