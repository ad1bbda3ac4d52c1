"""The vendor's name, as it is and as the settings take it: in YAML, HCL, shell, HTML and URLs it
stays a name.
"""

import re
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from hypothesis import example, given, settings, strategies as st

from app.aws.templates import render
from app.config import Config, ConfigError
from app.factory import create_app
from app.permissions import permission_sets
from app.settings.valid_values import VENDOR_NAME_ASCII, ascii_form, identifies_vendor, vendor_name
from tests.attacks.evidence import case
from tests.attacks.test_attack_links_and_templates import Loader
from tests.conftest import with_settings
from tests.support.cast import Api, World


def parsed(config, name):
    template = render(with_settings(config, vendor_name=name), permission_sets.load()["inventory"])
    # a SafeLoader of ours
    return yaml.load(template.body.replace(template.version, "version"), Loader)  # noqa: S506


def renamed(value, name):
    """The parsed template with another vendor's name put where Example Vendor's is, and no
    spaces, which YAML folds.
    """
    if isinstance(value, str):
        return re.sub(r"\s", "", value.replace("Example Vendor", name))
    if isinstance(value, dict):
        return {key: renamed(item, name) for key, item in value.items()}
    return [renamed(item, name) for item in value] if isinstance(value, list) else value


def vendor_names():
    """What the settings take: one line of anything printable, of which two letters remain in
    ASCII.
    """
    plain = st.sampled_from("aZ7 .+-,'\"&<>${}%#:`;|\\/=*!?()[]@~^_äßÉé東京株😀٣")
    names = st.text(
        st.one_of(plain, st.characters(categories=["L", "M", "N", "P", "S"])), max_size=64
    )
    return names.filter(lambda name: _is_taken(name) and identifies_vendor(ascii_form(name)))


def _is_taken(name):
    with suppress(ValueError):
        return vendor_name(name) == name
    return False


# Every one of them is allowed.
VENDORS = [
    "O'Reilly & Söhne, Ltd.",
    '</title><script>alert(1)</script>"><img src=x onerror=alert(1)>',
    "{{ config.secret_keys }}{% raw %} '; $(reboot) `reboot` \\",
    "株式会社 &param_ExternalId=dpy-x#/../?a=b",
    '"${file(1)}" %{ if true }x%{ endif }',
    "Acme: evil # comment, - *a !Ref &b ${AWS::AccountId}",
]


@settings(max_examples=20, deadline=None, database=None)
@given(name=vendor_names())
@example(name="null")
@example(name="yes ---")
@example(name=VENDORS[0])
@example(name=VENDORS[5])
def test_no_vendor_name_that_is_allowed_changes_more_than_the_name(config, name):
    """Templates hold its ASCII form everywhere in the YAML."""
    form = ascii_form(name)
    assert re.fullmatch(VENDOR_NAME_ASCII, form)
    assert renamed(parsed(config, name), form) == renamed(plainly_parsed(config), form)


@cache
def plainly_parsed(config):
    return parsed(config, "Example Vendor")


@pytest.fixture(scope="module")
def acme(aws, admin) -> dict[str, Any]:
    return World(aws, admin).tenant()


@pytest.fixture(scope="module")
def plain_elements(config, admin, acme) -> list[tuple[str, list[str]]]:
    """Of a vendor whose name has nothing in it that anything could take for more than a name."""
    with serving(with_settings(config, vendor_name="Plain"), admin) as (plain, _):
        return elements(plain, acme)


@pytest.mark.parametrize("name", VENDORS[1:4])
def test_a_vendor_name_stays_a_name_on_the_page_and_in_links(
    config, admin, acme, plain_elements, name
):
    with serving(with_settings(config, vendor_name=name), admin) as (api, app):
        assert elements(api, acme) == plain_elements
        page = page_of(api, acme)
        assert page.select_one(".who").get_text() == f"{name} for {acme['name']}"
        assert app.test_client().get("/openapi.json").get_json()["info"]["contact"]["name"] == name
        kit = api("GET", f"/v1/tenants/{acme['id']}/onboarding")
    link = urlsplit(kit["launch_stack_url"])
    assert link.netloc == f"{kit['region']}.console.aws.amazon.com"
    assert set(parse_qs(link.fragment.partition("?")[2])) == {
        *("templateURL", "stackName", "param_ExternalId", "param_RoleName")
    }


@contextmanager
def serving(config, admin):
    """The service with other settings on the same database."""
    app = create_app(config)
    yield Api(app, admin.key), app
    app.extensions["deputy"].db.engine.dispose()


def page_of(api, tenant):
    url = api("POST", f"/v1/tenants/{tenant['id']}/onboarding-links", {}, expect=201)["url"]
    response = api.with_key(None).raw("GET", urlsplit(url).path)
    assert response.status_code == 200
    return BeautifulSoup(response.text, "html.parser")


def elements(api, tenant):
    """Every element and its attributes' names; also of the pages that a wrong link and a wrong
    form answer with.
    """
    gone = BeautifulSoup(api.with_key(None).raw("GET", f"/onboard/{'x' * 43}").text, "html.parser")
    return [
        (tag.name, sorted(tag.attrs))
        for soup in (page_of(api, tenant), gone)
        for tag in soup.find_all()
    ]


def settings_with(monkeypatch, config, **changes):
    given = {
        "DATABASE_URL": "postgresql+psycopg://x",
        "SECRET_KEYS": "first-secret-key-of-the-tests-0123456789",
        "BROKER_PRINCIPAL_ARN": config.aws.broker.arn,
        "TEMPLATE_BUCKET": config.aws.template_bucket,
    }
    for variable, value in (given | changes).items():
        monkeypatch.setenv(f"DEPUTY_{variable}", value)
    # without the sandbox's fixture there is none
    monkeypatch.setenv("AWS_REGION", config.aws.region)
    return Config.from_environment()


REFUSED = ["", "Acme ", "Acme\nb", "Acme\x1b[31m", "Acme\u2028b", "Acme\u202eb", "Acme\u200bb"]
REFUSED += ["Acme\udcff", "A" * 65]
NOT_IN_ASCII = ["東京", "株式会社 A", "24", "\u33a5" * 64]
NO_ASCII_FORM = ["A: b", "A\n", "A${b}", "Ä", "A" * 65, "-A"]


def test_a_vendor_name_is_taken_as_it_is_or_refused_or_asks_for_its_letters(config, monkeypatch):
    """AWS takes ASCII letters alone in some places."""
    assert [name for name in VENDORS if not _is_taken(name)] == []
    assert [name for name in REFUSED if _is_taken(name)] == []
    for name in NOT_IN_ASCII:
        with case(name):
            with (
                monkeypatch.context() as patch,
                pytest.raises(ConfigError, match="DEPUTY_VENDOR_NAME_ASCII: must be set"),
            ):
                settings_with(patch, config, VENDOR_NAME=name)
            with monkeypatch.context() as patch:
                taken = settings_with(patch, config, VENDOR_NAME=name, VENDOR_NAME_ASCII="Tokyo 24")
            assert (taken.vendor.vendor_name, taken.vendor.vendor_in_aws) == (name, "Tokyo 24")
    for form in NO_ASCII_FORM:
        with case(form), pytest.raises(ConfigError, match="DEPUTY_VENDOR_NAME_ASCII: must match"):
            settings_with(monkeypatch, config, VENDOR_NAME="東京", VENDOR_NAME_ASCII=form)
