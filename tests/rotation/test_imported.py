"""A connection with an imported External ID gets one of Deputy's by proof, without an outage."""

import csv
import json

import pytest
from bs4 import BeautifulSoup

from app.rotation.rotations import settle_all
from tests.conftest import VENDOR_ACCOUNT
from tests.rotation.conftest import accepting, import_rows
from tests.support.cast import Customer, path_of, without_external_id
from tests.support.rows import plan
from tests.web.conftest import text_of, visit
from tests.web.test_review import page_shows_all_of_the_json


def test_an_imported_connection_issues_and_switches_once_its_role_accepts_ours(tenant, imported):
    connection, old = imported()
    seen = tenant.get(connection)
    assert (seen["status"], seen["external_id"], seen["external_id_origin"]) == (
        "verified",
        old,
        "imported",
    )
    assert tenant.external_id == tenant.first_id, "new connections get one of Deputy's"
    assert (tenant.id_of(tenant.connection()), tenant.issued_ids()[old]) == (
        tenant.first_id,
        "imported",
    )
    first = tenant.issue(connection)
    tenant.after(hours=1)
    so_far = tenant.sent(connection).count(tenant.first_id)
    tenant.after(hours=4)
    tries = tenant.sent(connection).count(tenant.first_id) - so_far
    assert 3 <= tries <= 5, "one with each routine proof"
    assert tenant.kit["update"]["trust_policy"] == tenant.trust, "it is the newest role's"
    tenant.reprove(connection, accepting(tenant.trust, old, tenant.first_id))
    assert tenant.id_of(connection) == old
    tenant.after(minutes=2)
    switched = tenant.get(connection)
    assert (switched["external_id"], switched["external_id_origin"]) == (tenant.first_id, "deputy")
    assert tenant.issued_ids()[old] == "retired"
    assert tenant.issue(connection) != first
    assert tenant.actions() == ["connection.external_id_switched", "external_id.retired"]
    # The other system may still need the old value
    warnings = tenant.verify(connection)["verification"]["warnings"]
    assert [warning["name"] for warning in warnings] == ["trust_policy_lists_other_external_ids"]
    tenant.reprove(connection, accepting(tenant.trust, old))
    assert tenant.get(connection)["status"] == "broken"
    assert "was retired" in json.dumps(tenant.verify(connection)["verification"])


def test_a_role_that_was_given_the_current_one_before_a_rotation_goes_on(tenant, imported):
    connection, _ = imported()
    tenant.start()
    tenant.update_role(connection, accepting(tenant.trust, tenant.first_id))
    assert tenant.verify(connection)["status"] == "verified"
    assert (tenant.id_of(connection), bool(tenant.issue(connection))) == (tenant.first_id, True)


def test_in_an_emergency_an_imported_connection_is_not_paired_with_the_withdrawn_one(
    tenant, imported
):
    connection, old = imported()
    tenant.start(emergency=True)
    tenant.reprove(connection, accepting(tenant.trust, tenant.first_id))
    assert tenant.id_of(connection) == old


def test_the_kit_and_the_list_show_the_move(tenant, imported):
    ours = tenant.connection()
    connection, old = imported()
    update = tenant.kit["update"]
    accepted = update["trust_policy"]["Statement"][0]["Condition"]["StringEquals"]
    assert accepted["sts:ExternalId"] == [tenant.first_id, old]
    assert old in update["terraform"]
    assert old in update["aws_cli"]
    assert old not in json.dumps(tenant.trust), "a new role need not accept it"
    path = f"/v1/tenants/{tenant.made['id']}/connections?external_id_origin="
    for origin, shown in (("imported", connection), ("deputy", ours)):
        found = tenant.world.admin("GET", path + origin)["items"]
        assert [item["id"] for item in found] == [shown["id"]]
    everywhere = tenant.world.admin("GET", "/v1/connections?external_id_origin=imported")
    assert connection["id"] in {item["id"] for item in everywhere["items"]}
    tenant.world.admin.refused("GET", path + "other", expect=422, code="validation_failed")


