"""deploy/compose.yaml: its services, one by one and in its order, until a customer's page and an
API call answer.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from dev.postgres import Postgres
from tests.conftest import NGINX
from tests.deploy.compose import BY_HAND, DEPLOY, NETWORKS, SECRETS, SERVICES, Compose, make_roles
from tests.deploy.conftest import (
    DOCUMENT,
    commands,
    exit_code_of_health_check,
    of_gunicorn,
    open_folder,
)
from tests.support.certificates import self_signed
from tests.support.waiting import until

SELF = "127.0.0.2"  # the client, beside the proxy at 127.0.0.1
ROLE = "arn:aws:iam::444455556666:role/deputy-composed"
PROXY = ["proxy"] if NGINX else []


def make_secrets(folder):
    """By the guide's own commands, in a copy of deploy/. Returns the certificate of its
    authority.
    """
    shutil.copytree(DEPLOY, folder / "deploy")
    certificate, key = self_signed(folder)
    script = commands("secrets")
    script = script.replace("/path/to/fullchain.pem", str(certificate)).replace(
        "/path/to/privkey.pem", str(key)
    )
    script = re.sub(r"(?m)^sudo " if os.geteuid() == 0 else r"(?m)^sudo .*$", "", script)
    docker = folder / "docker"  # which this machine need not have: it prints a digest
    docker.write_text(f"#!/bin/sh\necho sha256:{'0' * 64}\n")
    docker.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    subprocess.run(["sh", "-eu", "-c", script], cwd=folder, env={"PATH": path}, check=True)
    copied = {path.name for path in DEPLOY.rglob("*")}
    made = [path for path in (folder / "deploy").rglob("*") if path.name not in copied]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o600}
    return certificate


def walk(composed, name, publisher):
    """Give the guide's commands, in their order. Return what the operator's printed, by the
    command.
    """
    printed = {}
    for line in commands(name).splitlines():
        match shlex.split(line):
            case ["compose", "run", "--rm", "--build", "publish"]:
                assert "customer-role" in composed.run("publish", env=publisher)
            case ["compose", "run", "--rm", "operator", *words]:
                ends = (0, 1, 2) if words[-1] == "doctor" else (0,)
                printed[words[3]] = composed.run("operator", *words, ends=ends)
            case ["compose", "up", "--build", "--detach"]:
                composed.up()
            case ["compose()" | "echo", *_]:
                pass
            case other:
                raise AssertionError(other)
    return printed


class Site:
    """What a customer and a program see: nginx with its certificate, or web processes where
    there is no nginx.
    """

    def __init__(self, composed, certificate, key):
        self._proxied = "proxy" in composed.started
        self._port = composed.ports["proxy", 443] if self._proxied else composed.ports["web", 8000]
        self._tls = ssl.create_default_context(cafile=certificate)
        self.key = key

    def ask(self, method, path, body=None, claimed=""):
        """`claimed`: what the client says of its own address, which is SELF."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if claimed:  # where there is no proxy, what it would have handed on
            headers["X-Forwarded-For"] = claimed if self._proxied else f"{claimed}, {SELF}"
        with closing(self._connection()) as http:
            http.request(method, path, None if body is None else json.dumps(body), headers)
            answer = http.getresponse()
            text = answer.read().decode()
        assert answer.status in {200, 201}, text
        return text

    def api(self, method, path, body=None, claimed=""):
        return json.loads(self.ask(method, path, body, claimed))

    def _connection(self):
        if self._proxied:
            return HTTPSConnection(
                "localhost", self._port, timeout=20, source_address=(SELF, 0), context=self._tls
            )
        return HTTPConnection("localhost", self._port, timeout=20)


def test_the_guides_commands_launch_one_machine_and_a_later_release(
    image, publish_image, settings, publisher, front
):
    before = image.files()
    with open_folder() as folder:
        certificate = make_secrets(folder)
        with Compose(
            folder / "deploy", {"deputy": image, "deputy-publish": publish_image}, settings
        ) as composed:
            printed = walk(composed, "one machine", publisher)
            site = Site(composed, certificate, printed["keys"].split()[-1])
            assert_the_services_started_in_order(composed)
            fine = re.findall(r"^ok +(rights|aws)\b", printed["doctor"], re.MULTILINE)
            assert fine == ["rights", "aws"]
            assert_only_background_workers_own_tables(composed)
            assert_a_customers_page_and_credentials_are_served(composed, site, front)
            assert_the_worker_recorded_what_was_published(site)
            assert_the_clients_address_is_the_proxys_client(site)
            assert_the_images_processes_are_its_users_and_healthy(composed, image)
            processes = dict(composed._running)
            # of which other templates are made
            composed.settings["DEPUTY_VENDOR_NAME"] = "Example Vendor 2"
            assert_a_later_launch_publishes_first(composed, site, publisher)
            assert [processes[name].returncode for name in ("web", "worker")] == [0, 0]
    assert image.files() == before, "a process changed a file of its image"


