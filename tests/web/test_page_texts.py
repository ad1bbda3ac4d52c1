"""What the page says in each situation, in full: compared with the text that is stored beside this
file.

Where words are changed on purpose, delete the stored text: the test writes the new one, and fails
once, for it to be read.
"""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from app.clock import now
from app.store.models.connection_status import ConnectionStatus, StackState
from tests.support.cast import Api, Customer, World, path_of, without_external_id
from tests.support.sets import GOOD, VENDOR
from tests.web.conftest import Visitor, visit

STORED = Path(__file__).parent / "page_texts"
BLOCKS = (
    "p, li, h1, h2, h3, pre, tr, td, th, summary, legend, label, button, form, section, article,"
    " details"
)
NUMBERED = {
    "EXTERNAL-ID": r"dpy-[0-9a-f]{64}",
    "ACCOUNT": r"(?<!\d)[2-8]\d{11}(?!\d)",
    "TENANT": r"deputy-[0-9a-f]{8}",
}
REPLACED = {
    r"\d{1,2} [A-Z][a-z]+ \d{4}(, \d\d:\d\d(:\d\d)?)?( UTC)?": "DATE",
    r"Acme \d+": "Acme",
    r"http://localhost:\d+": "AWS",
    r"(?<=/)[0-9a-f]{16}(?=\.yaml)": "HASH",
}


def lines_of(part):
    """A line for each block. Policies, scripts and lists of regions have tests of their own."""
    if not part.select(".connected"):  # as the style sheet hides it
        for hidden in part.select(".another"):
            hidden.decompose()
    for long in part.select("pre, select"):
        if "\n" in long.get_text().strip():
            named = long if long.has_attr("id") else long.find(id=True)
            long.string = f"[{named['id']}]"
    for block in part.select(BLOCKS):
        block.append("\n")
    lines = (" ".join(line.split()) for line in part.get_text(" ").splitlines())
    text = "\n".join(line for line in lines if line) + "\n"
    for name, pattern in NUMBERED.items():
        places = {}
        text = re.sub(
            pattern, lambda m, n=name, p=places: p.setdefault(m[0], f"{n}-{len(p) + 1}"), text
        )
    for pattern, word in REPLACED.items():
        text = re.sub(pattern, word, text)
    return text


# --- the situations ---


def connected(visitor):
    return visitor.world.connection(visitor.tenant)


def entered(visitor, *, account_alone=False):
    """A role that is absent, entered by its ARN or by its account."""
    customer, kit = visitor.customer_and_kit()
    visitor.paste(
        customer.account
        if account_alone
        else f"arn:aws:iam::{customer.account}:role/{kit['role_name']}"
    )
    return next(each for each in visitor.connections() if each["account_id"] == customer.account)


def loosened(visitor):
    customer, kit = visitor.customer_and_kit()
    made = visitor.world.connection(visitor.tenant, customer)
    customer.retrust(kit["role_name"], without_external_id(kit["trust_policy"]))
    visitor.verify(made)


def loosened_and_unclear(visitor):
    """The API points to `verification`, which the page does not have."""
    loosened(visitor)
    [made] = visitor.connections()
    visitor.world.aws.faults.add("throttle", role_arn=made["role_arn"])
    visitor.verify(made)


def removed(visitor):
    customer, kit = visitor.customer_and_kit()
    made = visitor.world.connection(visitor.tenant, customer)
    customer.remove_role(kit["role_name"])
    visitor.verify(made)


def reading(visitor, **other):
    """A role that may read itself, with a second statement."""
    kit = visitor.world.kit(visitor.tenant)
    [own] = kit["trust_policy"]["Statement"]
    trust = {"Version": "2012-10-17", "Statement": [own, own | other]}
    visitor.paste(Customer(visitor.world.aws).reading_itself(kit["role_name"], trust))


def unclear(visitor):
    role_arn = visitor.world.role(visitor.tenant)
    visitor.world.aws.faults.add("throttle", role_arn=role_arn, times=50)
    visitor.paste(role_arn)


def suspended(visitor):
    visitor.world.admin(
        "POST", path_of(connected(visitor), "/suspend"), {"reason": "unpaid since spring"}
    )


def ended(visitor):
    until = now() - timedelta(minutes=5)
    visitor.change(connected(visitor), status=ConnectionStatus.ENDED, access_until=until)


def searched(visitor):
    visitor.verify(entered(visitor, account_alone=True))


def search_over(visitor):
    made = entered(visitor, account_alone=True)
    visitor.verify(made)
    visitor.change(made, due_at=None)


def many(visitor):
    """One of each; four more insecure ones, the last of them with a mistake of its own."""
    for situation in (connected, suspended, ended, searched, loosened, removed):
        situation(visitor)
    for _ in range(4):
        visitor.paste_insecure()
    visitor.change(entered(visitor), stack=StackState.ROLLED_BACK)
    visitor.change(entered(visitor), stack=StackState.DELETED)
    entered(visitor)
    kit = visitor.world.kit(visitor.tenant)
    pattern = json.loads(json.dumps(kit["trust_policy"]).replace('"StringEquals"', '"StringLike"'))
    pattern["Statement"][0]["Condition"]["StringLike"]["sts:ExternalId"] = "dpy-*"
    visitor.paste(Customer(visitor.world.aws).role(kit["role_name"], pattern))


def rotating(visitor, *, complete=False, emergency=False):
    if not complete:
        visitor.world.proven(visitor.tenant)
    visitor.rotate(reason="x", emergency=emergency)
    if not emergency:
        visitor.world.proven(visitor.tenant)
    if complete:
        path = f"/v1/tenants/{visitor.tenant['id']}/external-id/rotation/complete"
        visitor.world.admin("POST", path)