def test_the_page_shows_the_move_as_an_update(tenant, imported):
    connection, old = imported()
    links = f"/v1/tenants/{tenant.made['id']}/onboarding-links"
    url = tenant.world.admin("POST", links, {}, expect=201)["url"]

    def page():
        visitor = tenant.world.admin.app.test_client()
        shown = visitor.get("/onboard/" + url.rpartition("/")[2])
        return BeautifulSoup(shown.text, "html.parser")

    first = page()
    assert first.select_one("#summary").text == (
        "Connected. A new External ID is to be added: see below."
    )
    assert json.loads(first.select_one("#imported-1").text) == [tenant.first_id, old]
    assert "was withdrawn" not in first.select_one("#imported").text
    following = tenant.start(emergency=True)["next_external_id"]
    withdrawn = page()
    assert withdrawn.select_one("#summary").text == (
        "Your External ID was withdrawn: update your role to restore access."
    )
    assert json.loads(withdrawn.select_one("#imported-1").text) == [following, old]
    assert "was withdrawn" in withdrawn.select_one("#imported").text
    assert "accepts the new one" not in withdrawn.text
    tenant.abandon()
    tenant.update_role(connection, accepting(tenant.trust, old, tenant.first_id))
    tenant.verify(connection)
    assert "The role accepts the new one since" in page().select_one("#imported").text
    tenant.after(minutes=2)
    assert page().select_one("#imported") is None


def page_of_older_role(tenant, deployed, tmp_path, trust):
    """A role with a name of its own, whose External ID could not be imported."""
    role_arn = Customer(tenant.world.aws).role("deputy-older", trust)
    row = {"reference": tenant.made["id"], "name": "Acme", "role_arn": role_arn}
    [report] = import_rows(deployed, tmp_path / "c.csv", row)
    assert report["outcome"] == "new-id"
    with (tmp_path / "c.csv.links.csv").open() as file:
        [link] = csv.DictReader(file)
    tenant.after()

    def page(name=""):
        answer = deployed.test_client().get(f"/onboard/{link['url'].rpartition('/')[2]}{name}")
        return answer.get_json() if answer.is_json else BeautifulSoup(answer.text, "html.parser")

    return page, role_arn


def test_no_page_tells_a_customer_to_replace_what_an_older_system_needs(tenant, deployed, tmp_path):
    page, role_arn = page_of_older_role(tenant, deployed, tmp_path, accepting(tenant.trust, "old"))
    advice = page().select_one(".advice")
    assert "Leave what an older system of Example Vendor needs." in " ".join(advice.text.split())
    assert "replace everything" not in advice.text
    assert advice.select_one("#trust-command") is None
    assert [role["role_arn"] for role in page("/review.json")["other_roles"]] == [role_arn]
    assert role_arn in page("/review").select_one("#other-roles").text


@pytest.mark.parametrize("reads_itself", [True, False])
def test_the_reviewers_sheet_shows_an_imported_role_as_it_is(
    tenant, imported, deployed, reads_itself
):
    connection, old = imported()
    root = f"arn:aws:iam::{VENDOR_ACCOUNT}:root"
    trust = accepting(tenant.trust, old)
    trust["Statement"][0]["Principal"] = {"AWS": root}
    del trust["Statement"][0]["Condition"]["ArnEquals"]
    if not reads_itself:
        customer, name = tenant._customers[connection["id"]]
        customer.forbid_reading_itself(name)
    tenant.reprove(connection, trust)
    visitor = visit(tenant.world, tenant.made)
    said = visitor.raw("/review.json").json
    [role] = said["other_roles"]
    checks = tenant.get(connection)["verification"]["checks"]
    assert role.pop("proof") == [check["detail"] for check in checks]
    saw = " ".join(check["detail"] for check in checks)
    assert (f"also lets in {root} in the vendor's own AWS accounts" in saw) is reads_itself
    assert ("trust policy was not seen" in saw) is not reads_itself
    assert role.pop("proof_at")
    assert role == {
        "role_arn": connection["role_arn"],
        "external_id": old,
        "external_id_origin": "Of an older system.",
        "status": "Connected",
        "permissions": "Not known to Deputy.",
    }
    assert said["scope"] == (
        f"All that follows is about {said['role_name']}, the role that Example Vendor asks for now,"
        f" and not about {connection['role_arn']}. No such role is connected yet."
    )
    page_shows_all_of_the_json(visitor)
    main = text_of(visitor.page("/review").main)
    assert main.index(said["scope"]) < main.index("Nobody else in Example Vendor's AWS account")
    tenant.connection()
    assert not visitor.raw("/review.json").json["scope"].endswith("connected yet.")


