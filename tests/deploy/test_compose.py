"""deploy/compose.yaml: its services, one by one and in its order, until a customer's page and an API call answer."""

import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import redis

from dev.stack import ROOT
from tests.conftest import NGINX
from tests.deploy.conftest import open_folder
from tests.honesty.front import Aws
from tests.support.certificates import self_signed
from tests.support.compose import DEPLOY, SECRETS, SERVICES, Compose
from tests.support.image import Image
from tests.support.waiting import until

DOCUMENT = (ROOT / "docs" / "deployment.md").read_text()
SELF = "127.0.0.2"  # the client, beside the proxy at 127.0.0.1
ROLE = "arn:aws:iam::444455556666:role/deputy-composed"


def make_secrets(folder: Path) -> Path:
    """By the guide's own commands, in a copy of deploy/. Returns the certificate of its authority."""
    shutil.copytree(DEPLOY, folder / "deploy")
    script = re.search(r"<!-- secrets -->\n+```sh\n(.*?)```", DOCUMENT, re.DOTALL)[1]
    certificate, key = self_signed(folder)
    script = script.replace("/path/to/fullchain.pem", str(certificate)).replace("/path/to/privkey.pem", str(key))
    script = re.sub(r"(?m)^sudo " if os.geteuid() == 0 else r"(?m)^sudo .*$", "", script)
    subprocess.run(["sh", "-eu", "-c", script], cwd=folder, check=True)
    return certificate


class Site:
    """What a customer and a program see: nginx with its certificate, or web processes where there is no nginx."""

    def __init__(self, composed: Compose, certificate: Path) -> None:
        self._proxied = "proxy" in composed.started
        self._port = composed.ports["proxy", 443] if self._proxied else composed.ports["web", 8000]
        self._tls = ssl.create_default_context(cafile=certificate)
        made = composed.run("web", "flask", "--app", "wsgi", "keys", "create", "--name", "admin", "--scope", "all")
        self.key = made.split()[-1]

    def ask(self, method: str, path: str, body: Any = None, claimed: str = "") -> str:
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

    def api(self, method: str, path: str, body: Any = None, claimed: str = "") -> Any:
        return json.loads(self.ask(method, path, body, claimed))

    def _connection(self) -> HTTPConnection:
        if self._proxied:
            return HTTPSConnection("localhost", self._port, timeout=20, source_address=(SELF, 0), context=self._tls)
        return HTTPConnection("localhost", self._port, timeout=20)


@pytest.fixture(scope="module")
def composed(image: Image, settings: dict[str, str]) -> Iterator[tuple[Compose, Site]]:
    with open_folder() as folder:
        certificate = make_secrets(folder)
        with Compose(folder / "deploy", image, settings) as made:
            yield made, Site(made, certificate)


def by_name(readiness: Any) -> dict[str, Any]:
    return {check["name"]: check for check in readiness["checks"]}


def test_the_services_start_in_this_order(composed):
    made, _ = composed
    order = [name for name in made.started if name not in {"cache", "worker"}]
    assert order == ["database", "migrate", "web", *(["proxy"] if NGINX else [])]
    assert made.started.index("cache") < made.started.index("web")
    assert set(made.started) | {"proxy"} == set(SERVICES)


def test_a_customers_page_and_an_api_call_answer(composed, front: Aws):
    """From the page to credentials, through the proxy's TLS."""
    made, site = composed
    tenant = site.api("POST", "/v1/tenants", {"name": "Acme"})
    link = site.api("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {})["url"]
    assert link.startswith("https://deputy.example.com/onboard/")
    assert tenant["external_id"] in site.ask("GET", link.removeprefix("https://deputy.example.com"))

    front.register(ROLE, tenant["external_id"])
    connection = site.api("POST", f"/v1/tenants/{tenant['id']}/connections", {"role_arn": ROLE})
    assert connection["status"] == "verified"
    path = f"/v1/tenants/{tenant['id']}/connections/{connection['id']}/credentials"
    assert site.api("POST", path, {})["AccessKeyId"].startswith("ASIA")
    with closing(redis.Redis(port=made.ports["cache", 6379])) as cache:
        until(cache.dbsize, "the session is in the shared cache")


def test_the_background_worker_is_there(composed):
    _, site = composed

    def ready() -> bool:
        return {"name": "workers", "status": "ok"}.items() <= by_name(site.api("GET", "/readyz"))["workers"].items()

    until(ready, "the background worker is seen")


def test_the_clients_address_is_the_proxys_client_and_not_what_it_claims(composed):
    _, site = composed
    site.api("POST", "/v1/tenants", {"name": "Globex"}, claimed="203.0.113.9")
    (event,) = site.api("GET", "/v1/audit-events?action=tenant.created&limit=1")["items"]
    assert event["client_address"] == SELF


# --- the definitions themselves ---


def of_deputy() -> dict[str, dict[str, Any]]:
    return {name: one for name, one in SERVICES.items() if one["image"].startswith("deputy:")}


def test_deputys_own_services_can_write_nothing_and_gain_nothing():
    assert len(of_deputy()) == 3
    for one in of_deputy().values():
        assert one["read_only"]
        assert one["tmpfs"] == ["/tmp"]  # noqa: S108
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert "user" not in one, "the image's own"


def test_no_process_works_on_a_schema_that_is_not_there_yet():
    for name in ("web", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["database"] == {"condition": "service_healthy"}


def test_only_the_proxy_is_reached_from_outside():
    assert [name for name, one in SERVICES.items() if "ports" in one] == ["proxy"]
    for name in ("database", "cache"):
        assert SERVICES[name]["networks"] == ["inside"]


def test_no_secret_is_in_an_environment_and_each_is_somebodys():
    names = [name for one in SERVICES.values() for name in one.get("environment", ())]
    secret = [name for name in names if re.search("PASSWORD|KEY|DATABASE_URL", name)]
    assert len(secret) == 7
    assert [name for name in secret if not name.endswith("_FILE")] == []
    assert {name for one in SERVICES.values() for name in one.get("secrets", ())} == set(SECRETS)


def directives() -> dict[str, str]:
    """Those of nginx.conf that come once."""
    text = re.sub(r"#.*", "", (DEPLOY / "nginx.conf").read_text())
    found = re.findall(r"^\s*(\w+) ([^;{}]+);", text, re.MULTILINE)
    return {name: words for name, words in found if [other for other, _ in found].count(name) == 1}


def test_the_proxy_bounds_unknown_clients_and_hands_on_whole_requests_alone():
    """docs/operations.md says that it does these things."""
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
    kept = int(re.search(r"^keepalive = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])
    assert int(directives()["keepalive_timeout"].rstrip("s")) < kept, "it closes idle connections, and not Deputy"


def test_the_services_have_longer_to_end_than_their_requests():
    graceful = int(re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])
    for name in ("web", "worker"):
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > graceful
