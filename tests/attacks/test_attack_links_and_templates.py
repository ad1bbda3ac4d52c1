"""Links and templates are made of the deployment's own settings, not of Host, query, names or parameters."""

from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from app.config import Config
from tests.attacks.evidence import Scene, on_sqlite, problem
from tests.conftest import publish_templates
from tests.support.cast import Customer, World

pytestmark = on_sqlite  # nothing here depends on the database

EVIL = "evil.example"
SPOOFED = {
    "X-Forwarded-Host": EVIL,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": f"/{EVIL}",
    "X-Forwarded-Server": EVIL,
    "X-Original-Host": EVIL,
    "X-Host": EVIL,
    "X-Original-URL": "/v1/tenants",
    "X-Rewrite-URL": "/v1/tenants",
    "Forwarded": f"host={EVIL};proto=https",
}


def spoofed(api, method: str, path: str, **options):
    host = options.pop("host", EVIL)
    return api.raw(method, path, headers=SPOOFED, environ_overrides={"HTTP_HOST": host}, **options)


@pytest.mark.parametrize("host", [EVIL, f"{EVIL}:8000", f"localhost@{EVIL}", f"a b/{EVIL}", f'"><{EVIL}', ""])
def test_the_kit_does_not_listen_to_host_headers(scene: Scene, host: str):
    path = f"/v1/tenants/{scene.acme['id']}/onboarding"
    response = spoofed(scene.mallory, "GET", path, host=host)
    assert response.status_code < 500
    assert EVIL not in response.text
    if response.status_code == 200:
        assert response.get_json() == scene.mallory("GET", path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/templates/customer-role.yaml",
        "/v1/templates/customer-org.yaml",
        "/openapi.json",
        "/healthz",
        "/docs",
        "/docs/",
        "/nowhere",
    ],
)
def test_public_pages_do_not_listen_to_host_headers(scene: Scene, path: str):
    response = spoofed(scene.mallory.with_key(None), "GET", path)
    assert response.status_code < 500
    assert EVIL not in response.text + str(response.headers)


@pytest.mark.parametrize(
    "path", ["//v1/tenants", "/v1//tenants", f"//{EVIL}/v1/tenants", f"/\\{EVIL}", "/healthz/", "/v1/tenants/"]
)
def test_no_redirect_goes_where_a_host_header_says(scene: Scene, path: str):
    response = spoofed(scene.mallory, "GET", path)
    assert EVIL not in response.headers.get("Location", "")
    assert response.status_code < 300 or response.status_code >= 400


@pytest.mark.parametrize(
    "query",
    [
        "external_id=dpy-x",
        "ExternalId=dpy-x",
        "param_ExternalId=dpy-x",
        "broker=arn:aws:iam::666666666666:role/evil",
        "BrokerArn=arn:aws:iam::666666666666:role/evil",
        "vendor_account=666666666666",
        "role_name=evil",
        "vendor_name=Evil",
        "template_url=https://evil.example/t.yaml",
    ],
)
def test_nothing_of_a_link_or_template_is_taken_from_the_query(scene: Scene, query: str):
    for api, path in (
        (scene.mallory, f"/v1/tenants/{scene.acme['id']}/onboarding"),
        (scene.mallory.with_key(None), "/v1/templates/customer-role.yaml"),
        (scene.mallory.with_key(None), "/v1/templates/customer-org.yaml"),
    ):
        problem(api.raw("GET", f"{path}?{query}"), 422, "validation_failed")


@pytest.mark.parametrize(
    "query",
    [
        "region=us-east-1.evil.example",
        "region=us-east-1%23",
        "region=us-east-1/",
        "region=us-east-1%0d%0aX:1",
        "region=us-east-1%00",
        "region=us-east-1%0A",
        "region=x",
        "region=us-east-%D9%A1",
        "region=cn-north-1",
        "region=us-gov-west-1",
        "region=xx-nowhere-9",
        "region=",
        "region=US-EAST-1",
        "permission_set=../../etc/passwd",
        "permission_set=inventory.json",
        "permission_set=INVENTORY",
        "permission_set=nothing",
        "permission_set=inventory%00",
        "permission_set=inventory%0a",
        "permission_set=%20",
        f"permission_set={'x' * 65}",
    ],
)
def test_a_region_or_permission_set_is_one_that_there_is(scene: Scene, query: str):
    response = scene.mallory.raw("GET", f"/v1/tenants/{scene.acme['id']}/onboarding?{query}")
    assert set(problem(response, 422, "validation_failed")["errors"]) == {query.partition("=")[0]}
    if query.startswith("permission_set"):
        response = scene.mallory.with_key(None).raw("GET", f"/v1/templates/customer-role.yaml?{query}")
        problem(response, 422, "validation_failed")


