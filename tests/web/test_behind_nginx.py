"""The service below a path of somebody else's address, behind a real nginx: pages, forms,
redirects, links, documents.

nginx takes the path off, or hands it on where the API and its documents are tried: all routes take
it off at one place.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import pytest
import urllib3
from bs4 import BeautifulSoup
from flask import Flask

from app.factory import create_app
from app.web.onboarding import routes
from dev.ports import free_port
from tests.client.people import served
from tests.conftest import NGINX, NO_NGINX, make_config
from tests.support.cast import Api
from tests.support.plain_requests import install

pytestmark = pytest.mark.skipif(NGINX is None, reason=NO_NGINX)

PREFIX = "/tools/deputy"
_CONFIG = """
pid {folder}/nginx.pid;
error_log stderr;
daemon off;
{user}
events {{ worker_connections 64; }}
http {{
  access_log off;
  {temporary}
  server {{
    listen 127.0.0.1:{port};
    location {prefix}/ {{
      proxy_pass {behind};
      proxy_set_header Host $http_host;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""
_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass
class Site:
    """The service as the world sees it."""

    app: Flask
    url: str  # with the path
    http: urllib3.PoolManager

    def ask(self, method, url, **options):
        return self.http.request(method, urljoin(f"{self.url}/", url), redirect=False, **options)

    def elsewhere(self, links):
        """Those links that lead out of the path, though not to another site."""
        whole = [urljoin(f"{self.url}/onboard/x", link) for link in links]
        ours = [link for link in whole if urlsplit(link).netloc == urlsplit(self.url).netloc]
        assert ours
        return [link for link in ours if not link.startswith(f"{self.url}/")]


@contextmanager
def nginx(folder, port, behind):
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _KINDS)
    user = "user root;" if os.geteuid() == 0 else ""  # whose folder it is
    text = _CONFIG.format(
        folder=folder, temporary=temporary, user=user, port=port, prefix=PREFIX, behind=behind
    )
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"])
    try:
        retries = urllib3.Retry(60, backoff_factor=0.05, backoff_max=0.5)  # until it listens
        urllib3.PoolManager().request("GET", f"http://127.0.0.1:{port}/", retries=retries)
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module", params=["/", ""], ids=["taken off", "handed on"])
def site(request, vendor, config, tmp_path_factory) -> Iterator[Site]:
    port = free_port()
    url = f"http://127.0.0.1:{port}{PREFIX}"
    app = create_app(make_config(config.database.database_url, public_url=url))
    install(app)
    routes._rendered.cache_clear()  # of other tests in this process, which are at no path
    with (
        served(app) as own,
        nginx(tmp_path_factory.mktemp("nginx"), port, f"http://127.0.0.1:{own}{request.param}"),
        urllib3.PoolManager() as http,
    ):
        yield Site(app, url, http)
    routes._rendered.cache_clear()
    app.extensions["deputy"].db.engine.dispose()


def link_of(site, world, tenant):
    api = Api(site.app, world.admin.key)
    url = api("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)["url"]
    assert url.startswith(f"{site.url}/onboard/")
    return url


@pytest.mark.parametrize("site", ["/"], ids=["taken off"], indirect=True)
def test_the_pages_files_forms_and_redirects_stay_below_the_path(site, world):
    tenant = world.tenant()
    link = link_of(site, world, tenant)
    page = BeautifulSoup(site.ask("GET", link).data, "html.parser")
    files = [tag.get("src") or tag["href"] for tag in page.select("script[src], link[href]")]
    forms = [form["action"] for form in page.select("form[action]")]
    live = [tag["hx-get"] for tag in page.select("[hx-get]")]
    assert len(files) >= 4
    assert forms
    assert live
    own = [link["href"] for link in page.select("a[href]") if link["href"].startswith("/")]
    assert site.elsewhere([*files, *forms, *live, *own]) == []
    for url in {*files, *live, *own}:
        assert site.ask("GET", url).status in {200, 204}, url

    form = page.select_one("form.paste")["action"]
    refused = site.ask("POST", form, fields={"role_arn": "nonsense"})
    role = world.role(tenant)
    sent = site.ask("POST", form, fields={"role_arn": role})
    assert refused.status == 422
    assert sent.status == 303
    assert site.elsewhere([sent.headers["Location"]]) == []
    after = site.ask("GET", sent.headers["Location"])
    assert after.status == 200
    assert urlsplit(role).path.rpartition("/")[2] in after.data.decode()
    gone = site.ask("GET", f"onboard/{'x' * 43}")
    assert gone.status == 404
    for other in (refused, gone):
        links = BeautifulSoup(other.data, "html.parser").select("link")
        assert site.elsewhere(link["href"] for link in links) == []


def test_the_api_and_its_documents_stay_below_the_path(site, world):
    headers = {"Authorization": f"Bearer {world.admin.key}"}
    document = site.ask("GET", "openapi.json").json()
    assert document["servers"] == [{"url": site.url}]
    moved = site.ask("GET", "docs")
    assert moved.status == 302
    assert urljoin(site.url, moved.headers["Location"]) == f"{site.url}/docs/"
    docs = site.ask("GET", "docs/")
    assert f'"url": "{PREFIX}/openapi.json"' in docs.data.decode()
    page = BeautifulSoup(docs.data, "html.parser")
    files = [tag.get("src") or tag["href"] for tag in page.select("script[src], link[href]")]
    assert site.elsewhere(files) == []
    for url in files:
        assert site.ask("GET", url).status == 200, url

    world.tenant(), world.tenant()
    first = site.ask("GET", "v1/tenants?limit=1", headers=headers).json()
    query = f"v1/tenants?limit=1&cursor={first['next_cursor']}"
    second = site.ask("GET", query, headers=headers)
    assert second.status == 200
    assert second.json()["items"] != first["items"]
    for prefix in ("", PREFIX):  # a cursor is signed with the path of the API's own route
        asked = site.app.test_client().get(f"{prefix}/{query}", headers=headers)
        assert asked.status_code == 200, asked.text


def test_a_plain_request_for_credentials_is_answered_below_the_path(site, world, monkeypatch):
    connection = world.connection()
    path = f"v1/tenants/{connection['tenant_id']}/connections/{connection['id']}/credentials"
    headers = {"Authorization": f"Bearer {world.admin.key}"}
    assert site.ask("POST", path, headers=headers).status == 200, (
        "from now on the process knows the key"
    )
    monkeypatch.setattr(
        site.app, "full_dispatch_request", lambda: pytest.fail("not as a plain request")
    )
    issued = site.ask("POST", path, headers=headers)
    assert issued.status == 200, issued.data
    assert issued.json()["Version"] == 1