def assert_the_services_started_in_order(composed):
    order = [name for name in composed.started if name not in {"cache", "worker"}]
    first = ["publish", "database", "roles", "migrate", "web"]
    assert order == [*first, *PROXY, "operator", "operator"]
    assert composed.started.index("cache") < composed.started.index("web")
    assert set(composed.started) | {"proxy"} == set(SERVICES)


def assert_only_background_workers_own_tables(composed):
    """They own the months of the audit log, and web processes nothing."""
    logins = {}
    for name in ("web", "operator", "worker", "migrate"):
        url = Path(composed._environment(name)["DEPUTY_DATABASE_URL_FILE"]).read_text()
        with psycopg.connect(url.replace("+psycopg", "")) as db:
            logins[name] = db.info.user
            owned, superuser = db.execute(
                "SELECT (SELECT count(*) FROM pg_tables WHERE tableowner = rolname), rolsuper"
                " FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert (owned > 10) is (name in {"worker", "migrate"}), name
            assert not superuser
            if name == "web":
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    db.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
    assert logins == {
        "web": "deputy_web",
        "operator": "deputy_web",
        "worker": "deputy",
        "migrate": "deputy",
    }


def assert_a_customers_page_and_credentials_are_served(composed, site, front):
    """Through the proxy's TLS."""
    tenant = site.api("POST", "/v1/tenants", {"name": "Acme"})
    link = site.api("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {})["url"]
    assert link.startswith("https://deputy.example.com/onboard/")
    assert tenant["external_id"] in site.ask("GET", link.removeprefix("https://deputy.example.com"))

    front.register(ROLE, tenant["external_id"])
    connection = site.api("POST", f"/v1/tenants/{tenant['id']}/connections", {"role_arn": ROLE})
    assert connection["status"] == "verified"
    path = f"/v1/tenants/{tenant['id']}/connections/{connection['id']}/credentials"
    assert site.api("POST", path, {})["AccessKeyId"].startswith("ASIA")
    with closing(redis.Redis(port=composed.ports["cache", 6379])) as cache:
        until(cache.dbsize, "the session is in the shared cache")


def assert_the_worker_recorded_what_was_published(site):
    until(
        lambda: site.api("GET", "/v1/permission-sets/inventory/versions")["items"],
        "the version is recorded",
    )
    events = site.api("GET", "/v1/audit-events?action=permission_set.published&limit=200")
    assert events["items"][-1]["actor"]["kind"] == "worker"


def assert_the_clients_address_is_the_proxys_client(site):
    """And not what the client claims."""
    site.api("POST", "/v1/tenants", {"name": "Globex"}, claimed="203.0.113.9")
    (event,) = site.api("GET", "/v1/audit-events?action=tenant.created&limit=1")["items"]
    assert event["client_address"] == SELF


def assert_the_images_processes_are_its_users_and_healthy(composed, image):
    assert [*composed._words("web")[:1], *composed._words("web")[3:]] == image.command, (
        "with an address of its own"
    )
    assert exit_code_of_health_check(image, composed.ports["web", 8000]) == 0
    for name in ("web", "worker"):
        process = psutil.Process(composed._running[name].pid)
        assert image.uid is None or process.uids().effective == image.uid


def assert_a_later_launch_publishes_first(composed, site, publisher):
    count = len(composed.started)
    walk(composed, "one machine, later", publisher)
    order = [name for name in composed.started[count:] if name != "worker"]
    assert order == ["publish", "roles", "migrate", "web", *PROXY, "operator"]

    def ready():
        checks = site.api("GET", "/readyz")["checks"]
        states = {check["name"]: check["status"] for check in checks}
        return states.items() >= {"templates": "ok", "workers": "ok"}.items()

    until(ready, "the new templates are served, and a background worker is seen")


# --- the definitions themselves ---


def test_no_service_can_write_or_gain_anything():
    deputys = [one for one in SERVICES.values() if one["image"].startswith("deputy:")]
    assert len(deputys) == 4
    for one in deputys:
        assert one["tmpfs"] == ["/tmp"]  # noqa: S108
        assert "user" not in one, "the image's own"
    for one in SERVICES.values():
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert "cap_add" not in one
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert "build" in one or not re.match("0|root", str(one["user"]))


def test_each_image_is_named_by_a_digest_that_somebody_has_looked_up():
    for one in SERVICES.values():
        named = one["image"].partition("@")[2]
        if "build" in one:
            named = one["build"]["args"]["PYTHON_DIGEST"]
        assert re.fullmatch(
            r"\$\{(PYTHON|POSTGRES|VALKEY|NGINX)_DIGEST:\?see docs/deployment.md, One machine\}",
            named,
        )


def test_only_what_needs_the_brokers_credentials_reaches_the_metadata_service():
    """It answers the machine's own network alone: the guide sets its hop limit to 1, and demands
    IMDSv2.
    """
    on_host = {name for name, one in SERVICES.items() if one.get("network_mode") == "host"}
    assert on_host == {"web", "worker", "operator"}
    assert SERVICES["migrate"]["networks"] == ["data"]
    assert "--http-tokens required" in DOCUMENT
    assert re.findall(r"hop-limit (\d+)", DOCUMENT) == ["1"]


def test_nothing_keeps_the_key_that_a_command_prints():
    assert SERVICES["operator"]["logging"] == {"driver": "none"}
    printing = re.findall(
        r"^(.*flask --app wsgi (?:keys|links) (?:create|replace|generate).*)$",
        DOCUMENT,
        re.MULTILINE,
    )
    assert {line.partition("flask --app")[0].removeprefix("new_key() { ") for line in printing} == {
        'docker run --rm --log-driver none "$IMAGE" ',
        "compose run --rm operator ",
        ".venv/bin/",  # in a root shell
    }


def test_publishing_gets_none_of_deputys_secrets():
    assert not SERVICES["publish"].get("secrets")
    assert SERVICES["publish"]["env_file"] == ["settings.env"]
    assert {"publish", "operator"} == BY_HAND


def test_only_the_proxy_is_reached_from_outside():
    assert [name for name, one in SERVICES.items() if "ports" in one] == ["proxy"]
    for name in ("database", "cache"):
        assert list(SERVICES[name]["networks"]) == ["data"]
    assert NETWORKS["data"]["internal"] is NETWORKS["front"]["internal"] is True


def test_no_secret_is_in_an_environment_and_each_is_somebodys():
    named = [one["environment"] for one in SERVICES.values() if "environment" in one]
    names = itertools.chain.from_iterable(one for one in named if isinstance(one, dict))
    secret = [name for name in names if re.search("PASSWORD|KEY|DATABASE_URL", name)]
    assert len(secret) == 11
    assert all(name.endswith("_FILE") for name in secret)
    listed = [secret for one in SERVICES.values() for secret in one.get("secrets", ())]
    assert {one if isinstance(one, str) else one["source"] for one in listed} == set(SECRETS)


def directives():
    """Those of nginx.conf that come once."""
    text = re.sub(r"#.*", "", (DEPLOY / "nginx.conf").read_text())
    found = re.findall(r"^\s*(\w+) ([^;{}]+);", text, re.MULTILINE)
    return {name: words for name, words in found if [other for other, _ in found].count(name) == 1}


def test_the_proxy_bounds_unknown_clients_and_hands_on_whole_requests_alone():
    """Check what docs/deployment.md says of the proxy."""
    assert directives().items() >= {
        ("proxy_request_buffering", "on"),
        ("limit_conn", "clients 50"),
        ("limit_conn_status", "429"),
        ("limit_req", "zone=requests burst=200 nodelay"),
        ("limit_req_status", "429"),
        ("client_header_timeout", "10s"),
        ("client_body_timeout", "10s"),
        ("client_max_body_size", "256k"),
        ("access_log", "off"),  # a path may hold an onboarding link's token
        ("ssl_protocols", "TLSv1.2 TLSv1.3"),
    }
    assert int(directives()["keepalive_timeout"].rstrip("s")) < of_gunicorn("keepalive"), (
        "it closes idle connections, and not Deputy"
    )


def test_the_services_have_longer_to_end_than_their_requests():
    for name in ("web", "worker"):
        seconds = int(SERVICES[name]["stop_grace_period"].rstrip("s"))
        assert seconds > of_gunicorn("graceful_timeout")


def test_the_roles_keep_their_passwords_if_a_file_is_missing(tmp_path):
    """psql then goes on with an empty text, and an empty password lets nobody in."""
    paths = {name: tmp_path / name for name in ("OWNER_PASSWORD_FILE", "WEB_PASSWORD_FILE")}
    for name, path in paths.items():
        path.write_text(f"a-password-of-{name}")

    def passwords(db):
        asked = "SELECT rolpassword FROM pg_authid WHERE rolname IN ('deputy', 'deputy_web')"
        return db.execute(asked).fetchall()

    with Postgres() as server, psycopg.connect(login := server.url().replace("+psycopg", "")) as db:
        make_roles(login, paths)
        before = passwords(db)
        paths["WEB_PASSWORD_FILE"].write_text("\n")
        make_roles(login, paths, fails=True)
        paths["WEB_PASSWORD_FILE"].unlink()
        make_roles(login, paths, fails=True)
        assert passwords(db) == before
        assert "a-password" not in (server._home / "log").read_text()
    assert len(before) == 2
    assert (None,) not in before
