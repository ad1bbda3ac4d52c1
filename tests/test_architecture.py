"""The rules of the architecture that import-linter can't see, read from the code's own syntax and
registries.

Each rule is a function from syntax trees to what breaks it; the first tests show that the rules can
fail.
"""

import ast
import re
import types
import typing
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from flask import Flask

from app import errors
from app.audit import actions
from app.errors import AppError
from app.factory import create_app
from app.http.error_statuses import PROBLEMS
from app.identity.scopes import Scope
from app.ids import Grant
from app.store.models import TenantOwned
from app.store.models.base import Base
from tests.conftest import make_config
from tests.support.databases import NOWHERE

APP = Path(__file__).parent.parent / "app"
SOURCES = {path.relative_to(APP.parent).as_posix(): path for path in sorted(APP.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
Trees = dict[str, ast.Module]

# What flask-smorest and flask-swagger-ui serve, the way there, the vendor's look, and the page for
# links that do not work carry no mark of ours.
UNMARKED = """
/openapi.json /docs /docs/ /docs/<path:path>
/onboard /onboard/<rest:rest> /onboard/static/<path:filename> /onboard/look/<name>
"""
PUBLIC_BY_CONSTRUCTION = set(UNMARKED.split())
# Open to anybody, each for a reason: load balancers, readers of templates, readers of the API's
# documentation. On the onboarding page the token in the path is the authority.
MARKED = """
/healthz /readyz
/v1/templates/customer-role.yaml /v1/templates/customer-org.yaml
/onboard/<token> /onboard/<token>/status /onboard/<token>/connections
/onboard/<token>/review /onboard/<token>/review.json
/onboard/<token>/connections/<uuid:connection_id>/stop
/onboard/<token>/connections/<uuid:connection_id>/verify
"""
PUBLIC = PUBLIC_BY_CONSTRUCTION | set(MARKED.split())

# Tables that name a tenant without being one tenant's property.
NOT_OWNED = {
    "api_keys": "a key may be bound to no tenant; its tenant_id confines it",
    "audit_events": "an event outlives its tenant, and some are about none",
    "idempotent_requests": "it names the tenant that was made, if one was",
    "webhook_endpoints": "the vendor's are bound to none; its tenant_id confines it",
    "webhook_events": "an event is sent after its tenant's end, and some are about none",
}


@cache
def walked(tree):
    return list(ast.walk(tree))


def nodes(trees, kind):
    for name, tree in trees.items():
        yield from ((name, node) for node in walked(tree) if isinstance(node, kind))


def called(call):
    """The last name of what is called: `c` of `a.b.c(…)`."""
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def places(trees, kind, matches):
    return [name for name, node in nodes(trees, kind) if matches(node)]


def raw_assume_role(trees):
    """Where an operation of boto's that names a role is called, or assume_role reached by any
    other way: getattr(sts, "assume_role"), a paginator, a waiter.
    """
    names = {"assume_role", "AssumeRole"}
    attributes = places(trees, ast.Attribute, lambda node: node.attr in names)
    return attributes + places(trees, ast.Constant, lambda node: node.value in names)


def role_arn_keywords(trees):
    """`f(RoleArn=…)`, and what could be unpacked into it."""

    def has_key(node):
        keys = node.keys if isinstance(node, ast.Dict) else [node.slice]
        return "RoleArn" in [getattr(key, "value", None) for key in keys]

    keywords = places(trees, ast.keyword, lambda node: node.arg == "RoleArn")
    return keywords + places(trees, ast.Dict, has_key) + places(trees, ast.Subscript, has_key)


def sts_clients(trees):
    def makes_one(call):
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        named = "sts" in [getattr(value, "value", None) for value in values]
        return named and called(call) in {"client", "create_client", "QueryApi"}

    return places(trees, ast.Call, makes_one)


def clients_of_any_kind(trees):
    """File and service of each client or resource of boto3's, and of what stands for one."""
    found = set()
    for name, call in nodes(trees, ast.Call):
        if called(call) == "QueryApi" or (
            called(call) in {"client", "resource", "create_client"}
            and isinstance(call.func, ast.Attribute)
        ):
            first = call.args[0] if call.args else None
            service = first.value if isinstance(first, ast.Constant) else "?"
            found.add(f"{name}:{service}")
    return found


def importers(trees, module):
    return places(trees, ast.ImportFrom, lambda node: node.module == module)


def grants(trees):
    return places(trees, ast.Call, lambda call: called(call) == "Grant")


def operators(trees):
    return places(trees, ast.Call, lambda call: called(call) == "OperatorPrincipal")


def dynamic_imports(trees):
    calls = {"__import__", "importlib", "exec", "eval", "import_module", "import_string"}
    modules = re.compile(r"\b(importlib|runpy|pkgutil|import_string)\b")

    def imports(node):
        return bool(modules.search(ast.unparse(node)))

    named = places(trees, ast.Name, lambda node: node.id in calls)
    return named + places(trees, ast.Import, imports) + places(trees, ast.ImportFrom, imports)


def catches_everything(trees):
    def catches(handler):
        last = handler.body[-1]
        if isinstance(last, ast.Raise) and last.exc is None:
            return False  # it tidies up
        kinds = ast.unparse(handler.type) if handler.type else "Exception"
        return bool(re.search(r"\b(Base)?Exception\b", kinds))

    return places(trees, ast.ExceptHandler, catches)


def writes(trees):
    """(file, function, who writes) of each transaction that may change something."""
    found = {}
    for name, function in nodes(trees, ast.FunctionDef):
        for call in ast.walk(function):
            is_write = isinstance(call, ast.Call) and called(call) == "write"
            if is_write and isinstance(call.func, ast.Attribute):
                who = ast.unparse(call.args[0]) if call.args else ""
                found[call] = (name, function.name, who)  # the innermost function comes last
    return list(found.values())


def writes_for_nobody(trees):
    """Where no key or link is read again: neither is one the caller's, nor does anybody come
    before one that is.
    """
    asking = re.compile(
        r"((request|visit)\.)?(caller|principal)"
        r"|((family_revocation\.)?(ending|replacing)|Making|Ending)\((caller|principal)\b.*\)"
    )
    return sorted(
        {(name, function) for name, function, who in writes(trees) if not asking.fullmatch(who)}
    )


def writes_past_the_door(trees):
    """Where a transaction that may change something is begun in another way."""
    ways = {"_writing", "begin_writing", "run_batch", "raw_connection", "dedicated"}
    session = re.compile(r"Session\(.*engine")
    attributes = places(trees, ast.Attribute, lambda node: node.attr in ways)
    return attributes + places(
        trees, ast.Call, lambda call: called(call) == "Session" and session.match(ast.unparse(call))
    )


# Names that say nothing of what they hold.
VAGUE = re.compile("found|told|said|seen|one|made|wanted|known|at|it|them|what|this")
# Names that other names have replaced: a word has one meaning in the whole program.
GONE = re.compile(
    "epoch|EpochHistory|known_since|valid_at|caller_kind|CallerKind|admit|pace|Pace|lanes?"
    "|shelf_life|ShelfLife|pairing|Turns|SingleMachineWorker|KeptCheck|Interval|FleetMetrics|fleet_metrics"
)


def events_by_group_commit(trees):
    """The actions whose events are made, to be stored by group commit."""
    calls = [node for _, node in nodes(trees, ast.Call) if called(node) == "event"]
    made = [ast.unparse(call.func.value) for call in calls]
    return [name for name in made if name != "self"]  # `Action.record`, in the transaction


def vague_names(trees):
    """Locals, parameters and loop variables with such a name; a class may have such a field."""
    fields = set()
    for _, kind in nodes(trees, ast.ClassDef):
        for statement in kind.body:
            fields |= {*getattr(statement, "targets", ()), getattr(statement, "target", None)}
    names = [(name, node, node.arg) for name, node in nodes(trees, ast.arg)]
    for name, node in nodes(trees, ast.Name):
        if isinstance(node.ctx, ast.Store) and node not in fields:
            names.append((name, node, node.id))
    return [f"{name}:{node.lineno} {word}" for name, node, word in names if VAGUE.fullmatch(word)]


_NAMING = {"id", "attr", "arg", "name", "asname", "module"}


def gone_names(trees):
    """Where the code gives or uses a name that is gone; strings may have it."""
    gone = []
    for name, node in nodes(trees, ast.AST):
        for field in _NAMING & vars(node).keys():
            words = str(getattr(node, field)).split(".")
            place = f"{name}:{getattr(node, 'lineno', '')}"
            gone += [f"{place} {word}" for word in words if GONE.fullmatch(word)]
    return gone


def code_lines(tree):
    """Return on how many lines code begins or ends, without docstrings and decorators."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        part
        for node in walked(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for part in ast.walk(node.body[0])
    }
    first = getattr(tree, "lineno", 1)
    placed = (node for node in set(walked(tree)) - docstrings if hasattr(node, "lineno"))
    lines = {line for node in placed for line in (node.lineno, node.end_lineno)}
    return sum(line >= first for line in lines)


def long_functions(trees, limit=40):
    return [
        f"{name}:{node.lineno} {node.name} has {length} lines"
        for kind in (ast.FunctionDef, ast.AsyncFunctionDef)
        for name, node in nodes(trees, kind)
        if (length := code_lines(node)) > limit
    ]


def same_classes(trees):
    """Names of classes that several modules define. What a class holds inside it (`Meta`) is
    named by that class.
    """
    names = Counter(
        node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef)
    )
    return [name for name, number in names.items() if number > 1]


# --- the rules can fail ---


FORBIDDEN = {
    raw_assume_role: ["def f(sts): sts.assume_role()", "def f(sts): getattr(sts, 'assume_role')()"],
    role_arn_keywords: ["f(RoleArn=1)", "f(**{'RoleArn': 1})"],
    sts_clients: [
        "boto3.client('sts')",
        "session.client(service_name='sts')",
        "session.create_client('sts')",
        "QueryApi('sts', region)",
    ],
    clients_of_any_kind: ["session.client(name)"],
    grants: ["ids.Grant(a, b)"],
    operators: ["access.OperatorPrincipal(name)"],
    dynamic_imports: [
        "import importlib.util",
        "from importlib import import_module as load",
        "__import__('boto3')",
        "exec('import boto3')",
    ],
    catches_everything: [
        "try: f()\nexcept Exception: pass",
        "try: f()\nexcept (ValueError, BaseException) as e: pass",
        "try: f()\nexcept: pass",
    ],
    writes_for_nobody: [
        "def f(self): self._db.write()",
        "def f(self): self._db.write(SYSTEM)",
        "def f(self): self._db.write(family_revocation.ending(operator, key))",
        "def f(self): self._db.write(somebody)",
    ],
    events_by_group_commit: ["actions.LINK_MADE.event(actor, details)"],
    writes_past_the_door: ["def f(db): Session(db.engine)", "def f(db): db._writing"],
    vague_names: ["def f(found): ...", "def f():\n    for one in g(): ...", "it = 1"],
    gone_names: ["def f(epoch): ...", "shelf_life = 1", "from app.proofs import pace", "a.lane"],
    long_functions: ["def f():\n" + "    x = 1\n" * 40],
}


@pytest.mark.parametrize("rule", FORBIDDEN)
def test_each_rule_finds_what_it_forbids(rule):
    for source in FORBIDDEN[rule]:
        assert len(rule({"bad.py": ast.parse(source)})) == 1, source


def test_two_modules_with_a_class_of_the_same_name_are_found():
    assert same_classes({name: ast.parse("class A: ...") for name in ("one.py", "other.py")}) == [
        "A"
    ]


# --- the door ---


def test_assume_role_is_called_in_one_place():
    assert raw_assume_role(TREES) == ["app/aws/sts.py"]
    # The other one is the answer that AWS_CONTAINER_CREDENTIALS_FULL_URI expects.
    assert sorted(role_arn_keywords(TREES)) == ["app/api/credentials.py", "app/aws/sts.py"]


CLIENTS = """
app/aws/query_api.py:? app/aws/stack_messages.py:s3 app/aws/stack_messages.py:sqs
app/aws/sts.py:iam app/aws/sts.py:sts app/aws/template_bucket.py:s3
app/aws/vendor_resources.py:iam app/aws/vendor_resources.py:s3
app/aws/vendor_resources.py:sns app/aws/vendor_resources.py:sqs
"""


def test_one_place_makes_sts_clients():
    assert sts_clients(TREES) == ["app/aws/sts.py"]
    # query.py has the service that sts.py names
    assert sorted(clients_of_any_kind(TREES)) == CLIENTS.split()
    assert importers(TREES, "app.aws.query_api") == ["app/aws/role_reader.py", "app/aws/sts.py"]
    # A session of a role's is never seen elsewhere
    assert importers(TREES, "app.aws.role_reader") == ["app/aws/sts.py"]


def test_only_a_stored_connection_makes_a_grant():
    assert grants(TREES) == ["app/store/models/connection.py"]


def test_only_the_command_line_makes_an_operator():
    """It may do everything, and no key is read again when it writes."""
    assert operators(TREES) == ["app/cli/commands.py"]


def test_a_grant_requires_all_of_its_parts():
    hints = typing.get_type_hints(Grant)
    assert list(hints) == ["role_arn", "external_id", "tenant_id"]
    for hint in hints.values():
        assert not isinstance(hint, types.UnionType)
        assert typing.get_origin(hint) is not typing.Union
    with pytest.raises(TypeError):
        Grant(role_arn="arn")  # type: ignore[call-arg]


# --- who writes ---


WRITERS = """
app/audit/months.py _step
app/audit/restore.py record_restore  # the operator
app/background/housekeeping.py _delete_old
app/health/heartbeats.py beat
app/health/heartbeats.py end
app/idempotency/attempts.py _take_over  # the principal writes only afterwards
app/idempotency/attempts.py end
app/identity/api_keys.py install_key  # the operator at the machine
app/identity/key_uses.py _store  # no request waits for it
app/imports/imports.py add  # the operator
app/issuing/issue.py _record_answer  # what AWS said of a role is true for every caller
app/onboarding/publication.py _record  # the background worker, once the bucket serves it
app/onboarding/registrations.py _register  # a stack's message
app/proofs/canary.py _record  # what the canary says of the vendor's own side
app/proofs/proof_queue.py _claim  # the background worker
app/proofs/proof_queue.py prove
app/rotation/rotations.py settle_all  # the background worker
app/tenants/tenants.py void_registrations  # the operator
app/webhooks/delivery.py advance  # the background worker
app/webhooks/endpoint_secrets.py seal_again
app/webhooks/retention.py delete_ended
"""


def test_only_deputy_itself_writes_for_nobody():
    """Everything else reads the caller's key or link again, in the transaction that it writes
    in.
    """
    writers = [f"{name} {function}" for name, function in writes_for_nobody(TREES)]
    assert writers == re.sub(" *#.*", "", WRITERS).split("\n")[1:-1]
    assert len(writes(TREES)) > 20


def test_a_transaction_that_writes_begins_in_one_place():
    assert sorted(set(writes_past_the_door(TREES))) == [
        "app/audit/batch_insert.py",  # issuances and refusals, which are checked as they are stored
        "app/store/database.py",
    ]


# --- the code ---


def test_no_event_that_webhooks_send_is_stored_by_group_commit():
    made = events_by_group_commit(TREES)
    assert made == [
        "actions.REFUSALS[noun]",
        "actions.CREDENTIALS_ISSUED",
        "actions.REQUEST_REFUSED",
    ]
    stored = [*actions.REFUSALS.values(), actions.CREDENTIALS_ISSUED, actions.REQUEST_REFUSED]
    assert not any(action.is_sent for action in stored)


def test_nothing_is_imported_by_a_name_made_at_run_time():
    assert dynamic_imports(TREES) == []


def test_nothing_catches_everything():
    assert catches_everything(TREES) == [
        "app/api/credentials.py",  # Flask raises it again, and answers
        # a background worker must survive every bug, or a process is left that only looks alive
        "app/background/worker.py",
        "app/background/worker.py",  # and end when a part of it has ended for any reason
        "app/concurrency/gevent.py",  # and so does a future
        # a batch keeps what went wrong with each item, to raise it where the item came from
        "app/concurrency/group_commit.py",
        # a check that fails is a finding, or it would be asked for by each request
        "app/health/checks.py",
        # what goes wrong while a server reads a body is of no common kind
        "app/http/current_request.py",
        "app/http/sockets.py",  # what still comes after an answer is dropped, malformed or not
        "app/limits/refusal_events.py",  # a thread that ended would lose all later summaries
        "app/onboarding/registrations.py",  # and would answer nobody
        "app/webhooks/delivery.py",  # and one attempt that fails must not lose the others' outcomes
    ]


def test_a_class_has_a_name_of_its_own():
    assert same_classes(TREES) == []


def test_functions_have_40_lines_of_code_at_most(all_trees):
    assert long_functions(all_trees) == []


@pytest.fixture(scope="module")
def all_trees():
    """All code but the tests."""
    trees = dict(TREES)
    for folder in ("client", "sandbox", "dev", "bench"):
        for path in sorted((APP.parent / folder).rglob("*.py")):
            name = path.relative_to(APP.parent).as_posix()
            trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def test_the_state_machine_of_a_connection_has_150_lines_of_code_at_most():
    machine = next(
        node
        for _, node in nodes({"connection": TREES["app/store/models/connection.py"]}, ast.ClassDef)
        if node.name == "Connection"
    )
    assert code_lines(machine) <= 150


def test_files_have_300_lines_of_code_at_most(all_trees):
    sizes = {name: code_lines(tree) for name, tree in all_trees.items()}
    assert {name: lines for name, lines in sizes.items() if lines > 300} == {}


def test_a_name_says_what_it_names(all_trees):
    assert vague_names({"a.py": ast.parse("class A:\n    at: datetime")}) == []
    assert vague_names(all_trees) == []


def test_a_name_that_is_gone_does_not_come_back(all_trees):
    assert gone_names(all_trees) == []


def test_a_tests_name_can_be_read_without_the_one_before_it():
    words = "it|its|they|these|nor|both|others|one_that|neither|another_one"
    leaning = re.compile(rf"^def test_(?:{words})_\w+", re.MULTILINE)
    assert leaning.findall("def test_nor_is_a_statement_of_another_shape(): pass")
    tests = Path(__file__).parent.rglob("test_*.py")
    assert [name for path in tests for name in leaning.findall(path.read_text("utf-8"))] == []


# --- the registries ---


@pytest.fixture(scope="module")
def app() -> Flask:
    """With neither a database nor an AWS: none of these tests may get as far."""
    return create_app(make_config(NOWHERE))


def test_a_module_that_cites_an_invariant_says_where_the_list_is():
    modules = [
        path.read_text(encoding="utf-8")
        for root in (APP, Path(__file__).parent)
        for path in root.rglob("*.py")
    ]
    citing = [text for text in modules if re.search(r"[Ii]nvariants?\s+[0-9]", text)]
    assert citing
    assert [text[:80] for text in citing if "docs/architecture.md" not in text] == []


def test_every_route_needs_a_scope_or_is_on_the_public_list(app):
    public = set()
    for rule in app.url_map.iter_rules():
        scopes = getattr(app.view_functions[rule.endpoint], "scopes", None)
        if rule.rule in PUBLIC_BY_CONSTRUCTION or scopes == []:
            assert not scopes, rule
            public.add(rule.rule)
        else:
            assert scopes, f"{rule} declares no scope"
            assert {type(scope) for scope in scopes} == {Scope}
    assert public == PUBLIC


def test_a_route_that_is_not_public_answers_nobody_without_a_key(app):
    """The marks above say what is meant; this is what happens."""
    client = app.test_client()
    some_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    tried = 0
    for rule in app.url_map.iter_rules():
        if rule.rule in PUBLIC:
            continue
        path = rule.rule
        for argument in rule.arguments:
            path = path.replace(f"<uuid:{argument}>", some_id)
        for method in rule.methods:
            response = client.open(path, method=method)
            assert response.status_code == 401, f"{method} {rule}"
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            tried += 1
    assert tried > 20


def test_a_public_route_only_reads(app):
    for rule in app.url_map.iter_rules():
        if rule.rule in PUBLIC and not rule.rule.startswith("/onboard"):
            assert rule.methods <= {"GET", "HEAD", "OPTIONS"}, rule


def test_every_table_that_names_a_tenant_is_owned_by_it():
    owned = {
        mapper.local_table.name
        for mapper in Base.registry.mappers
        if issubclass(mapper.class_, TenantOwned)
    }
    named = {table.name for table in Base.metadata.tables.values() if "tenant_id" in table.columns}
    assert named - owned == set(NOT_OWNED)
    for name in owned:
        column = Base.metadata.tables[name].columns["tenant_id"]
        assert not column.nullable
        assert {key.target_fullname for key in column.foreign_keys} >= {"tenants.id"}


def leaves(kind):
    if not kind.__subclasses__():
        yield kind
    for child in kind.__subclasses__():
        yield from leaves(child)


def test_every_refusal_has_one_status():
    found = list(leaves(AppError))
    assert {kind.__name__ for kind in found} == {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind in found
    }, "refusals are defined in app/errors.py"
    codes = [kind.code for kind in found]
    assert len(codes) == len(set(codes))
    assert set(codes) <= set(PROBLEMS)
    assert set(PROBLEMS) - set(codes) == {
        *("method_not_allowed", "payload_too_large", "unsupported_media_type", "uri_too_long"),
        *("headers_too_large", "internal_error"),
    }


STATUSES = """
malformed_request 400
unauthenticated 401
forbidden 403
not_found 404
method_not_allowed 405
conflict 409
idempotency_key_in_use 409
connection_not_verified 409
suspended 409
external_id_withdrawn 409
role_refused 409
payload_too_large 413
uri_too_long 414
unsupported_media_type 415
validation_failed 422
idempotency_key_reused 422
role_not_allowed 422
rate_limited 429
headers_too_large 431
internal_error 500
unavailable 503
aws_unavailable 503
proof_expired 503
"""


def test_every_code_of_the_design_has_its_status():
    assert STATUSES.strip().splitlines() == [
        f"{code} {status}" for code, (status, _) in PROBLEMS.items()
    ]