def test_an_older_role_that_is_insecure_is_changed_and_gets_no_statement_beside(
    tenant, deployed, tmp_path
):
    page, _ = page_of_older_role(tenant, deployed, tmp_path, without_external_id(tenant.trust))
    words = " ".join(page().select_one(".advice.urgent").text.split())
    assert "make the statement that lets us in the same as this one" in words
    assert "It may list more values of sts:ExternalId if an older system" in words
    assert "add this statement" not in words
    last = words.partition("Change or remove the statement that lets in too much.")[2]
    assert last.startswith(" A correct statement beside it makes the role no more secure.")


def test_an_imported_id_retires_with_its_last_pair(tenant, imported):
    connection, old = imported()
    tenant.world.admin("DELETE", _path(connection), expect=204)
    assert tenant.issued_ids()[old] == "imported"
    tenant.after()
    assert tenant.issued_ids()[old] == "retired"


def test_many_imported_ids_retire_some_at_a_time(tenant, imported, monkeypatch):
    monkeypatch.setattr("app.rotation.rotations._RETIRED_AT_ONCE", 1)
    made = [imported(), imported()]
    for connection, _ in made:
        tenant.world.admin("DELETE", _path(connection), expect=204)
    for left in (1, 0):
        settle_all(tenant.services.db)
        states = tenant.issued_ids()
        assert [states[external_id] for _, external_id in made].count("imported") == left


def test_imported_ids_without_a_pair_are_found_without_comparing_each_with_each(tenant, imported):
    """Also with statistics from before thousands were imported."""
    imported()
    database = tenant.services.db
    assert "Join" not in plan(database, lambda: settle_all(database), of="external_ids")


def test_a_rotation_does_not_wait_for_imported_connections(tenant, imported):
    connection, old = imported()
    assert tenant.start()["connections"] == {"total": 0, "switched": 0, "waiting": 0}
    following = tenant.rotation()["next_external_id"]
    tenant.after(minutes=1)
    assert tenant.complete()["state"] in {"retiring", "retired"}
    assert (tenant.id_of(connection), tenant.get(connection)["issues"]) == (old, True)
    tenant.update_role(connection, accepting(tenant.trust, old, following))
    tenant.verify(connection)
    tenant.after(minutes=2)
    assert tenant.id_of(connection) == following


def test_what_a_role_accepted_of_an_abandoned_rotation_is_forgotten(tenant, imported):
    """The page would go on saying that the role accepts the new one."""
    connection, old = imported()
    tenant.start()
    tenant.reprove(connection, accepting(tenant.trust, old, tenant.kit["next_external_id"]))
    accepted = tenant.services.rotations.accepted
    assert accepted([tenant.row(connection)])
    tenant.abandon()
    assert not accepted([tenant.row(connection)])
    tenant.reprove(connection, accepting(tenant.trust, old, tenant.first_id))
    assert accepted([tenant.row(connection)])
    tenant.start()
    assert not accepted([tenant.row(connection)]), "it is another one now"


def test_an_emergency_stops_issuing_with_an_imported_id(tenant, imported):
    connection, _ = imported()
    tenant.start(emergency=True)
    assert tenant.get(connection)["issues"] is False
    assert tenant.state() == ("open", 0, 1)
    tenant.update_role(connection)
    tenant.verify(connection)
    assert tenant.get(connection)["issues"] is True


