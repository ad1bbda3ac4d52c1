"""`customers import`: a report for each row, all or nothing for each customer, safe to repeat."""

import csv
import json
import stat
import tracemalloc
from unittest.mock import Mock
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app.errors import StoreUnavailableError
from app.imports.import_file import COLUMNS, FileSummary, customers_in
from app.store.database import SYSTEM
from app.store.models import Connection, ExternalIdRow, ExternalIdState, OnboardingLink, Tenant
from tests.cli.conftest import Cli
from tests.conftest import IMPORTED_ROLE, VENDOR_ACCOUNT, with_settings
from tests.support.cast import path_of

ROLE = "arn:aws:iam::{:012d}:role/deputy-home"
SHARED = "7f2c9e51-0b7d-4f6a-9a53-5f1f0f6f0c11"


def row_of(number, **changes):
    """A row of the made-up table of a home-grown system."""
    row = {
        "reference": f"c-{number}",
        "name": f"Customer {number}",
        "external_id": f"{number:04d}-{number * 2654435761 % 2**64:016x}-xq",
        "role_arn": ROLE.format(300_000_000_000 + number),
        "permission_set": "",
    }
    return row | changes


# Each bad row, and words of what the report says of it. `others`: further rows of its customer.
REFUSED = {
    "no reference": ({"reference": ""}, "reference: Must be one line"),
    "long reference": ({"reference": "r" * 201}, "reference: Must be one line of 1 to 200"),
    "no name": ({"name": " "}, "name: Must be one line"),
    "control character": ({"name": "Acme\x07"}, "name: Must be one line"),
    "no ARN": ({"role_arn": "deputy-home"}, "role_arn: This is not the ARN"),
    "a user": ({"role_arn": "arn:aws:iam::300000000001:user/deputy-x"}, "role_arn: This is not"),
    "other partition": ({"role_arn": "arn:aws-cn:iam::300000000001:role/deputy-x"}, "partition"),
    "the vendor's": ({"role_arn": ROLE.format(int(VENDOR_ACCOUNT))}, "vendor's own accounts"),
    "reserved": (
        {"role_arn": "arn:aws:iam::300000000001:role/aws-reserved/deputy-x"},
        "AWS-reserved roles",
    ),
    "other prefix": ({"role_arn": "arn:aws:iam::300000000001:role/CrossAccount"}, "must start"),
    "alphabet": ({"external_id": "acme 1"}, "external_id: Must be 2 to 1224"),
    "too short": ({"external_id": "x"}, "external_id: Must be 2 to 1224"),
    "too long": ({"external_id": "x" * 1225}, "external_id: Must be 2 to 1224"),
    "permission set": ({"permission_set": "nothing"}, "permission_set: Must be one of"),
    "not UTF-8": ({"name": "Caf\udce9"}, "row: The row is not UTF-8"),
}


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def importing(app):
    """Runs the command; returns the report of each row by its line."""

    def run(path, *options, fails=0):
        done = Cli(app).raw(f"customers import {path} --json", *(options or ["--yes"]))
        assert done.exit_code == fails, done.output
        return {report["line"]: report for report in map(json.loads, done.stdout.splitlines())}

    return run


def count(app, table):
    with app.extensions["deputy"].db.read() as db:
        return db.scalar(select(func.count()).select_from(table))


