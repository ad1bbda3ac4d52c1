"""A tenant with more accounts than fit on a page: those that need a change come first, and all
can be reached.
"""

from uuid import UUID

from sqlalchemy import update

from app.connections.urgency import ListPosition, Urgency
from app.ids import new_id
from app.store.database import SYSTEM
from app.store.models import Connection, ConnectionStatus
from tests.support.cast import Customer
from tests.support.rows import statements
from tests.web.conftest import many, text_of, visit

PENDING, VERIFIED = ConnectionStatus.PENDING, ConnectionStatus.VERIFIED
NO_PLACES = (
    "",
    "0",
    "WAITING",
    f"connected-{'g' * 32}",
    "connected-019a0000-0000-7000-8000-000000000000",
    f"{'connected' * 5000}",
    "connected%0a",
    "%D9%A1",
)


def accounts(page):
    return [cell.text for cell in page.select("#live tbody th code")]


def follow(visitor, page, link):
    found = page.find(id=link)
    return found and visitor.page(found["href"].removeprefix(visitor.path).partition("#")[0])


def test_every_account_is_reached_by_links(visitor):
    expected = [account for status in (PENDING, VERIFIED) for account in many(visitor, status, 50)]
    expected = many(visitor, ConnectionStatus.INSECURE, 20) + expected
    page, seen = visitor.page(), []
    while page is not None:
        assert len(accounts(page)) <= 25
        seen += accounts(page)
        last, page = page, follow(visitor, page, "list-next")
    assert seen == expected
    assert accounts(follow(visitor, last, "list-first")) == seen[:25]


def test_each_count_leads_to_where_those_begin(visitor):
    many(visitor)
    waiting, paused = many(visitor, PENDING, 2), many(visitor, ConnectionStatus.SUSPENDED, 3)
    page = visitor.page()
    assert accounts(follow(visitor, page, "list-refused"))[:2] == waiting
    assert not set(accounts(follow(visitor, page, "list-connected"))) & set(waiting)
    end = follow(visitor, page, "list-paused")
    assert accounts(end) == paused
    assert end.find(id="list-next") is None


def test_a_single_account_on_the_last_page_is_not_taken_for_the_only_one(visitor):
    """The command that sets a trust policy is of the kit's role, and may be another account's."""
    account, name = many(visitor, VERIFIED, 26)[-1], visitor.world.kit(visitor.tenant)["role_name"]
    with visitor.services.db.write(SYSTEM) as db:
        last = update(Connection).filter_by(account_id=account)
        db.execute(last.values(role_arn=f"arn:aws:iam::{account}:role/{name}"))
    visitor.rotate()
    last = follow(visitor, visitor.page(), "list-next")
    assert len(accounts(last)) == 1
    assert last.find(id="rotation-trust")
    assert last.find(id="rotation-trust-command") is None


def test_a_rotation_names_the_accounts_that_wait_wherever_they_are_in_the_list(visitor):
    every = many(visitor, VERIFIED, 30)
    visitor.rotate(reason="x", emergency=True)
    page = visitor.page()
    told = f"accounts {', '.join(sorted(every)[:25])} (30 roles)"
    assert told in text_of(page.find(id="rotation"))
    assert page.find(id="list-insecure")["href"] == "#rotation"


def test_roles_of_many_names_cost_no_more_than_three_instructions(visitor):
    """The others get the trust policy."""
    many(visitor, VERIFIED, 25)
    visitor.rotate()
    with statements(visitor.services.db) as executed:
        page = visitor.page()
    assert len(page.select("#rotation code[id$=-cli]")) == 3
    assert len(page.select("[id^=rotation-trust-more]")) == 1
    assert len(executed) < 40


def test_searches_for_roles_of_several_names_are_told_apart(visitor):
    """One account was entered through a link for another permission set."""
    other = visit(visitor.world, visitor.tenant, permission_set="bucket-sync")
    names = [visitor.world.kit(visitor.tenant)["role_name"]]
    for each in (visitor, other):
        each.paste(Customer(visitor.world.aws).account)
    names.append(f"{names[0]}-bucket-sync")
    shown = visitor.page().select(".looking > code")
    assert sorted(name.text for name in shown) == names


def test_what_is_proven_meanwhile_does_not_move_the_rest_of_the_list(visitor):
    waiting = many(visitor, PENDING, 60)
    page = visitor.page()
    services = visitor.services
    with services.db.write(SYSTEM) as db:
        moved = update(Connection).where(
            Connection.tenant_id == UUID(visitor.tenant["id"]),
            Connection.account_id.in_(waiting[20:25]),
        )
        db.execute(moved.values(status=VERIFIED))
    assert accounts(follow(visitor, page, "list-next")) == waiting[25:50]


def test_what_refreshes_by_itself_and_a_check_stay_where_the_visitor_is(visitor):
    many(visitor, PENDING, 60)
    page = follow(visitor, visitor.page(), "list-next")
    status = page.select_one("[hx-get]")["hx-get"].removeprefix(visitor.path)
    assert visitor.raw(status).status_code == 204
    fragment = visitor.page(status.partition("&seen=")[0])
    assert [cell.text for cell in fragment.select("tbody th code")] == accounts(page)
    assert fragment.select_one("[hx-get]")["hx-get"] == page.select_one("[hx-get]")["hx-get"]
    action = page.select_one("tbody form")["action"].removeprefix(visitor.path)
    assert (
        visitor.raw(action, "POST").headers["Location"]
        == f"{visitor.path}{action[action.index('?') :]}#status"
    )
    assert (
        page.select_one(".nojs a")["href"] == f"{visitor.path}{action[action.index('?') :]}#status"
    )


def test_what_is_no_place_in_the_list_is_its_beginning_and_a_single_account_has_no_places(visitor):
    for count, page_texts, status_texts in (
        (1, ("paused",), ("paused",)),
        (25, NO_PLACES[:2], NO_PLACES),
    ):
        many(visitor, count=count)
        for what, texts in (("", page_texts), ("/status", status_texts)):
            beginning = visitor.raw(what).text
            for text in texts:
                assert visitor.raw(f"{what}?start={text}").text == beginning, text


def test_a_place_of_another_tenants_list_shows_nothing_of_it(visitor):
    other = visit(visitor.world, visitor.world.tenant())
    foreign, own = many(other, count=60), many(visitor, count=60)
    theirs = other.page().find(id="list-next")["href"].removeprefix(other.path).partition("#")[0]
    for what in (theirs, f"/status{theirs}"):
        answer = visitor.raw(what)
        assert answer.status_code == 200
        assert not [account for account in foreign if account in answer.text]
    assert set(accounts(visitor.page(theirs))) <= set(own)
    page = visitor.page(f"?start={ListPosition(Urgency.PAUSED, new_id())}")
    assert accounts(page) == []
    assert accounts(follow(visitor, page, "list-first")) == own[:25]


def test_a_look_costs_no_more_statements_for_many_accounts(visitor):
    def look():
        with statements(visitor.services.db) as executed:
            assert visitor.raw("/status").status_code == 200
        return len(executed)

    many(visitor, count=2)
    few = look()
    many(visitor, PENDING)
    assert look() <= few
