"""The API held against its own OpenAPI document: schemathesis sends what the document allows, and
what it forbids.

Deterministic: the same requests in every run. They carry a real key with every scope, and their ids
are those of a real tenant with a real, proven connection, so that they reach AWS. All of
schemathesis's checks for single requests are on; those for sequences (use after free, resource
availability, objects of others) have tests of their own, with better cases, in test_tenants.py,
test_connections.py, test_api_keys.py and tests/attacks/. Here are a few requests for each
operation; many, and those at every bound, are in test_schemathesis_at_length.py (`make soak`).
"""

import json
import uuid
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.factory import create_app
from app.identity.scopes import ALL_SCOPES
from tests.api.kit.test_openapi import DOCUMENT
from tests.conftest import OPERATOR, make_config
from tests.model.stage import without_sockets
from tests.support.cast import Api, World
from tests.support.databases import new_database

# What no schema tells, as it depends on the deployment or on the moment: a request that keeps to
# the document may still be refused for one of these fields, and for no other.
BEYOND_THE_DOCUMENT = {
    "cursor",  # signed, and good for one list only
    "duration_seconds",  # the maximum depends on the broker
    "expires_at",  # must lie in the future
    "expires_in",  # written without a fraction, even .0
    "grace_seconds",  # likewise
    "may_give",  # only with keys:delegate, which then needs it
    "permission_set",  # those that the deployment has
    "from",  # with the next: a version that was published
    "to",
    "permission_sets",
    "region",  # those that the partition has
    "return_url",  # below an entry of DEPUTY_RETURN_URLS
    "since",  # with the next: between the years 1970 and 9998
    "until",
    "types",  # those of `GET /v1/event-types`
    "url",  # a name with public addresses
    "role_arn",  # the deployment's partition, accounts and prefix
    "session_policy",  # IAM's own grammar, and AWS's limit of its compact form
}


INERT = {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}


class Service:
    """The application under test: made when the first test runs, where schemathesis wants it at
    collection.
    """

    application = None

    def __call__(self, environ, start_response):
        assert self.application is not None
        return self.application(environ, start_response)


@schemathesis.deserializer("text/yaml")
def _template(_ctx, response):
    """A CloudFormation template is a text to us; its tags (!Sub) are no YAML that schemathesis
    would load.
    """
    return response.text


SERVICE = Service()


def described(examples, *, every_boundary):
    """The document, with so many random requests for each operation, and perhaps one for each
    bound that it gives.
    """
    config = {
        "seed": 1,
        "generation": {"deterministic": True, "database": "none", "max-examples": examples},
        "phases": {"coverage": {"enabled": every_boundary}},
    }
    document = schemathesis.openapi.from_dict(
        deepcopy(DOCUMENT), config=schemathesis.Config.from_dict(config)
    )
    document.app = SERVICE
    return document


@pytest.fixture(scope="module")
def admin(aws, vendor) -> Iterator[Api]:
    with new_database() as url:
        with without_sockets(aws):
            app = create_app(make_config(url, log_level="ERROR"))
        SERVICE.application = app
        create = app.extensions["deputy"].api_keys.create_key
        yield Api(app, create(OPERATOR, name="schemathesis", scopes=ALL_SCOPES)[1])
        app.extensions["deputy"].db.engine.dispose()


class Home:
    """A tenant with a connection, and a key, for one operation; new ones when a request has used
    them up. Each is made when a path names it.
    """

    def __init__(self, world):
        self.world = world
        self.move()

    def move(self):
        self._ids = {}

    def id_of(self, name):
        """Return the id for a part of a path; of a permission set, its name."""
        if name not in self._ids:
            self._ids |= self._made(name)
        return self._ids[name]

    def _made(self, name):
        admin = self.world.admin
        if name in {"tenant_id", "connection_id"}:
            connection = self.world.connection()
            return {"tenant_id": connection["tenant_id"], "connection_id": connection["id"]}
        if name == "key_id":
            path, body = "/v1/api-keys", {"name": "short-lived", "scopes": ["tenants:read"]}
        elif name == "link_id":
            path, body = f"/v1/tenants/{self.id_of('tenant_id')}/onboarding-links", {}
        elif name == "endpoint_id":
            path, body = "/v1/webhook-endpoints", {"url": "https://93.184.215.14/", "types": ["*"]}
            body["tenant_id"] = self.id_of("tenant_id")
        else:
            return {name: str(uuid.uuid4()) if name == "delivery_id" else "inventory"}
        return {name: admin("POST", path, body, expect=201)["id"]}