def test_a_table_of_a_home_grown_system_comes_over(app, importing, tmp_path):
    """200 rows, 20 of them bad in 20 ways. Five of these can be imported with a new ID."""
    rows = [row_of(6000 + number) for number in range(180)]
    rows += [row_of(1000 + n, **changes) for n, (changes, _) in enumerate(REFUSED.values())]
    rows += [
        row_of(2001, external_id=""),
        row_of(2002, external_id="dpy-" + "0" * 64),
        row_of(2003, external_id=SHARED),
        row_of(2004, external_id=SHARED),
        row_of(6001),  # not beside its other row
    ]
    path = write(tmp_path / "customers.csv", rows)
    before = [count(app, table) for table in (Tenant, Connection, ExternalIdRow)]
    planned = importing(path, "--dry-run", fails=1)
    assert before == [count(app, table) for table in (Tenant, Connection, ExternalIdRow)]
    assert not (tmp_path / "customers.csv.links.csv").exists()
    reports = importing(path, fails=1)
    assert list(reports) == list(planned) == list(range(2, 202))
    assert [report["outcome"] for report in planned.values()] == [
        report["outcome"] for report in reports.values()
    ]
    for line, (name, (_, words)) in enumerate(REFUSED.items(), 182):
        assert reports[line]["outcome"] == "refused", name
        assert words in reports[line]["detail"], name
    outcomes = [report["outcome"] for report in reports.values()]
    assert outcomes.count("imported") == 178
    assert "beside it" in reports[181]["detail"], "the row without a reference may be its own"
    assert [reports[line]["outcome"] for line in (197, 198, 199, 200)] == ["new-id"] * 4
    scattered = "reference: Rows of other customers stand between the rows of this one."
    assert reports[3]["detail"] == reports[201]["detail"] == scattered
    links = tmp_path / "customers.csv.links.csv"
    assert stat.S_IMODE(links.stat().st_mode) == 0o600
    with links.open() as file:
        urls = [link["url"] for link in csv.DictReader(file)]
    assert len(urls) == len({*urls}) == 4
    assert not [url for url in urls if url in json.dumps(reports)]
    made = [count(app, table) for table in (Tenant, Connection, ExternalIdRow, OnboardingLink)]
    again = importing(path, fails=1)
    assert made == [
        count(app, table) for table in (Tenant, Connection, ExternalIdRow, OnboardingLink)
    ]
    assert [report["outcome"] for report in again.values()].count("known") == 182
    assert again[2]["status"] == "pending"
    assert "It has the imported External ID." in again[2]["detail"]


def test_a_customer_comes_over_with_all_of_its_rows_or_none(app, importing, tmp_path):
    tenants = count(app, Tenant)
    rows = [row_of(1), row_of(1, role_arn="arn"), row_of(2), row_of(2, name="Other")]
    reports = importing(write(tmp_path / "c.csv", rows), fails=1)
    assert [report["outcome"] for report in reports.values()] == ["refused"] * 4
    assert reports[2]["detail"] == "Line 3 of this customer is refused."
    assert reports[5]["detail"] == "name: Line 4 gives this customer another name."
    assert count(app, Tenant) == tenants


def test_a_row_that_may_be_a_customers_refuses_that_customer(importing, tmp_path):
    """All or nothing, also if it can't be told whose a row is."""
    path = tmp_path / "c.csv"
    rows = [row_of(21), row_of(22), row_of(22, role_arn=ROLE.format(7)), row_of(23), row_of(24)]
    lines = write(path, rows).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"Customer 22", b"Caf\xe9")
    lines.insert(5, b",Customer,,,\n")
    path.write_bytes(b"".join(lines))
    reports = importing(path, fails=1)
    outcomes = {line: report["outcome"] for line, report in reports.items()}
    assert outcomes == {2: "imported"} | dict.fromkeys(range(3, 8), "refused")
    assert reports[4]["detail"] == "row: The row is not UTF-8."
    assert "beside it" in reports[5]["detail"]
    assert "beside it" in reports[7]["detail"]


def test_a_customer_of_too_many_rows_is_refused_before_anything_is_imported(app, tmp_path):
    tenants = count(app, Tenant)
    rows = [row_of(25), *[row_of(n, reference="one", name="One") for n in range(301)]]
    refused = Cli(app).refused(f"customers import {write(tmp_path / 'c.csv', rows)} --yes")
    assert "From line 3 on, a customer has more than 300 rows" in refused
    assert count(app, Tenant) == tenants


def test_an_outage_is_no_refusal(app, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "app.imports.imports.add_tenant", Mock(side_effect=StoreUnavailableError("Not now."))
    )
    path = write(tmp_path / "c.csv", [row_of(26)])
    assert Cli(app).refused(f"customers import {path} --yes") == "Error: Not now.\n"


def test_what_only_the_database_refuses_undoes_the_customers_earlier_rows(
    app, admin, importing, tmp_path
):
    tenant = {"name": "Declared", "reference": "c-31", "accounts": ["300000000031"]}
    admin("POST", "/v1/tenants", tenant, expect=201)
    connections = count(app, Connection)
    rows = [row_of(31, name="Declared"), row_of(31, name="Declared", role_arn=ROLE.format(44))]
    reports = importing(write(tmp_path / "c.csv", rows), fails=1)
    assert reports[2]["detail"] == "Line 3 of this customer is refused."
    assert "declare" in reports[3]["detail"]
    assert count(app, Connection) == connections


