"""A link of an offboarded tenant: for 30 days it says what there is to delete, and then it is
like any other.
"""

from datetime import timedelta
from uuid import UUID

import time_machine
from bs4 import BeautifulSoup
from sqlalchemy import update

from app.clock import now
from app.store.database import SYSTEM
from app.store.models import OnboardingLink
from tests.support.cast import Customer
from tests.web.conftest import visit
from tests.web.test_page_texts import offboarded


def test_the_goodbye_ends_after_30_days_and_a_link_that_was_no_good_before_says_nothing(visitor):
    """The open page loads itself again. The link itself would have expired by the end."""
    revoked, expired = visit(visitor.world, visitor.tenant), visit(visitor.world, visitor.tenant)
    links = f"/v1/tenants/{visitor.tenant['id']}/onboarding-links"
    visitor.world.admin("DELETE", f"{links}/{revoked.link_id}", expect=204)
    with visitor.services.db.write(SYSTEM) as db:
        ended = update(OnboardingLink).where(OnboardingLink.id == UUID(expired.link_id))
        db.execute(ended.values(expires_at=OnboardingLink.created_at))
    offboarded(visitor)
    assert [one.raw().status_code for one in (visitor, revoked, expired)] == [410, 404, 404]
    assert revoked.raw().text == visitor.world.admin.raw("GET", f"/onboard/{'x' * 43}").text
    for passed, status in ((timedelta(days=29, hours=23), 410), (timedelta(days=30), 404)):
        with time_machine.travel(now() + passed):
            assert visitor.raw("/status").status_code == visitor.raw().status_code == status


def test_the_goodbye_names_the_roles_that_were_there(visitor):
    world, tenant, kit = visitor.world, visitor.tenant, visitor.world.kit(visitor.tenant)
    for name in ("deputy-own", f"{kit['role_name']}-bucket-sync"):
        role_arn = Customer(world.aws).role(name, kit["trust_policy"])
        body = {"role_arn": role_arn, "permission_set": "bucket-sync"}
        world.admin("POST", f"/v1/tenants/{tenant['id']}/connections", body, expect=201)
    offboarded(visitor)
    shown = {
        code.text for code in BeautifulSoup(visitor.raw().text, "html.parser").select("li code")
    }
    assert {"deputy-own", f"{kit['role_name']}-bucket-sync", kit["role_name"]} <= shown
