"""The commands about the service's nouns: what an operator asks for, by name, as a table or as
JSON.
"""

import getpass
import json
import re
import time
import uuid
from datetime import timedelta
from uuid import UUID

from app.clock import now
from app.ids import first_id_at
from app.store.database import SYSTEM
from app.store.models import AuditEvent, Tenant
from tests.support.cast import Customer, path_of, without_external_id

# --- finding what is meant ---


def test_a_tenant_is_found_by_id_by_reference_and_by_name_in_any_case_and_by_nothing_else(
    cli, world, acme
):
    """A slip of the hand would stop another customer. What it could mean is listed."""
    name = acme["name"]
    for text in (acme["id"], acme["id"].replace("-", ""), acme["reference"], name, name.upper()):
        assert cli(f"tenants show '{text}'")["id"] == acme["id"]
    refused = cli.refused(f"tenants suspend '{name[:-1]}' --reason x")
    assert "There is no such tenant." in refused
    assert acme["id"] in refused
    world.admin("PATCH", f"/v1/tenants/{acme['id']}", {"reference": name})
    assert cli(f"tenants show '{name}'")["id"] == acme["id"], "it is one, by both of its names"
    world.admin("PATCH", f"/v1/tenants/{acme['id']}", {"reference": acme["reference"]})
    other, body = world.tenant(), {"name": "x", "reference": name}
    world.admin("PATCH", f"/v1/tenants/{other['id']}", {"name": name.lower()})
    another = world.admin("POST", "/v1/tenants", body, expect=201)
    refused = cli.refused(f"tenants suspend '{name}' --reason x")
    for tenant in (acme, other, another):
        assert tenant["id"] in refused
        assert cli(f"tenants show {tenant['id']}")["status"] == "active"


def test_a_tenant_is_found_beside_more_whose_names_begin_so_than_a_list_shows(cli, world):
    """Found by their beginning alone, a second one of the same name would be overlooked."""
    name = f"Twin {time.time_ns()}"

    def made(name):
        return world.admin("POST", "/v1/tenants", {"name": name}, expect=201)

    first = made(name)
    for number in range(20):
        made(f"{name} {number}")
    assert cli(f"tenants show '{name}'")["id"] == first["id"]
    made(name)
    assert "could be one of these" in cli.refused(f"tenants delete '{name}' --yes")


def test_a_connection_is_found_by_id_arn_account_and_as_the_only_one_of_its_tenant(
    cli, world, acme
):
    made = acme["connection"]
    own = (made["id"], made["role_arn"], made["account_id"])
    for text in (*own, acme["reference"], acme["name"], acme["id"]):
        assert cli(f"connections show '{text}'")["id"] == made["id"]
    second = world.connection(acme)
    refused = cli.refused(f"connections suspend '{acme['name']}' --reason x")
    assert made["id"] in refused
    assert second["id"] in refused
    for text in (acme["id"][:-1], "nobody", "000000000000", made["role_arn"] + "x", "arn:", ""):
        refused = cli.refused(f"connections show '{text}'")
        assert refused == "Error: There is no such connection.\n"


def test_a_key_is_found_by_id_by_name_and_by_its_first_characters(cli):
    """Who finds a leaked key has its text, and shall not give all of it to a command."""
    made = cli(f"keys create --name 'leaked {time.time_ns()}' --scope audit:read")
    name = cli(f"keys show {made['id']}")["name"]
    for text in (made["id"], name, made["key"][:20], made["key"][4:20], made["key"]):
        assert cli(f"keys show '{text}'")["id"] == made["id"]
    cli(f"keys create --name '{name}' --scope audit:read")
    assert "could be one of these" in cli.refused(f"keys revoke '{name}'")


def test_a_name_that_is_an_id_hides_no_key_and_no_tenant(cli, world, acme):
    """A tenant's key may have any name, and a customer may choose the name of its tenant."""
    made = cli("keys create --name leaked --scope audit:read")
    bound = f"--scope audit:read --tenant {acme['id']}"
    for name in (made["id"], made["key"][:20], made["key"][4:20]):
        cli(f"keys create --name '{name}' {bound}")
        assert cli(f"keys show '{name}'")["id"] == made["id"]
    nobody = str(uuid.uuid4())
    cli(f"keys create --name {nobody} {bound}")
    assert cli.refused(f"keys revoke {nobody}") == "Error: There is no such key.\n"
    for name in (acme["id"], acme["connection"]["id"], nobody):
        world.admin("POST", "/v1/tenants", {"name": name}, expect=201)
    assert cli(f"tenants show {acme['id']}")["id"] == acme["id"]
    assert cli(f"connections show {acme['connection']['id']}")["id"] == acme["connection"]["id"]
    refused = cli.refused(f"tenants suspend {nobody} --reason x")
    assert refused.startswith("Error: There is no such tenant.")


