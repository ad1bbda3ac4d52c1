"""What the page says of an access that ended at the time that the customer set."""

from datetime import timedelta

from sqlalchemy import update

from app.clock import now
from app.store.database import SYSTEM
from app.store.models import Connection, ConnectionStatus
from tests.attacks.evidence import on_sqlite
from tests.web.conftest import Visitor, many

pytestmark = on_sqlite  # nothing here depends on the database


def test_the_page_says_when_an_access_ended_and_that_the_customer_set_it(visitor: Visitor):
    made = visitor.world.connection(visitor.tenant)
    at = now() - timedelta(minutes=5)
    services = visitor.world.admin.app.extensions["deputy"]
    with services.db.write(SYSTEM) as db:
        ended = {"status": ConnectionStatus.ENDED, "access_until": at}
        db.execute(update(Connection).where(Connection.role_arn == made["role_arn"]).values(ended))
    page, when = visitor.page(), f"{at:%-d %B %Y, %H:%M} UTC"
    assert page.select_one("#summary").get_text(strip=True) == f"This access ended on {when}, as you set."
    assert f"ended on {when}, as you set in the role" in page.get_text()
    assert "no longer lets us in" not in page.get_text()
    assert page.select(".advice") == []
    assert page.select(f"#again-{made['id']}")
    visitor.world.connection(visitor.tenant)
    page = visitor.page()
    assert page.select_one("#summary").get_text(strip=True) == "1 of 2 connected; 1 ended."
    assert page.select_one(".pill.ended").get_text() == "Ended"
    assert f"on {when}, as you set" in page.select("tbody tr")[1].get_text()


def test_ended_ones_come_after_connected_ones_and_before_paused_ones(visitor: Visitor):
    order = [ConnectionStatus.VERIFIED, ConnectionStatus.ENDED, ConnectionStatus.SUSPENDED]
    accounts = [many(visitor, status, 1)[0] for status in order]
    rows = visitor.page().select("tbody th code")
    assert [row.get_text() for row in rows] == accounts


def test_the_page_names_what_the_customer_may_limit(visitor: Visitor):
    words = visitor.page().select_one("#ways-title").find_next("p").get_text()
    assert all(name in words for name in ("AccessUntil", "RevokeSessionsBefore", "PermissionsBoundaryArn"))