def test_a_role_that_compares_a_part_of_an_imported_id_is_insecure(tenant, imported):
    """Also if it may not read itself, as most roles of older systems."""
    connection, old = imported("acme-prod-12345")
    trust = accepting(tenant.trust, old)
    del trust["Statement"][0]["Condition"]["StringEquals"]
    customer, name = tenant._customers[connection["id"]]
    customer.forbid_reading_itself(name)
    for pattern in ("acme-*", "acme-prod-1234*", "*-12345", "*prod*", "*cme-prod-12345"):
        trust["Statement"][0]["Condition"]["StringLike"] = {"sts:ExternalId": pattern}
        tenant.update_role(connection, trust)
        assert tenant.verify(connection)["status"] == "insecure", pattern


def test_an_import_during_an_emergency_is_refused(deployed, tenant, imported, tmp_path):
    """Its External ID would be issued with, though the emergency withdrew the others."""
    connection, withdrawn = imported()
    tenant.start(emergency=True)
    role_arn = Customer(tenant.world.aws).role("deputy-x", accepting(tenant.trust, "acme:late"))
    reference = tenant.world.admin("GET", f"/v1/tenants/{tenant.made['id']}")["reference"]
    row = {"reference": reference, "name": "Acme", "role_arn": role_arn}
    row["external_id"] = "acme:late"
    [report] = import_rows(deployed, tmp_path / "late.csv", row, fails=1)
    assert "emergency" in report["detail"]
    tenant.break_role(connection)
    tenant.complete()
    [report] = import_rows(deployed, tmp_path / "late.csv", row)
    assert report["outcome"] == "imported", "though the one that is broken was withdrawn for good"
    role_arn = Customer(tenant.world.aws).role("deputy-y", accepting(tenant.trust, withdrawn))
    row |= {"role_arn": role_arn, "external_id": withdrawn}
    [report] = import_rows(deployed, tmp_path / "again.csv", row)
    assert report["outcome"] == "new-id", "nothing would ever be issued with it"


def test_nobody_learns_whether_an_imported_id_is_another_tenants(new_tenant, tenant, imported):
    """They may be guessable. A role of a thief's that lists one gets the same answer as for any
    other text.
    """
    _, of_tenant = imported()
    thief, answers = new_tenant(), []
    for listed in (of_tenant, "acme:a-text-of-nobody-at-all"):
        made = thief.connection(trust=accepting(thief.trust, thief.first_id, listed))
        verification = made["verification"]
        answers.append((verification["verdict"], verification["checks"], verification["warnings"]))
    assert answers[0] == answers[1]


def _path(connection):
    return f"/v1/tenants/{connection['tenant_id']}/connections/{connection['id']}"


def test_an_imported_role_is_replaced_without_an_outage(tenant, deployed, tmp_path):
    customer, trust = Customer(tenant.world.aws), accepting(tenant.trust, "an-older-value")
    path = f"/v1/tenants/{tenant.made['id']}"
    tenant.world.admin("PATCH", path, {"reference": tenant.made["id"]})
    row = {
        "reference": tenant.made["id"],
        "name": "Acme",
        "external_id": "an-older-value",
        "role_arn": customer.role("deputy-older", trust),
    }
    import_rows(deployed, tmp_path / "c.csv", row)
    tenant.after()
    [old] = tenant.world.admin("GET", f"{path}/connections")["items"]
    visitor = visit(tenant.world, tenant.made)
    new = tenant.world.connect(tenant.made, customer.role(tenant.kit["role_name"], tenant.trust))
    assert new["account_id"] == old["account_id"]
    assert tenant.issue(old)
    assert tenant.issue(new)
    assert visitor.summary().startswith("All 2 roles are connected. A new External ID is to be")
    tenant.world.admin("DELETE", path_of(old), expect=204)
    assert tenant.issue(new)
    assert visitor.summary() == "Connected. There is nothing left to do."