# --- what is printed ---


def test_tables_line_up_also_with_wide_letters_and_show_no_control_characters(cli, world):
    prefix = f"T{time.time_ns()} "
    for name in ("short", "日本の会社", "a much longer name", "e\u0301tude"):
        world.admin("POST", "/v1/tenants", {"name": prefix + name}, expect=201)
    header, *rows = cli.text(f"tenants list --name '{prefix}'").splitlines()
    assert len(rows) == 4
    for row in rows:
        before = row[: row.index("active")]
        wide = sum(letter in "日本の会社" for letter in before) - before.count("\u0301")
        assert len(before) + wide == header.index("status")


def test_text_that_customers_wrote_cannot_steer_a_terminal(app, cli, world, acme):
    record(app, acme, "\x1b[2Jspoofed")
    said = cli.text(f"audit search --tenant '{acme['name']}' --limit 1")
    assert "[2Jspoofed" in said
    assert "\x1b" not in said


# --- what is done, and by whom ---


def test_everything_of_a_customer_is_stopped_by_one_command_and_resumed(cli, world, acme):
    worker, suspend = world.worker(acme), f"tenants suspend {acme['reference']} --reason"
    suspended = cli(f"{suspend} 'ticket 123'")["suspended"]
    assert suspended.pop("at")
    assert suspended == {"by": "operator", "reason": "ticket 123"}
    for status, count in (("suspended", 1), ("active", 0)):
        listed = cli(f"tenants list --name '{acme['name']}' --status {status}")
        assert [tenant["id"] for tenant in listed] == [acme["id"]] * count
    worker("POST", acme["path"], expect=409)
    assert "suspended already" in cli.refused(f"{suspend} again")
    [event] = cli(f"audit search --tenant {acme['reference']} --action tenant.suspended")
    assert event["actor"] == {"operator": f"tests (command line, claimed by {getpass.getuser()})"}
    assert event["details"] == {"was": "active", "status": "suspended", "reason": "ticket 123"}
    cli(f"tenants resume {acme['reference']} --reason closed")
    worker("POST", acme["path"])
    for reason in ("", " ", "two\nlines", "x" * 201):
        assert "--reason" in cli.text(f"{suspend} '{reason}'", fails=2)


def test_a_tenant_is_created_with_its_accounts(cli, world):
    name, account = f"New {time.time_ns()}", "123456789012"
    made = cli(f"tenants create --name '{name}' --reference 'ref of {name}' --account '{account}'")
    expected = {"name": name, "reference": f"ref of {name}", "accounts": [account]}
    expected["external_id"] = made["external_id"]
    assert world.admin("GET", f"/v1/tenants/{made['id']}").items() >= expected.items()
    again = f"tenants create --name Another --reference 'ref of {name}'"
    assert cli.refused(again) == "Error: Another tenant has this reference.\n"
    assert cli(f"tenants create --name '{name}'")["accounts"] == "any"
    for odd in ("--name ''", "--name x --reference ' '", "--name x --account 1"):
        cli.text(f"tenants create {odd}", fails=2)


def test_a_tenant_is_deleted_only_after_a_question(cli, acme):
    question = cli.text(f"tenants delete {acme['reference']}", fails=1, answer="n\n")
    assert re.search(rf"^id +{acme['id']}$", question, re.MULTILINE)
    assert re.search(r"^connections +1$", question, re.MULTILINE)
    assert cli(f"tenants show {acme['id']}")["status"] == "active"
    assert cli.text(f"tenants delete '{acme['reference']}' --yes") == f"Deleted: {acme['id']}\n"
    refused = cli.refused(f"tenants suspend {acme['id']} --reason x")
    assert refused == "Error: There is no such tenant.\n"
    event, *_ = cli(f"audit search --tenant {acme['id']}")  # also once it is gone
    assert event["action"] == "tenant.deleted"
    assert event["details"]["connections_deleted"] == 1


