"""deploy/compose.yaml: its services, one by one and in its order, until a customer's page and an API call answer."""

import json
import os
import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.stack import ROOT
from tests.conftest import NGINX, NO_NGINX
from tests.deploy.conftest import open_folder
from tests.honesty.front import Aws
from tests.support.certificates import self_signed
from tests.support.compose import DEPLOY, SECRETS, SERVICES, Compose
from tests.support.image import Image
from tests.support.waiting import until

DOCUMENT = (ROOT / "docs" / "deployment.md").read_text()
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
        proxied = "proxy" in composed.started
        self.url = (
            f"https://localhost:{composed.ports['proxy', 443]}"
            if proxied
            else f"http://127.0.0.1:{composed.ports['web', 8000]}"
        )
        self._tls = ssl.create_default_context(cafile=certificate) if proxied else None
        self.key = composed.run(
            "web", "flask", "--app", "wsgi", "keys", "create", "--name", "admin", "--scope", "all"
        ).split()[-1]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, context=self._tls, timeout=20) as answer:
            text: str = answer.read().decode()
        return text

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers}
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        with urllib.request.urlopen(request, context=self._tls, timeout=20) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def composed(image: Image, settings: dict[str, str]) -> Iterator[tuple[Compose, Site]]:
    with open_folder() as folder:
        certificate = make_secrets(folder)
        with Compose(folder / "deploy", image, settings) as made:
            yield made, Site(made, certificate)


def by_name(readiness: Any) -> dict[str, Any]:
    return {check["name"]: check for check in readiness["checks"]}


def test_they_start_in_this_order(composed):
    made, _ = composed
    order = [name for name in made.started if name not in {"cache", "worker"}]
    assert order == ["database", "migrate", "web", *(["proxy"] if NGINX else [])]
    assert made.started.index("cache") < made.started.index("web")
    assert set(made.started) | {"proxy"} == set(SERVICES)


def test_a_customers_page_and_an_api_call_answer(composed, front: Aws):
    """From the page to credentials, through the proxy's TLS."""
    _, site = composed
    tenant = site.api("POST", "/v1/tenants", {"name": "Acme"})
    link = site.api("POST", f"/v1/tenants/{tenant['id']}/onboarding-links")["url"]
    assert link.startswith("https://deputy.example.com/onboard/")
    assert tenant["external_id"] in site.get(link.removeprefix("https://deputy.example.com"))

    front.register(ROLE, tenant["external_id"])
    connection = site.api("POST", f"/v1/tenants/{tenant['id']}/connections", {"role_arn": ROLE})
    assert connection["status"] == "verified"
    path = f"/v1/tenants/{tenant['id']}/connections/{connection['id']}/credentials"
    assert site.api("POST", path)["AccessKeyId"].startswith("ASIA")


def test_the_background_worker_and_the_cache_are_there(composed):
    made, site = composed

    def ready() -> bool:
        return {"name": "workers", "status": "ok"}.items() <= by_name(site.api("GET", "/readyz"))["workers"].items()

    until(ready, "the background worker is seen")
    assert "cache.lost" not in made.said("web")


@pytest.mark.skipif(NGINX is None, reason=NO_NGINX)
def test_the_clients_address_is_the_proxys_client_and_not_what_it_claims(composed):
    _, site = composed
    site.api("POST", "/v1/tenants", {"name": "Globex"}, **{"X-Forwarded-For": "203.0.113.9"})
    (event,) = site.api("GET", "/v1/audit-events?action=tenant.created&limit=1")["items"]
    assert event["client_address"] == "127.0.0.1"


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


def test_they_have_longer_to_end_than_their_requests():
    graceful = int(re.search(r"^graceful_timeout = (\d+)", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])
    for name in ("web", "worker"):
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > graceful