def approving(visitor):
    connected(visitor)
    visitor.world.awaiting_approval(visitor.tenant)


def withdrawn(visitor):
    """Two accounts, one of which was updated."""
    rotating(visitor, emergency=True)
    visitor.world.proven(visitor.tenant)


def offboarded(visitor):
    visitor.world.admin("DELETE", f"/v1/tenants/{visitor.tenant['id']}", expect=204)


SITUATIONS = {
    "connected": connected,
    "refused": entered,
    "looking": searched,
    "not-found": search_over,
    "insecure": Visitor.paste_insecure,
    "loosened": loosened,
    "loosened-and-unclear": loosened_and_unclear,
    "insecure-by-reading": lambda v: reading(
        v, Condition={"StringEquals": {"sts:RoleSessionName": "maintenance"}}
    ),
    "others-trusted": lambda v: reading(
        v, Principal={"AWS": "arn:aws:iam::999999999999:root"}, Condition={}
    ),
    "unclear": unclear,
    "suspended": suspended,
    "removed": removed,
    "ended": ended,
    "rolled-back": lambda v: v.change(entered(v), stack=StackState.ROLLED_BACK),
    "stack-deleted": lambda v: v.change(connected(v), stack=StackState.DELETED),
    "many": many,
    "rotation-open": rotating,
    "approving": approving,
    "withdrawn": withdrawn,
    "rotation-emergency": lambda v: rotating(v, emergency=True),
    "rotation-complete": lambda v: rotating(v, complete=True),
}


def assert_stored(name, part):
    text, stored = lines_of(part), STORED / f"{name}.txt"
    if not stored.exists():
        stored.write_text(text, encoding="utf-8")
        pytest.fail(f"{stored.name} was not there: it is written now, and is to be read")
    assert text == stored.read_text(encoding="utf-8")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_status_reads_as_stored(visitor, faults, situation):
    SITUATIONS[situation](visitor)
    status = visitor.page().find(id="status")
    for same_everywhere in status.select(".nojs, form.paste, form.paste ~ *"):
        same_everywhere.decompose()
    assert_stored(situation, status)


def test_the_whole_page_reads_as_stored(visitor):
    assert_stored("waiting", visitor.page().main)


def test_the_farewell_reads_as_stored_and_shows_no_external_id(visitor):
    offboarded(visitor)
    page = visitor.raw()
    assert page.status_code == 410
    assert page.headers["Cache-Control"] == "no-store"
    assert_stored("farewell", BeautifulSoup(page.text, "html.parser").main)
    assert visitor.tenant["external_id"] not in page.text


@pytest.fixture
def page_of_set(start, aws, admin) -> Callable[..., BeautifulSoup]:
    """The page of a link for a permission set, at a vendor with these settings."""

    def page(name, query="", **settings):
        world = World(aws, Api(start({}, **settings), admin.key))
        return visit(world, world.tenant(), permission_set=name).page(query)

    return page


def test_the_regions_in_which_stacks_register_by_themselves_come_first(page_of_set, aws):
    topics = [
        f"arn:aws:sns:{region}:111122223333:registrations" for region in ("sa-east-1", "eu-west-1")
    ]
    url = f"{aws.url}/111122223333/registrations"
    page = page_of_set(
        "inventory",
        "?region=eu-west-1",
        registration_topic_arns=tuple(topics),
        registration_queue_url=url,
    )
    groups = {
        group["label"]: [option.text for option in group.select("option")]
        for group in page.select("#region optgroup")
    }
    first, others = groups.values()
    assert [*groups] == ["The stack registers by itself", "You enter the account afterwards"]
    assert first == ["sa-east-1", "eu-west-1"], "in the vendor's order"
    assert {"us-east-1", "eu-central-1"} < {*others}
    assert others == sorted({*others} - {*first})
    assert [option.text for option in page.select("option[selected]")] == ["eu-west-1"]
    assert page.find(string=re.compile("the account appears by itself"))


def test_what_a_set_with_a_parameter_asks_for_reads_as_stored(page_of_set, aws):
    """At a vendor with an address, in a region where stacks cannot register themselves."""
    page = page_of_set(
        "invoices",
        "?region=us-east-1",
        permission_sets=VENDOR,
        default_permission_set="posture",
        vendor_url="https://app.example.com/<i>",
        registration_topic_arns=("arn:aws:sns:eu-west-1:111122223333:registrations",),
        registration_queue_url=f"{aws.url}/111122223333/registrations",
    )
    link = page.select("#for-whom a")[-1]
    assert link["href"] == "https://app.example.com/<i>"
    assert link["rel"] == ["noopener", "noreferrer"]
    offered = [
        a["href"].partition("?")[2]
        for a in page.select(".way a")
        if a.text == "Launch it in eu-west-1"
    ]
    assert offered == [f"way={way}&region=eu-west-1#ways" for way in ("stack", "organization")]
    page.find(id="status").decompose()
    page.select_one("[id^=trouble]").parent.decompose()
    assert_stored("set-with-parameter", page.main)


def test_what_a_set_that_makes_an_administrator_asks_for_reads_as_stored(visiting, tmp_path):
    managed = [{"name": "PowerUserAccess", "why": "All."}]
    administrator = GOOD | {"access": "write", "administrator": True, "managed_policies": managed}
    (tmp_path / "admin.json").write_text(json.dumps(administrator))
    (tmp_path / "plain.json").write_text(json.dumps(GOOD))
    plain = visiting(permission_sets=tmp_path, default_permission_set="plain")
    assert plain.page().find(id="administrator") is None
    page = visit(plain.world, plain.world.tenant(), permission_set="admin").page()
    assert_stored("administrator", page.find(id="asked").parent)