def test_a_deleted_tenant_is_listed_and_shown_until_another_has_its_name(cli, world, acme):
    cli.text(f"tenants delete {acme['id']} --yes")
    by_name = f"tenants list --name '{acme['name']}'"
    assert cli(by_name) == []
    assert [tenant["id"] for tenant in cli(f"{by_name} --deleted")] == [acme["id"]]
    for text in (acme["id"], acme["reference"], acme["name"]):
        shown = cli(f"tenants show '{text}'")
        assert (shown["id"], shown["status"], bool(shown["deleted_at"])) == (
            acme["id"],
            "deleted",
            True,
        )
        assert shown["external_ids"] == [acme["external_id"]]
    again = {"name": acme["name"], "reference": acme["reference"]}
    live = world.admin("POST", "/v1/tenants", again, expect=201)
    for text in (live["id"], acme["reference"], acme["name"]):
        assert cli(f"tenants show '{text}'")["id"] == live["id"]
    assert cli(f"tenants show {acme['id']}")["status"] == "deleted"
    cli.text(f"{by_name} --deleted --status active", fails=2)


def test_the_accounts_of_a_tenant_are_shown_and_replaced(cli, world):
    tenant_id = world.tenant()["id"]
    accounts, only = f"tenants accounts {tenant_id}", "--only 111111111111 --only 222222222222"
    assert cli(accounts)["accounts"] == "any"
    for line in (f"{accounts} {only}", f"tenants show {tenant_id}"):
        assert cli(line)["accounts"] == ["111111111111", "222222222222"]
    assert cli(f"{accounts} --any")["accounts"] == "any"
    for odd in ("--only 12345", "--any --only 111111111111"):
        cli.text(f"{accounts} {odd}", fails=2)


def test_a_connection_is_suspended_resumed_and_shown_with_its_proof(cli, acme):
    account = acme["connection"]["account_id"]
    assert cli(f"connections suspend '{account}' --reason odd")["status"] == "suspended"
    assert cli(f"connections resume '{account}' --reason explained")["status"] == "verified"
    shown = cli(f"connections show '{account}'")
    assert shown["status"] == "verified"
    assert shown["verdict"] == "proven"
    assert shown["issues"] is True
    assert "own_external_id_accepted" in cli.text(f"connections show '{account}'")
    as_in_the_console = f"{account[:4]}-{account[4:8]}-{account[8:]}"
    assert cli(f"connections show {as_in_the_console}")["id"] == shown["id"]
    assert "12 digits" in cli.text("connections list --account acme", fails=2)
    [listed] = cli(f"connections list --account {as_in_the_console}")
    assert listed["id"] == acme["connection"]["id"]
    assert cli(f"connections list --tenant '{acme['name']}' --status broken") == []


def test_a_connection_is_approved(cli, world):
    awaiting = world.awaiting_approval(world.tenant())
    assert cli(f"connections show {awaiting['id']}")["awaiting_approval"]
    other = cli.refused(f"connections approve {awaiting['id']} --permission-set inventory")
    assert "bucket-sync" in other, "what it is now"
    question = cli.refused(f"connections approve {awaiting['id']}")
    assert awaiting["role_arn"] in question
    assert "Approve bucket-sync?" in question
    assert cli(f"connections show {awaiting['id']}")["awaiting_approval"]
    approved = cli(f"connections approve {awaiting['id']} --permission-set bucket-sync")
    assert approved["status"] == "verified"
    assert approved["approved"] == "bucket-sync"


def test_what_is_asked_for_after_the_look_is_not_approved_by_the_command(cli, world, monkeypatch):
    """The tenant's key withdraws the set, and asks for another, while the operator reads what
    the command shows.
    """
    tenant = world.tenant()
    made, own = world.connection(tenant), world.key("connections:write", tenant=tenant)
    own("PATCH", path_of(made), {"permission_set": "bucket-sync"})

    def look(question, **_):
        assert question == "Approve bucket-sync?"
        own("PATCH", path_of(made), {"permission_set": "inventory"})
        return True

    monkeypatch.setattr("click.confirm", look)
    assert "does not await approval" in cli.refused(f"connections approve {made['id']}")
    assert world.audit(connection_id=made["id"], action="connection.approved") == []