def test_columns_that_may_be_empty_may_be_left_out(importing, tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(f"name,role_arn,reference\nOnly,{ROLE.format(300_000_000_049)},c-49\n")
    assert importing(path)[2]["outcome"] == "new-id"


def test_ndjson_has_the_same_names(app, importing, tmp_path):
    path = tmp_path / "customers.ndjson"
    lines = [
        json.dumps(row_of(41)),
        json.dumps({**row_of(42), "external_id": None}),
        json.dumps(row_of(43)),
        '{"reference": "c-43", "reference": "c-44"}',
        '["c-45"]',
        json.dumps({**row_of(46), "colour": "red"}),
        json.dumps({**row_of(47), "name": 47}),
        '{"reference": "c-48"',
    ]
    path.write_text("\n".join(lines))
    reports = importing(path, fails=1)
    outcomes = [report["outcome"] for report in reports.values()]
    assert outcomes == ["imported", "new-id", *["refused"] * 6]
    assert '"colour" is none of reference' in reports[6]["detail"]
    assert "name: must be text" in reports[7]["detail"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reference;name\n", "The first line must name these columns"),
        ("", "The first line must name these columns"),
        ("reference,name,role_arn,colour\n", "The first line must name these columns"),
        ("reference,name,external_id\n", "The first line must name these columns"),
        (f'{",".join(COLUMNS)}\n"a', "Line 2 is not CSV"),
        (f"{','.join(COLUMNS)}\n{'x' * 20_000}", "Line 2 is longer than 16384 bytes"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(app, tmp_path, text, words):
    path = tmp_path / "customers.csv"
    path.write_text(text)
    assert words in Cli(app).refused(f"customers import {path} --yes")


def test_an_id_of_another_tenant_is_never_paired_and_none_comes_back(
    app, admin, importing, tmp_path
):
    """An External ID belongs to one tenant over all time."""
    path = write(tmp_path / "first.csv", [row_of(51, external_id=f"{SHARED}-51")])
    importing(path)
    taken = row_of(52, external_id=f"{SHARED}-51")
    report = importing(write(tmp_path / "second.csv", [taken]))[2]
    assert report["outcome"] == "new-id"
    assert "another customer's, or was retired" in report["detail"]
    [tenant] = admin("GET", "/v1/tenants?reference=c-51")["items"]
    admin("DELETE", f"/v1/tenants/{tenant['id']}", expect=204)
    report = importing(path, fails=1)[2]
    assert report["detail"].startswith("This customer was deleted in Deputy."), "on purpose"
    anew = write(tmp_path / "anew.csv", [row_of(51, external_id="")])
    assert importing(anew)[2]["outcome"] == "new-id"


@pytest.mark.parametrize("switched", [False, True])
def test_a_customer_whose_reference_was_changed_does_not_come_twice(
    app, admin, importing, tmp_path, switched
):
    number = 67 if switched else 63
    path = write(tmp_path / "c.csv", [row_of(number), row_of(number + 1)])
    importing(path)
    [tenant] = admin("GET", f"/v1/tenants?reference=c-{number}")["items"]
    if switched:
        with app.extensions["deputy"].db.write(SYSTEM) as db:
            own = {"tenant_id": UUID(tenant["id"])}
            current = select(ExternalIdRow.id).filter_by(**own, state=ExternalIdState.CURRENT)
            pair = update(Connection).filter_by(**own)
            db.execute(pair.values(external_id_id=current.scalar_subquery()))
            old = update(ExternalIdRow).filter_by(**own, state=ExternalIdState.IMPORTED)
            db.execute(old.values(state=ExternalIdState.RETIRED))
    admin("PATCH", f"/v1/tenants/{tenant['id']}", {"reference": f"changed-{number}"})
    reports = importing(path, fails=1)
    assert reports[2]["outcome"] == "refused"
    assert "reference changed" in reports[2]["detail"]
    assert reports[3]["outcome"] == "known"
    assert admin("GET", f"/v1/tenants?reference=c-{number}")["items"] == []


def test_a_suspended_tenant_that_needs_a_link_holds_up_no_other(admin, importing, tmp_path):
    path = write(tmp_path / "c.csv", [row_of(65, external_id=""), row_of(66)])
    importing(path)
    [tenant] = admin("GET", "/v1/tenants?reference=c-65")["items"]
    admin("POST", f"/v1/tenants/{tenant['id']}/suspend", {"reason": "away"})
    assert [report["outcome"] for report in importing(path).values()] == ["known", "known"]


def test_a_suspended_tenant_gets_no_connection(admin, importing, tmp_path):
    importing(write(tmp_path / "c.csv", [row_of(70)]))
    [tenant] = admin("GET", "/v1/tenants?reference=c-70")["items"]
    admin("POST", f"/v1/tenants/{tenant['id']}/suspend", {"reason": "away"})
    more = row_of(70, role_arn=ROLE.format(399_000_000_070))
    report = importing(write(tmp_path / "more.csv", [more]), fails=1)[2]
    assert (report["outcome"], "suspended" in report["detail"]) == ("refused", True)


def test_a_role_that_two_customers_claim_is_refused_for_both(admin, importing, tmp_path):
    """An old system that let customers type both has such rows, with one ID or with two."""
    role = row_of(101)["role_arn"]
    claimed = role.replace("role/deputy-home", "role/path/Deputy-Home")
    rows = [
        row_of(101),
        row_of(102, role_arn=claimed, external_id=row_of(101)["external_id"]),
        row_of(103),
        row_of(104, role_arn=claimed),
    ]
    reports = importing(write(tmp_path / "c.csv", rows), fails=1)
    assert [report["outcome"] for report in reports.values()] == [
        *("refused", "refused", "imported", "refused")
    ]
    assert reports[2]["detail"] == (
        "role_arn: Line 3, 5 names the same role for another customer, and it is one role. Find"
        " out whose it is."
    )
    assert "Line 2, 5 names the same role" in reports[3]["detail"]
    assert admin("GET", "/v1/tenants?reference=c-101")["items"] == []


@pytest.mark.parametrize("ours", ["imported", "connected"])
def test_a_role_that_another_tenant_has_is_refused_whatever_its_id(
    admin, importing, tmp_path, ours
):
    number = {"imported": 105, "connected": 106}[ours]
    if ours == "imported":
        importing(write(tmp_path / "first.csv", [row_of(number)]))
    else:
        made = admin("POST", "/v1/tenants", {"name": "A", "reference": f"c-{number}"}, expect=201)
        path = f"/v1/tenants/{made['id']}/connections"
        admin("POST", path, {"role_arn": row_of(number)["role_arn"]}, expect=201)
    for external_id in (row_of(number)["external_id"], f"another-{number}", ""):
        thief = row_of(
            107,
            role_arn=row_of(number)["role_arn"].replace("role/", "role/path/"),
            external_id=external_id,
        )
        report = importing(write(tmp_path / "second.csv", [thief]), fails=1)[2]
        assert report["outcome"] == "refused"
        assert f"already in tenant c-{number} (" in report["detail"]
        assert "it is one role" in report["detail"]
    assert admin("GET", "/v1/tenants?reference=c-107")["items"] == []


def connection_of(admin, number):
    [tenant] = admin("GET", f"/v1/tenants?reference=c-{number}")["items"]
    [connection] = admin("GET", f"/v1/tenants/{tenant['id']}/connections")["items"]
    return connection


@pytest.mark.parametrize("name", ["Customer 802, Inc", "Caf\udce9"], ids=["a comma", "Latin-1"])
def test_a_row_with_a_mistake_claims_what_it_names(admin, importing, tmp_path, name):
    """Or a wrong row of another customer, with the same role and External ID, would be imported."""
    right = row_of(802, name=name)
    wrong = row_of(801, role_arn=right["role_arn"], external_id=right["external_id"])
    other = row_of(803, role_arn=right["role_arn"] + "-2")
    lines = [",".join(row[column] for column in COLUMNS) for row in (wrong, right, other)]
    path = tmp_path / "customers.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]), errors="surrogateescape")
    reports = importing(path, fails=1)
    assert [reports[line]["outcome"] for line in (2, 3)] == ["refused"] * 2
    assert admin("GET", "/v1/tenants?reference=c-801")["items"] == []
    [tenant] = admin("GET", "/v1/tenants?reference=c-803")["items"]
    [connection] = admin("GET", f"/v1/tenants/{tenant['id']}/connections")["items"]
    assert connection["awaiting_approval"]


def test_a_line_of_json_that_is_none_claims_what_it_names(importing, tmp_path):
    right = row_of(812)
    wrong = row_of(811, role_arn=right["role_arn"], external_id=right["external_id"])
    path = tmp_path / "customers.ndjson"
    lines = [json.dumps(wrong), json.dumps(row_of(813)), json.dumps(row_of(814))]
    path.write_text("\n".join([*lines, json.dumps(right)[:-1] + ","]))
    reports = importing(path, fails=1)
    assert [reports[line]["outcome"] for line in (1, 2, 4)] == ["refused", "imported", "refused"]


def test_an_account_that_two_customers_claim_and_a_set_that_writes_await_approval(
    app, admin, importing, tmp_path
):
    home = ROLE.format(300_000_000_111)
    rows = [
        row_of(111),
        row_of(112, role_arn=f"{home}-2"),
        row_of(113, permission_set="bucket-sync"),
        row_of(114),
    ]
    path = write(tmp_path / "c.csv", rows)
    reports = importing(path)
    assert "Account 300000000111 is also in line 3. It issues nothing" in reports[2]["detail"]
    assert "Account 300000000111 is also in line 2, tenant c-111 (" in reports[3]["detail"]
    assert reports[4]["detail"].startswith("Its permission set writes. It issues nothing until")
    assert reports[5]["detail"] == ""
    made = [connection_of(admin, number) for number in range(111, 115)]
    assert [each["awaiting_approval"] for each in made] == [True, True, True, False]
    assert "300000000111" not in made[0]["why"], "its tenant hears nothing of another"
    admin("POST", path_of(made[0], "/approve"))
    assert not connection_of(admin, 111)["awaiting_approval"]
    later = [row_of(115, role_arn=f"{home}-3"), row_of(116, role_arn=f"{home}-4")]
    reports = importing(write(tmp_path / "later.csv", later[:1]))
    assert "also in tenant c-111 (" in reports[2]["detail"]
    assert connection_of(admin, 115)["awaiting_approval"]
    importing(write(tmp_path / "known.csv", later[1:]), "--yes", "--yes-accounts")
    assert not connection_of(admin, 116)["awaiting_approval"]


def test_what_was_deleted_after_an_import_does_not_come_back(admin, importing, tmp_path):
    path = write(tmp_path / "c.csv", [row_of(61)])
    importing(path)
    [tenant] = admin("GET", "/v1/tenants?reference=c-61")["items"]
    connections = f"/v1/tenants/{tenant['id']}/connections"
    [connection] = admin("GET", connections)["items"]
    admin("DELETE", f"{connections}/{connection['id']}", expect=204)
    report = importing(path)[2]
    assert (report["outcome"], report["status"]) == ("known", None)
    assert admin("GET", connections)["items"] == []


@pytest.mark.usefixtures("impatient")
def test_only_an_import_may_use_the_imported_names(app, world, customer, tmp_path, monkeypatch):
    services, row = app.extensions["deputy"], row_of(71)
    config = with_settings(services.config, imported_role_names=frozenset({IMPORTED_ROLE}))
    for service in (services.imports, services.connections, services.diagnoses):
        monkeypatch.setattr(service, "_config", config)
    trust = world.kit(world.tenant())["trust_policy"]
    trust["Statement"][0]["Condition"]["StringEquals"] = {"sts:ExternalId": row["external_id"]}
    row["role_arn"] = arn = customer.role(IMPORTED_ROLE, trust, Path="/path/")
    path = write(tmp_path / "c.csv", [row, row_of(72, role_arn=f"{arn}2")])
    done = Cli(app).text(f"customers import {path} --yes --yes-accounts", fails=1)
    assert [line.split()[1] for line in done.splitlines()[:2]] == ["imported", "refused"]
    path = f"/v1/connections?external_id_origin=imported&account_id={customer.account}"
    [connection] = world.admin("GET", path)["items"]
    assert world.verify(connection)["status"] == "verified", "broker.yaml lets the broker use it"
    diagnosis = world.admin("POST", path_of(connection, "/diagnose"))
    assert "problem" not in {step["outcome"] for step in diagnosis["steps"]}
    elsewhere, same = (
        (f"/v1/tenants/{tenant_id}/connections", {"role_arn": arn})
        for tenant_id in (world.tenant()["id"], connection["tenant_id"])
    )
    world.admin.refused("POST", *elsewhere, expect=422, code="role_not_allowed")
    world.admin("DELETE", path_of(connection), expect=204)
    assert world.admin("POST", *same, expect=201)["status"] == "pending", "with Deputy's own ID"


def test_weak_ids_are_named(importing, tmp_path):
    rows = [
        row_of(81, external_id="acme-81", name="Acme"),
        row_of(82, external_id="123456789012345678"),
        row_of(83, external_id="x300000000083-kf93kfls9d"),
        row_of(84, external_id="c84-ssssssssssssssss"),
        row_of(85, external_id="tenant-0001-production"),
        row_of(86, external_id="tenant-0002-production"),
        row_of(87, external_id="b54cfd7c-9e5b-4f7e-8f0b-1a2c3d4e5f60"),
    ]
    reports = importing(write(tmp_path / "c.csv", rows))
    assert [report["weak"] for report in reports.values()] == [
        ["shorter than 16 characters", "contains the customer's name"],
        ["of one shape"],
        ["contains the account id"],
        ["contains the reference"],
        [],
        ["one of a sequence"],
        [],
    ]


def test_the_links_file_is_never_one_that_others_can_read(app, tmp_path):
    path = write(tmp_path / "c.csv", [row_of(91, external_id="")])
    links = tmp_path / "links"
    links.touch(0o644)
    links.chmod(0o644)
    links_before = count(app, OnboardingLink)
    refused = Cli(app).refused(f"customers import {path} --yes --links {links}")
    assert "must be a file that you alone can read" in refused
    assert count(app, OnboardingLink) == links_before
    links.chmod(0o600)
    assert "Onboarding links in" in Cli(app).text(f"customers import {path} --yes --links {links}")
    assert links.read_text().count("/onboard/") == 1, "a second run makes the missing link"
    (tmp_path / "link").symlink_to(links)
    command = f"customers import {path} --yes --links {tmp_path / 'link'}"
    assert "symbolic links" in Cli(app).refused(command)


def test_the_links_file_has_no_formula(app, tmp_path):
    formulas = [f"{begins}HYPERLINK()" for begins in "=+-@"]
    rows = [
        row_of(970 + n, external_id="", reference=formula, name=formula)
        for n, formula in enumerate(formulas)
    ]
    Cli(app).text(f"customers import {write(tmp_path / 'c.csv', rows)} --yes")
    with (tmp_path / "c.csv.links.csv").open() as file:
        links = [*csv.DictReader(file)]
    assert [link["reference"] for link in links] == [f"'{formula}" for formula in formulas]
    assert [link["name"] for link in links] == [f"'{formula}" for formula in formulas]


def test_a_link_that_can_not_be_written_is_revoked_and_the_next_run_makes_another(
    app, tmp_path, monkeypatch
):
    path = write(tmp_path / "c.csv", [row_of(92, external_id="")])
    with monkeypatch.context() as full:
        error = OSError(28, "No space left on device")
        full.setattr("app.cli.customers.os.fsync", Mock(side_effect=error))
        assert "No space left" in Cli(app).refused(f"customers import {path} --yes")
    assert "Onboarding links in" in Cli(app).text(f"customers import {path} --yes")


def test_the_command_asks_first(app, tmp_path):
    path = write(tmp_path / "c.csv", [row_of(95)])
    done = Cli(app).raw(f"customers import {path}", answer="n\n")
    assert (done.exit_code, "Import these customers?" in done.output) == (1, True)


def many_rows(path, count):
    """A file of so many rows, ten of each customer."""
    rows = []
    for number in range(10_000, 10_000 + count):
        customer = number // 10
        rows.append(row_of(number, reference=f"big-{customer}", name=f"Big {customer}"))
    return write(path, rows)


def test_a_long_file_is_read_in_bounded_memory(tmp_path):
    """Less than 400 bytes a row, whatever its columns have."""
    with many_rows(tmp_path / "c.csv", 2000).open("rb") as file:
        FileSummary.of(file)  # so that all is imported that reading needs
        tracemalloc.start()
        try:
            summary = FileSummary.of(file)
            assert sum(map(len, customers_in(file))) == summary.rows == 2000
            assert tracemalloc.get_traced_memory()[1] < 800_000
        finally:
            tracemalloc.stop()


@pytest.mark.soak
def test_ten_thousand_rows_come_over(app, importing, tmp_path):
    connections = count(app, Connection)
    reports = importing(many_rows(tmp_path / "c.csv", 10_000))
    assert {report["outcome"] for report in reports.values()} == {"imported"}
    assert count(app, Connection) == connections + 10_000