@pytest.fixture(scope="module")
def inhabited(aws, admin) -> Home:
    """One with all that lists show, for the requests that change nothing."""
    home = Home(World(aws, admin))
    for name in ("connection_id", "key_id", "link_id", "endpoint_id"):
        home.id_of(name)
    return home


@pytest.fixture
def home(world, impatient, inhabited) -> Callable[[str], Home]:
    """The home of requests with this method."""
    own = Home(world)
    return lambda method: inhabited if method == "GET" else own


unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck))


@described(2, every_boundary=False).parametrize()
@unhurried
def test_the_api_is_as_its_document_says(case, home):
    assert_as_documented(case, home)


def assert_as_documented(case, home):
    home = home(case.method)
    settle(case, home)
    headers = {"Authorization": f"Bearer {home.world.admin.key}"}
    response = case.call(headers=headers)
    excluded = [positive_data_acceptance] if refused_beyond_the_document(response) else []
    case.validate_response(
        response, headers=headers, excluded_checks=excluded, transport_kwargs={"headers": headers}
    )
    if response.status_code < 300 and (case.method == "DELETE" or case.path.endswith("/suspend")):
        home.move()


def settle(case, home):
    """Give a case ids that exist, and half of the cases also values that do."""
    if is_positive(case, "path"):
        for name in case.path_parameters or {}:
            case.path_parameters[name] = home.id_of(name)
        if case.path.endswith("/resume"):
            # So that there is something to resume; it may be suspended already
            path = case.formatted_path.replace("/resume", "/suspend")
            home.world.admin.raw("POST", path, {"reason": "to be resumed"})
    if is_positive(case, "query") and case.query and chosen(case.query):
        case.query.pop("cursor", None)
        replace(case.query, {"permission_set": lambda: "inventory", "region": lambda: "eu-west-1"})
    if is_positive(case, "body") and isinstance(case.body, dict) and chosen(case.body):
        replace(
            case.body,
            {
                "role_arn": lambda: home.world.role({"id": home.id_of("tenant_id")}),
                "permission_set": lambda: "inventory",
                "permission_sets": lambda: ["inventory"],
                "session_policy": lambda: INERT,
                "duration_seconds": lambda: 900,
                "expires_at": lambda: "2999-01-01T00:00:00Z",
                "tenant_id": lambda: home.id_of("tenant_id"),
            },
        )


def replace(values, real):
    for name in sorted(set(real) & set(values)):
        values[name] = real[name]()


def is_positive(case, location):
    components = {
        str(getattr(kind, "value", kind)): info for kind, info in case.meta.components.items()
    }
    return location not in components or components[location].mode == GenerationMode.POSITIVE


def chosen(values):
    """Every second case, and the same ones in every run."""
    return zlib.crc32(json.dumps(values, sort_keys=True, default=str).encode()) % 2 == 0


_ONE_LINE = ["Only printable characters, on one line."]
# Fields that don't go together.
_APART = (
    ["Give either role_arn or account_id."],
    ["keys:delegate does not go together with keys:write: leave one of them out."],
    ["A key with keys:delegate can't be bound to a tenant: leave it out."],
    ["A feed has all API keys; leave out either after or api_key_id."],
)


def refused_beyond_the_document(response):
    if response.status_code not in {400, 422}:
        return False
    problem = response.json()
    if "cursor" in problem["detail"] or problem["code"] == "idempotency_key_reused":
        return True
    return bool(problem.get("errors")) and all(
        name in BEYOND_THE_DOCUMENT
        or messages in (_ONE_LINE, *_APART, ["Nothing was published yet."])
        for name, messages in problem["errors"].items()
    )