def test_many_connections_are_proven_by_one_command_and_one_that_refuses_stops_no_other(
    cli, world, acme
):
    suspended, other = world.connection(acme), world.connection(acme)
    world.admin("POST", path_of(suspended, "/suspend"), {"reason": "x"})
    done = cli.raw(f"connections verify --tenant {acme['reference']} --json")
    assert "Proving" in done.stderr, "how far it is"
    rows = {row["id"]: row for row in json.loads(done.stdout)}
    assert {row_id: row["status"] for row_id, row in rows.items()} == {
        suspended["id"]: "suspended",
        other["id"]: "verified",
        acme["connection"]["id"]: "verified",
    }
    assert {row_id: row["verdict"] for row_id, row in rows.items()} == {
        suspended["id"]: None,
        other["id"]: "proven",
        acme["connection"]["id"]: "proven",
    }
    assert "suspended" in rows[suspended["id"]]["why"]
    assert world.audit(connection_id=other["id"])[0]["actor"]["kind"] == "operator"
    assert "suspended" in cli.refused(f"connections verify {suspended['id']}")
    assert cli.raw(f"connections verify {other['id']}").stderr == "", (
        "for one there is nothing to wait for"
    )
    cli.text("connections verify", fails=2)
    cli.text(f"connections verify {other['id']} --tenant {acme['reference']}", fails=2)


def test_why_a_connection_is_not_verified_is_one_command(cli, world):
    tenant = world.tenant()
    kit = world.kit(tenant)
    arn = Customer(world.aws).role(kit["role_name"], without_external_id(kit["trust_policy"]))
    world.connect(tenant, arn, status="insecure")
    text = cli.text(f"connections diagnose '{tenant['name']}'")
    assert "    → " in text
    diagnosis = cli(f"connections diagnose '{tenant['name']}'")
    shown = re.findall(r"^(ok|problem|unknown|skipped) +(\w+) ", text, re.MULTILINE)
    assert shown == [(step["outcome"], step["name"]) for step in diagnosis["steps"]]
    assert diagnosis["conclusion"] == text.splitlines()[0]
    unread = len(diagnosis["permissions"]["unknown"])
    assert text.splitlines()[-1] == f"{unread} rights were not read; --json lists them."


def test_keys_are_replaced(cli, acme):
    made = cli(
        f"keys create --name 'old {time.time_ns()}' --scope all --tenant '{acme['reference']}'"
    )
    successor = cli(f"keys replace {made['id']} --grace 0")
    assert successor["key"] != made["key"]
    listed = {one["id"]: one for one in cli(f"keys list --tenant '{acme['name']}'")}
    assert {one["tenant_id"] for one in listed.values()} == {acme["id"]}
    assert listed[made["id"]]["state"] == "expired"
    assert listed[successor["id"]]["state"] == "live"
    assert listed[made["id"]]["replaced_by"] == successor["id"]
    assert {"keys": 0, "links": 0}.items() <= cli(f"keys show {made['id']}")["made"].items()


def test_links_are_made_listed_and_revoked(cli, world, acme):
    """An empty option, as a script gives it whose variable is not set, gets no default."""
    for option in ("--permission-set", "--region", "--return-url"):
        cli.refused(f"links create {acme['reference']} {option} ''")
    refused = cli.refused(f"links create {acme['reference']} --return-url https://other.example")
    assert "DEPUTY_RETURN_URLS" in refused
    assert cli.text(f"links list {acme['reference']}") == "None found.\n"
    assert cli(f"links list {acme['reference']}") == []
    made = cli(f"links create '{acme['name']}' --days 7")
    path = made["url"][made["url"].index("/onboard/") :]
    assert world.admin.with_key(None).raw("GET", path).status_code == 200
    [listed] = cli(f"links list '{acme['name']}'")
    assert listed["id"] == made["id"]
    assert "url" not in listed
    revoke = f"links revoke {acme['reference']} {made['id']}"
    assert cli.text(revoke) == "Revoked.\n"
    assert world.admin.with_key(None).raw("GET", path).status_code == 404
    assert cli.refused(revoke) == "Error: There is no such link.\n"


