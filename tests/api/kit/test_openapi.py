"""The OpenAPI document is valid, complete, and says of every operation who may call it and how
it refuses.
"""

import json
import re
from http import HTTPStatus
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from apispec import APISpec
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import VERSION
from app.api.kit.blueprint import Blueprint
from app.api.kit.schemas import EXTERNAL_ID, NEXT_EXTERNAL_ID
from app.clock import now
from app.factory import create_app
from app.http.error_statuses import PROBLEMS
from tests.conftest import make_config
from tests.support.databases import NOWHERE
from tests.support.rows import at_once

# A connection-less configuration: the document depends on no database and no AWS.
APP = create_app(make_config(NOWHERE))
DOCUMENT = APP.test_client().get("/openapi.json").get_json()

PUBLIC = {
    ("GET", "/v1/templates/customer-role.yaml"),
    ("GET", "/v1/templates/customer-org.yaml"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
}
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class Operation(NamedTuple):
    method: str
    path: str
    spec: dict[str, Any]

    def __str__(self):
        return f"{self.method} {self.path}"

    @property
    def is_public(self):
        return (self.method, self.path) in PUBLIC


OPERATIONS = [
    Operation(method.upper(), path, item[method])
    for path, item in DOCUMENT["paths"].items()
    for method in METHODS
    if method in item
]
WITH_BODY = [operation for operation in OPERATIONS if "requestBody" in operation.spec]


def test_the_document_says_which_release_serves_it_and_whom_to_ask():
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", VERSION)
    assert DOCUMENT["info"]["version"] == VERSION
    # openapi-python-client would give a client of "Deputy" the name of our own package
    assert DOCUMENT["info"]["title"] == "Deputy API"
    assert DOCUMENT["info"]["contact"] == {"name": "Example Vendor", "url": "http://localhost:8000"}


def resolve(value):
    """The thing itself, or what its $ref points to."""
    while "$ref" in value:
        found = DOCUMENT
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def objects(value, path=""):
    """Every JSON object in the document, with its place."""
    if isinstance(value, dict):
        yield path, value
        for key, item in value.items():
            yield from objects(item, f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from objects(item, f"{path}/{index}")


def schema_of(name):
    return DOCUMENT["components"]["schemas"][name]


def kinds_of(body):
    """The body itself, or those that it may be."""
    return [resolve(kind) for kind in body.get("oneOf", [body])]


def body_schema(operation):
    content = operation.spec["requestBody"]["content"]
    assert list(content) == ["application/json"]
    return resolve(content["application/json"]["schema"])


def served():
    """The views of the API's own blueprints; HEAD comes with every GET and is not listed."""
    routes = {}
    for rule in APP.url_map.iter_rules():
        blueprint = APP.blueprints.get(rule.endpoint.rpartition(".")[0])
        if rule.rule.startswith("/v1") or isinstance(blueprint, Blueprint):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            for method in rule.methods - {"HEAD"}:
                routes[method, path] = APP.view_functions[rule.endpoint]
    return routes


# --- the document ---


def test_the_document_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_the_document_lists_every_route_and_nothing_else():
    assert {(operation.method, operation.path) for operation in OPERATIONS} == served().keys()


def test_answers_are_described_as_precisely_as_programs_read_them():
    assert schema_of("Ok")["properties"]["status"] == {"type": "string", "const": "ok"}
    shown = schema_of("ProcessCredentials")["properties"]
    assert shown["Version"].get("const", shown["Version"].get("enum")) in (1, [1])
    assert shown["Expiration"] | {"type": "string", "format": "date-time"} == shown["Expiration"]


def test_the_document_is_made_once_also_for_first_requests_at_the_same_moment(monkeypatch):
    """Its address is public: asking for it must not cost what making it costs."""
    made, as_dict = [], APISpec.to_dict
    monkeypatch.setattr(APISpec, "to_dict", lambda spec: made.append(1) or as_dict(spec))
    app = create_app(make_config(NOWHERE))
    for answer in at_once([lambda: app.test_client().get("/openapi.json")] * 8):
        assert answer.content_type == "application/json"
        assert answer.get_json() == DOCUMENT
    assert len(made) == 1


def test_nothing_in_the_document_is_unused():
    text = json.dumps(DOCUMENT)
    for kind in ("schemas", "responses"):
        for name in DOCUMENT["components"][kind]:
            assert f'"#/components/{kind}/{name}"' in text, f"{kind}/{name}"


def test_patterns_mean_the_same_in_every_regex_dialect():
    r"""OpenAPI's patterns are ECMAScript's, where \Z is the letter Z, \A the letter A, and
    nothing is anchored.
    """
    for place, found in objects(DOCUMENT["components"]["schemas"] | {"paths": DOCUMENT["paths"]}):
        if isinstance(pattern := found.get("pattern"), str) and "/example/" not in place:
            assert pattern[0] == "^", f"{place}: {pattern}"
            assert pattern[-1] == "$", f"{place}: {pattern}"
            assert not re.search(r"\\[AZz]|\(\?P", pattern), f"{place}: {pattern}"


def test_examples_and_defaults_hold_no_secrets():
    """AWS's documented example keys are nobody's, and the External IDs of the examples are no
    random ones.
    """
    secret = re.compile(
        r"dpk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}|(?:AKIA|ASIA)[A-Z0-9]{16}|dpy-[0-9a-f]{64}"
    )
    text = json.dumps(DOCUMENT)
    assert set(secret.findall(text)) == {"ASIAIOSFODNN7EXAMPLE", EXTERNAL_ID, NEXT_EXTERNAL_ID}
    for given in APP.extensions["deputy"].config.database.secret_keys:
        assert given not in text


# --- who may call ---


def test_there_is_one_way_to_authenticate_and_it_is_the_rule():
    assert DOCUMENT["security"] == [{"apiKey": []}]
    [(name, scheme)] = DOCUMENT["components"]["securitySchemes"].items()
    assert name == "apiKey"
    assert scheme["type"] == "http"
    assert scheme["scheme"] == "bearer"


def test_an_operation_says_whether_a_key_is_needed_and_names_its_scope():
    """Also where the view explains itself at length: the one text must not replace the other."""
    views = served()
    for operation in OPERATIONS:
        view = views[operation.method, operation.path]
        text, security = operation.spec["description"], operation.spec.get("security")
        if operation.is_public:
            assert security == [], operation
        else:
            assert security is None, operation
            scopes = "` or `".join(view.scopes)
            assert f"Scope: `{scopes}`." in text, operation
        for line in (view.__doc__ or "").strip().splitlines()[2:]:
            assert line.strip() in text, operation


# --- how it refuses ---


def expected_refusals(operation):
    """The least that must be documented; an operation's own conflicts come on top."""
    wanted = {"414", "431", "500", "503"}
    if not operation.is_public:
        wanted |= {"401", "403", "429"} | ({"409"} if operation.method != "GET" else set())
    if "{" in operation.path:
        wanted |= {"404"}
    if any(parameter["in"] == "query" for parameter in operation.spec.get("parameters", ())):
        wanted |= {"422"}
    if "requestBody" in operation.spec:
        wanted |= {"400", "413", "415", "422"}
    return wanted


def test_an_operation_documents_its_refusals_as_problems():
    """Without `default`, by which any status would be true."""
    problem = {"$ref": "#/components/schemas/Problem"}
    for operation in OPERATIONS:
        responses = operation.spec["responses"]
        assert expected_refusals(operation) <= responses.keys(), operation
        assert "default" not in responses, operation
        for status, response in responses.items():
            if not status.startswith("2"):
                [(kind, media)] = resolve(response)["content"].items()
                assert kind == "application/problem+json", (operation, status)
                assert media["schema"] == problem, (operation, status)


def test_an_operation_has_one_success_that_says_what_comes_back():
    for operation in OPERATIONS:
        successes = [status for status in operation.spec["responses"] if status.startswith("2")]
        if operation.spec["operationId"] == "start_rotation":
            successes.remove("200")  # of a rotation that was open
        [success] = successes
        if success != "204":
            [content] = operation.spec["responses"][success]["content"].values()
            assert resolve(content["schema"]).get("type") in {"object", "string"}, operation


def test_a_problem_lists_every_code():
    assert sorted(resolve(schema_of("Problem")["properties"]["code"])["enum"]) == sorted(PROBLEMS)


# --- what goes in ---


def test_a_body_is_required_exactly_when_a_field_of_it_is():
    """An empty body is {}."""
    for operation in WITH_BODY:
        required = any(kind.get("required") for kind in kinds_of(body_schema(operation)))
        assert operation.spec["requestBody"].get("required", False) is required, operation


def test_path_parameters_are_ids():
    for operation in OPERATIONS:
        names = []
        for parameter in DOCUMENT["paths"][operation.path].get("parameters", ()):
            names.append(parameter["name"])
            if parameter["name"] != "name":  # of a permission set
                assert parameter["schema"]["type"] == "string", operation
                assert parameter["schema"]["format"] == "uuid", operation
        assert names == re.findall(r"\{(\w+)\}", operation.path), operation


def test_an_operation_has_a_summary_a_tag_and_a_name_of_its_own_for_generated_clients():
    for operation in OPERATIONS:
        assert 0 < len(operation.spec["summary"]) <= 80, operation
        assert operation.spec["tags"], operation
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+|healthz|readyz", operation.spec["operationId"]), (
            operation
        )
    assert len({operation.spec["operationId"] for operation in OPERATIONS}) == len(OPERATIONS)


def valid(value, schema):
    return OAS31Validator(schema | {"components": DOCUMENT["components"]}).is_valid(value)


ACCOUNT = {"account_id": "123456789012"}
DENY = {"Statement": [{"Effect": "Deny"}]}
BODIES = {  # those that the document allows, and those that it does not
    "create_connection": (
        [
            {"role_arn": "arn:aws:iam::123456789012:role/path/deputy-x"},
            ACCOUNT | {"permission_set": "inventory"},
        ],
        [
            {},
            ACCOUNT | {"role_arn": "arn:aws:iam::123456789012:role/x"},
            {"account_id": "12345678901"},
            {"role_arn": "arn:aws:iam::123456789012:user/somebody"},
        ],
    ),
    "create_tenant": (
        [{"name": "Müller & Co., 東京"}, {"name": " x "}],
        [{"name": ""}, {"name": "  "}, {"name": "a\nb"}, {"name": "a\x00"}],
    ),
    "issue_credentials": (  # what a text holds, no schema tells
        [{"session_policy": DENY}, {"session_policy": '{"Statement": []}'}],
        [{"session_policy": {"Statement": []}}, {"session_policy": "[]"}, {"session_policy": 5}],
    ),
}


@pytest.mark.parametrize("operation_id", BODIES)
def test_the_document_says_what_a_body_may_hold(operation_id):
    operation = next(each for each in OPERATIONS if each.spec["operationId"] == operation_id)
    schema = body_schema(operation)
    for bodies, allowed in zip(BODIES[operation_id], (True, False), strict=True):
        assert [body for body in bodies if valid(body, schema) is not allowed] == []


# --- for generated clients ---


def properties():
    """Every property of every component, and every parameter."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for property_name, found in schema.get("properties", {}).items():
            yield f"{name}.{property_name}", found
    for path, item in DOCUMENT["paths"].items():
        for owner in (item, *(item[method] for method in METHODS if method in item)):
            for parameter in owner.get("parameters", ()):
                yield f"{path}?{parameter['name']}", parameter["schema"]


def test_every_property_has_a_type():
    """What has none, generated clients call `unknown` or, worse, an object without properties."""
    for place, schema in properties():
        assert len({"type", "$ref", "anyOf", "oneOf"} & set(schema)) == 1, place
        if schema.get("type") == "object":
            assert "additionalProperties" in schema, place


def test_every_enum_is_a_component_with_a_name():
    enums = set()
    for place, value in objects({**DOCUMENT["components"]["schemas"], "paths": DOCUMENT["paths"]}):
        if "enum" in value:
            assert place.count("/") == 1, place
            enums.add(place)
    assert {"/ConnectionStatus", "/TenantStatus", "/Scope", "/Verdict", "/ProblemCode"} <= enums
    for name in ("ConnectionStatus", "TenantStatus"):
        assert "deleted" not in schema_of(name)["enum"], "a deleted thing is never shown"


def test_each_value_of_an_enum_has_a_name_of_its_own():
    """Generators would make CONNECTIONSREAD of "connections:read", and VALUE_0 of "*"."""
    for place, schema in DOCUMENT["components"]["schemas"].items():
        if "enum" in schema:
            names = schema["x-enum-varnames"]
            assert len(set(names)) == len(schema["enum"]) == len(names), place
            assert all(re.fullmatch("[A-Z]+(_[A-Z]+)*", name) for name in names), place
    scopes = schema_of("Scope")
    assert ("CREDENTIALS_ISSUE", "credentials:issue") in [
        *zip(scopes["x-enum-varnames"], scopes["enum"], strict=True)
    ]


def test_an_object_in_a_list_or_a_union_is_a_component_with_a_name():
    """Generators would name it after its place: PermissionSetStatementsItem, FromType2."""
    for place, schema in objects(DOCUMENT["components"]["schemas"] | {"paths": DOCUMENT["paths"]}):
        kinds = [schema[key] for key in ("items", "additionalProperties") if key in schema]
        for kind in [*kinds, *schema.get("oneOf", ()), *schema.get("anyOf", ())]:
            assert not isinstance(kind, dict) or kind.get("type") != "object", place
        assert schema.get("type") != ["object", "null"], place


def test_a_field_of_a_body_may_be_left_out_although_it_has_a_default():
    """openapi-typescript requires a property that has a default."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert "default" not in described, (name, field)


def test_every_property_has_an_example_that_is_valid():
    for place, schema in properties():
        inner = schema.get("items", schema)
        if not {"$ref", "anyOf", "const"} & set(
            inner
        ):  # a component has its own; a constant is one
            assert schema.get("examples") or inner.get("examples"), place
        for example in schema.get("examples", ()):
            assert valid(example, schema), place


def bodies():
    """Every body in JSON: of requests, of answers, and of problems."""
    for operation in OPERATIONS:
        for name, part in (
            ("request", operation.spec.get("requestBody")),
            *operation.spec["responses"].items(),
        ):
            for kind, media in (resolve(part) if part else {}).get("content", {}).items():
                if "json" in kind:
                    yield f"{operation} {name}", media


def test_every_body_has_an_example_that_is_valid():
    for place, media in bodies():
        several = [example["value"] for example in media.get("examples", {}).values()]
        examples = [media["example"]] if "example" in media else several
        assert examples, place
        for example in examples:
            assert valid(example, media["schema"]), place


def test_the_examples_of_problems_have_their_own_status():
    for name, response in DOCUMENT["components"]["responses"].items():
        for code, example in response["content"]["application/problem+json"]["examples"].items():
            assert example["value"]["code"] == code
            assert example["value"]["status"] == HTTPStatus[name]


@pytest.mark.usefixtures("impatient", "names")
@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_the_service_takes_the_example_of_a_request(operation, world):
    """On a connection that is there, and in the state that the request is about."""
    tenant = world.tenant()
    ids = {"tenant_id": tenant["id"]}
    if "{connection_id}" in operation.path:
        make = world.awaiting_approval if operation.path.endswith("/approve") else world.connection
        ids["connection_id"] = make(tenant)["id"]
    if "{endpoint_id}" in operation.path:
        wanted = {"url": "https://app.example.com/", "types": ["*"]}
        made = world.admin("POST", "/v1/webhook-endpoints", wanted, expect=201)
        ids["endpoint_id"] = made["id"]
    if "{delivery_id}" in operation.path:
        sent = f"/v1/webhook-endpoints/{ids['endpoint_id']}"
        world.admin("POST", f"{sent}/test", expect=202)
        ids["delivery_id"] = world.admin("GET", f"{sent}/deliveries")["items"][0]["id"]
    if "{key_id}" in operation.path:
        wanted = {"name": "to be replaced", "scopes": ["audit:read"]}
        ids["key_id"] = world.admin("POST", "/v1/api-keys", wanted, expect=201)["id"]
    path = operation.path.format(**ids)
    if path.endswith("/resume"):
        world.admin("POST", path.replace("/resume", "/suspend"), {"reason": "to be resumed"})
    if path.endswith("/rotation/complete"):
        world.admin(
            "POST", path.removesuffix("/complete"), {"reason": "to be completed"}, expect=201
        )
    example = operation.spec["requestBody"]["content"]["application/json"]["example"]
    if "since" in example:
        example = example | {"since": now().isoformat(), "until": now().isoformat()}
    reference = {"reference": str(uuid4())} if "reference" in example else {}  # unique
    response = world.admin.raw(operation.method, path, example | reference)
    assert response.status_code < 300, response.text


# --- what comes out ---


def test_requests_are_closed_and_answers_may_gain_fields():
    taken = {id(kind) for operation in WITH_BODY for kind in kinds_of(body_schema(operation))}
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert (schema.get("additionalProperties") is False) is (id(schema) in taken), name
