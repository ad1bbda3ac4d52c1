"""A link of an offboarded tenant: for 30 days it says what there is to delete, and then it is
like any other.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import update

from app.clock import now
from app.store.database import SYSTEM
from app.store.models import OnboardingLink
from tests.attacks.evidence import on_sqlite
from tests.web.conftest import visit

pytestmark = on_sqlite  # nothing here depends on the database


def offboard(visitor):
    visitor.world.admin("DELETE", f"/v1/tenants/{visitor.tenant['id']}", expect=204)


def later(monkeypatch, **passed):
    monkeypatch.setattr("app.onboarding.page_links.now", lambda: now() + timedelta(**passed))
    monkeypatch.setattr("app.identity.principals.now", lambda: now() + timedelta(**passed))


def test_nothing_can_be_done_through_an_offboarded_tenants_link(visitor):
    made = visitor.world.connection(visitor.tenant)
    offboard(visitor)
    events, calls = (
        visitor.world.audit(tenant_id=visitor.tenant["id"]),
        len(visitor.world.aws.sts_calls),
    )
    page = visitor.raw().text
    for what in (
        "/connections",
        f"/connections/{made['id']}/verify",
        f"/connections/{made['id']}/stop",
    ):
        answer = visitor.raw(what, "POST", data={"role_arn": made["role_arn"]})
        assert (answer.status_code, answer.text) == (410, page)
    assert visitor.raw("/status").status_code == 410  # and the open page loads itself again
    assert visitor.world.audit(tenant_id=visitor.tenant["id"]) == events
    assert len(visitor.world.aws.sts_calls) == calls


def test_the_goodbye_ends_after_30_days_and_a_link_that_was_no_good_before_says_nothing(
    visitor, monkeypatch
):
    revoked, expired = visit(visitor.world, visitor.tenant), visit(visitor.world, visitor.tenant)
    links = f"/v1/tenants/{visitor.tenant['id']}/onboarding-links"
    visitor.world.admin("DELETE", f"{links}/{revoked.link_id}", expect=204)
    with visitor.services.db.write(SYSTEM) as db:
        ended = update(OnboardingLink).where(OnboardingLink.id == UUID(expired.link_id))
        db.execute(ended.values(expires_at=OnboardingLink.created_at))
    offboard(visitor)
    assert [one.raw().status_code for one in (visitor, revoked, expired)] == [410, 404, 404]
    assert revoked.raw().text == visitor.world.admin.raw("GET", f"/onboard/{'x' * 43}").text
    later(monkeypatch, days=29, hours=23)
    assert visitor.raw().status_code == 410  # though the link itself would have expired by then
    later(monkeypatch, days=30)
    assert visitor.raw().status_code == 404