def test_a_rotation_is_opened_shown_abandoned_and_completed(cli, world):
    tenant = world.tenant()
    show, open_ = (f"rotation {verb} {tenant['id']}" for verb in ("show", "open"))
    assert cli.refused(show) == "Error: There is no such rotation.\n"
    opened = cli(f"{open_} --reason published")
    assert opened["next_external_id"] == cli(show)["next_external_id"]
    assert "complete it" in cli.refused(f"{open_} --reason again")
    assert cli(f"{open_} --reason abused --emergency")["emergency"]
    cli(f"rotation abandon {tenant['id']}")
    assert cli(show)["state"] == "abandoned"
    cli(f"{open_} --reason published")
    cli(f"rotation complete {tenant['id']}")
    assert cli(f"tenants show {tenant['id']}")["external_id"] != tenant["external_id"]


# --- the audit log ---


def record(app, *event, **changes):
    with app.extensions["deputy"].db.write(SYSTEM) as db:
        db.add(event_of(*event, **changes))


def event_of(tenant, reason, **changes):
    row = {"action": "tenant.changed", "outcome": "ok", "actor_kind": "api_key", "actor_name": "x"}
    row |= {"tenant_id": UUID(tenant["id"]), "details": {"reason": reason}}
    return AuditEvent(**row | changes)


def test_who_got_credentials_for_a_customer_yesterday(app, cli, world, acme):
    worker = world.worker(acme)
    for _ in range(3):
        worker("POST", acme["path"])
    yesterday = now() - timedelta(days=1)
    issued = {"action": "credentials.issued", "id": first_id_at(yesterday), "at": yesterday}
    record(app, acme, "", **issued, actor_id="old", actor_name="the old worker")
    [row] = cli(f"audit issued {acme['reference']} --since yesterday --until today")
    assert row["actor"] == "the old worker"
    assert row["times"] == 1
    rows = cli(f"audit issued {acme['reference']}")
    times = [(row["actor"], row["times"]) for row in rows]
    assert times == [("a program", 3), ("the old worker", 1)]
    assert rows[0]["connection_id"] == acme["connection"]["id"]
    assert rows[0]["first_at"] < rows[0]["last_at"]


def test_what_is_alive_for_a_customer(app, cli, world, acme):
    worker, path = world.worker(acme), acme["path"]
    longer = [worker("POST", path) for _ in range(2)]
    shorter = world.worker(acme)("POST", path, {"duration_seconds": 900})
    expired = {"access_key_id": "ASIAOLD", "expires_at": (now() - timedelta(seconds=1)).isoformat()}
    record(app, acme, "", action="credentials.issued", details=expired)
    rows = cli(f"audit alive {acme['reference']}")
    hand_outs = [(row["access_key_id"], row["hand_outs"]) for row in rows]
    assert hand_outs == [(shorter["AccessKeyId"], 1), (longer[0]["AccessKeyId"], 2)]


def test_a_search_takes_a_key_an_address_a_session_and_several_actions_together(
    app, cli, world, acme
):
    worker = world.worker(acme)
    first = worker("POST", acme["path"])["AccessKeyId"]
    worker("POST", acme["path"])
    worker.refused("GET", "/v1/tenants", expect=403, code="forbidden")
    [issued, *_] = cli(f"audit search --tenant '{acme['name']}' --action credentials.issued")
    by_key = ["audit", "search", "--key", issued["actor_id"]]
    actions = ["credentials.issued", "credentials.issued", "tenant.refused"]
    assert sorted(event["action"] for event in cli(*by_key)) == actions
    assert {event["tenant_id"] for event in cli(*by_key, "--tenant", acme["name"])} == {acme["id"]}
    assert len(cli(*by_key, "--action", "credentials.issued", "--action", "tenant.refused")) == 3
    assert len(cli(*by_key, "--action", "tenant.created", "--action", "tenant.refused")) == 1
    assert len(cli(*by_key, "--access-key-id", first)) == 1
    assert cli(f"audit search --access-key-id '{first}' --tenant {world.tenant()['id']}") == []
    assert len(cli(*by_key, "--address", "::ffff:127.0.0.1")) == 3, "as it is stored: 127.0.0.1"
    assert cli(*by_key, "--address", "127.0.0.2") == []
    assert re.search(rf"\b{acme['id']}\b", cli.text(*by_key)), "whose it is"