HOSTILE = [
    "\"'`${AWS::AccountId}!Ref",
    "&param_ExternalId=dpy-x#",
    "</title><script>alert(1)</script>",
    "$(reboot); `reboot`",
    "%{ if true }${file(1)}",
    "Globex: evil # comment",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tenants_name_enters_no_kit(world: World, name: str):
    tenant = world.admin("POST", "/v1/tenants", {"name": name}, expect=201)
    kit = world.kit(tenant)
    assert name not in str(kit)
    link = urlsplit(kit["launch_stack_url"])
    assert link.netloc == f"{kit['region']}.console.aws.amazon.com"
    wanted = parse_qs(link.fragment.partition("?")[2])
    assert wanted == {
        "templateURL": [kit["template_url"]],
        "stackName": [kit["stack_name"]],
        "param_ExternalId": [tenant["external_id"]],
        "param_RoleName": [kit["role_name"]],
    }


class Loader(yaml.CSafeLoader):
    """YAML as CloudFormation reads it: a tag is kept beside its value."""


def _tagged(loader: Loader, suffix: str, node: yaml.Node):
    kind = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    return {suffix: kind[type(node)](node)}


Loader.add_multi_constructor("!", _tagged)


def test_the_template_takes_no_principal_and_names_the_broker(scene: Scene, config: Config):
    text = scene.mallory.with_key(None).raw("GET", "/v1/templates/customer-role.yaml").text
    template = yaml.load(text, Loader)  # noqa: S506
    limits = ["AccessUntil", "PermissionsBoundaryArn", "RevokeSessionsBefore"]  # which only take something away
    expected = ["ExternalId", "NextExternalId", "RegistrationToken", "RegistrationTopicArn", "RoleName", *limits]
    assert sorted(template["Parameters"]) == sorted(expected)
    trust = template["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert len(trust) == 1
    one, following = {"Ref": "ExternalId"}, {"Ref": "NextExternalId"}
    assert trust[0]["Condition"] == {
        "StringEquals": {"sts:ExternalId": {"If": ["HasNextExternalId", [one, following], one]}},
        "ArnEquals": {"aws:PrincipalArn": config.broker.arn},
        "DateLessThan": {
            "If": ["HasAccessUntil", {"aws:CurrentTime": {"Ref": "AccessUntil"}}, {"Ref": "AWS::NoValue"}]
        },
    }


@pytest.fixture(scope="session")
def published(app) -> None:
    publish_templates(app)


@pytest.mark.parametrize(
    "changed",
    [
        {"ExternalId": "*"},
        {"ExternalId": "dpy-*"},
        {"ExternalId": ""},
        {"ExternalId": "dpy-" + "0" * 63 + "?"},
        {"ExternalId": 'dpy-x"},"AWS":"*'},
        {"RoleName": "deputy-x/../admin"},
        {"RoleName": ""},
    ],
)
def test_a_link_with_hostile_parameters_makes_no_role(world: World, published, changed: dict[str, str]):
    """Every parameter of a link can be edited; the template's own patterns stop what would make an open role."""
    kit = world.kit(world.tenant())
    with pytest.raises(Exception, match=r"(?i)ValidationError|AllowedPattern|failed to satisfy|must"):
        Customer(world.aws).launch(kit["launch_stack_url"], **changed)


def test_a_link_with_the_victims_id_in_it_opens_nothing(scene: Scene, world: World, published):
    tenant = world.tenant("Mallory")
    link = world.kit(tenant)["launch_stack_url"]
    role = Customer(world.aws).launch(link, ExternalId=scene.globex["external_id"])
    world.connect(tenant, role, status="pending")
