"""Links and templates are made of the deployment's own settings, not of Host, query, names or
parameters.
"""

from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.attacks.evidence import case, problem
from tests.conftest import publish_templates
from tests.support.cast import Customer

EVIL = "evil.example"
SPOOFED = {
    "X-Forwarded-Host": EVIL,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": f"/{EVIL}",
    "X-Original-URL": "/v1/tenants",
    "Forwarded": f"host={EVIL};proto=https",
}


TEMPLATES = ("/v1/templates/customer-role.yaml", "/v1/templates/customer-org.yaml")


def spoofed(api, method, path, **options):
    host = options.pop("host", EVIL)
    return api.raw(method, path, headers=SPOOFED, environ_overrides={"HTTP_HOST": host}, **options)


def test_the_kit_does_not_listen_to_host_headers(scene):
    path = f"/v1/tenants/{scene.acme['id']}/onboarding"
    for host in (EVIL, f"{EVIL}:8000", f"localhost@{EVIL}", f"a b/{EVIL}", f'"><{EVIL}', ""):
        with case(host=host):
            response = spoofed(scene.mallory, "GET", path, host=host)
            assert response.status_code < 500
            assert EVIL not in response.text
            if response.status_code == 200:
                assert response.get_json() == scene.mallory("GET", path)


def test_public_pages_and_redirects_do_not_listen_to_host_headers(scene):
    for path in (*TEMPLATES, "/openapi.json", "/docs", "/nowhere"):
        with case(path):
            response = spoofed(scene.mallory.with_key(None), "GET", path)
            assert response.status_code < 500
            assert EVIL not in response.text + str(response.headers)
    for path in ("/v1//tenants", f"//{EVIL}/v1/tenants", f"/\\{EVIL}", "/healthz/"):
        with case(path):
            response = spoofed(scene.mallory, "GET", path)
            assert EVIL not in response.headers.get("Location", "")
            assert response.status_code < 300 or response.status_code >= 400


def test_nothing_of_a_link_or_template_is_taken_from_the_query(scene):
    for path in (f"/v1/tenants/{scene.acme['id']}/onboarding", *TEMPLATES):
        for query in (
            "external_id=x",
            "param_ExternalId=x",
            "role_name=x",
            "broker=x",
            "region_=x",
        ):
            with case(path, query=query):
                problem(scene.mallory.raw("GET", f"{path}?{query}"), 422, "validation_failed")


REGIONS = [
    f"us-east-1.{EVIL}",
    "us-east-1%0d%0aX:1",
    "us-east-%D9%A1",
    "cn-north-1",
    "",
    "US-EAST-1",
]
SETS = ["../../etc/passwd", "inventory.json", "INVENTORY", "inventory%00", "inventory%0a", "x" * 65]


def test_a_region_or_permission_set_is_one_that_there_is(scene):
    kit = f"/v1/tenants/{scene.acme['id']}/onboarding"
    queries = [(kit, "region", region) for region in REGIONS]
    queries += [(path, "permission_set", name) for name in SETS for path in (kit, TEMPLATES[0])]
    for path, field, text in queries:
        with case(path, text=text):
            response = scene.mallory.raw("GET", f"{path}?{field}={text}")
            assert set(problem(response, 422, "validation_failed")["errors"]) == {field}


def test_a_tenants_name_enters_no_kit(world):
    for name in (
        "\"'`${AWS::AccountId}!Ref",
        "&param_ExternalId=dpy-x#",
        "</title><script>alert(1)</script>",
        "$(reboot)",
    ):
        with case(name):
            tenant = world.admin("POST", "/v1/tenants", {"name": name}, expect=201)
            kit = world.kit(tenant)
            assert name not in str(kit)
            link = urlsplit(kit["launch_stack_url"])
            assert link.netloc == f"{kit['region']}.console.aws.amazon.com"
            assert parse_qs(link.fragment.partition("?")[2]) == {
                "templateURL": [kit["template_url"]],
                "stackName": [kit["stack_name"]],
                "param_ExternalId": [tenant["external_id"]],
                "param_RoleName": [kit["role_name"]],
            }


class Loader(yaml.CSafeLoader):
    """YAML as CloudFormation reads it: a tag is kept beside its value."""


def _tagged(loader, suffix, node):
    kind = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    return {suffix: kind[type(node)](node)}


Loader.add_multi_constructor("!", _tagged)


def test_a_link_with_hostile_parameters_opens_nothing(app, scene, world):
    """Every parameter of a link can be edited; the template's own patterns stop what would make
    an open role.
    """
    publish_templates(app)
    tenant = world.tenant("Mallory")
    link = world.kit(tenant)["launch_stack_url"]
    hostile = [("ExternalId", value) for value in ("*", "dpy-*", "", "dpy-" + "0" * 63 + "?")]
    refused = r"(?i)ValidationError|AllowedPattern|failed to satisfy|must"
    for name, value in (*hostile, ("RoleName", "deputy-x/../admin"), ("RoleName", "")):
        with case(name, value=value), pytest.raises(Exception, match=refused):
            Customer(world.aws).launch(link, **{name: value})
    role = Customer(world.aws).launch(link, ExternalId=scene.globex["external_id"])
    world.connect(tenant, role, status="pending")