def test_the_log_is_searched_by_a_reference_that_looks_like_an_id_and_for_what_is_deleted(
    cli, world, acme
):
    worker, reference = world.worker(acme), str(uuid.uuid4())
    worker("POST", acme["path"])
    world.admin("PATCH", f"/v1/tenants/{acme['id']}", {"reference": reference})
    assert len(cli(f"audit alive {reference}")) == 1
    world.admin("DELETE", path_of(acme["connection"]), expect=204)
    assert cli(f"audit search --connection {acme['connection']['id']} --limit 1")
    world.admin("DELETE", f"/v1/tenants/{acme['id']}", expect=204)
    assert len(cli(f"audit issued {acme['id']}")) == 1


def test_a_search_refuses_what_it_can_not_look_for(cli):
    for option, value, words in (
        ("--address", "203.0.113.0/24", "one IP address"),
        ("--address", "", "one IP address"),
        ("--access-key-id", "ASIA%", "an access key id"),
        ("--key", "nobody's", "There is no such key"),
        ("--action", "tenant.*", "is not one of"),
    ):
        output = cli.text("audit search", option, value, fails=1 + (option != "--key"))
        assert words in re.sub(r"[\s│]+", " ", output)


def test_times_are_given_as_people_say_them_and_a_search_says_when_there_is_more(cli, acme):
    ages = ("1s", "90m", "12h", "7d")
    for since in (*ages, "today", "yesterday", "2026-01-31", "2026-01-31T03:00Z"):
        cli(f"audit search --tenant {acme['reference']} --since '{since}'")
    search = f"audit search --tenant '{acme['name']}' --limit"
    assert "more than 1: raise --limit" in cli.text(f"{search} 1")
    assert "more than" not in cli.text(f"{search} 200")
    for since in ("", "soon", "7", "99999999d", "٣d", "2026-13-01"):
        assert "yesterday, today" in cli.text(f"audit search --since '{since}'", fails=2)
    assert "must be later" in cli.text(f"audit issued {acme['id']} --until 2026-01-31", fails=2)
    backwards = "--since 1h --until 2h"
    for words in (
        "audit search",
        f"audit issued '{acme['name']}'",
        f"webhooks recover {acme['id']}",
    ):
        assert "--until must be later" in cli.text(f"{words} {backwards}", fails=2)


def test_tail_goes_on_until_it_is_interrupted_and_misses_and_repeats_nothing(
    app, cli, world, monkeypatch
):
    tenant, db = world.tenant(), app.extensions["deputy"].db
    before = now() - timedelta(minutes=2)
    ages = iter(range(5))

    def add_one(_seconds):
        """While the command waits, something happens; at last somebody presses Ctrl-C."""
        number = next(ages, None)
        if number is None:
            raise KeyboardInterrupt
        at = before + timedelta(seconds=number)
        with db.write(SYSTEM) as session:
            session.add(event_of(tenant, f"event {number}", id=first_id_at(at), at=at))

    monkeypatch.setattr("app.cli.audit.sleep", add_one)
    said = cli.text(f"audit tail --tenant '{tenant['name']}' --since 10m --json").splitlines()
    reasons = [json.loads(line)["details"]["reason"] for line in said]
    assert reasons == [f"event {number}" for number in range(5)]


def generations_of(world, *tenants):
    with world.admin.app.extensions["deputy"].db.read() as db:
        rows = [db.get_one(Tenant, UUID(tenant["id"])) for tenant in tenants]
    return [row.registration_generation for row in rows]


def test_a_leaked_key_is_revoked_with_the_registration_tokens_that_it_could_read(cli, world, acme):
    other = world.tenant()
    create = f"keys create --name leaked --scope connections:read --tenant '{acme['name']}'"
    leaked, revoked = cli(create), cli(create)
    generations = generations_of(world, acme, other)
    cli.text(f"keys revoke {revoked['id']}")
    assert generations_of(world, acme, other) == generations, "off by default"
    for count, key in enumerate((leaked, revoked), 1):
        answer = cli.text(f"keys revoke {key['id']} --void-registrations")
        assert "The registration tokens of 1 tenant are void." in answer
        assert generations_of(world, acme, other) == [generations[0] + count, generations[1]]
