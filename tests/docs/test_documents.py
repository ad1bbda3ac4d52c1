"""The documents for people: their tables, links and examples, and that they agree with the code."""

import ast
import itertools
import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from app.api.kit import idempotency
from app.audit.log import FEED_SECONDS
from app.background import housekeeping, worker
from app.config import Config
from app.diagnosis import role_rights
from app.http.current_request import BODY_KIB
from app.http.error_statuses import PROBLEMS
from app.idempotency import attempts
from app.identity.delegation import DELEGATION_HOURS
from app.issuing.issue import DURATION_DEFAULT
from app.onboarding import page_links
from app.onboarding.page_links import LINK_DAYS
from app.proofs.schedule import SEARCH_DAYS
from app.rotation import rotations, switch
from app.settings.setting_types import collect_settings
from app.settings.valid_values import SESSION_MIN
from app.store import history
from app.store.models import connection
from app.webhooks import retention, retries_and_disabling
from app.webhooks.events import RECOVERABLE
from dev import tables

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")})
RULE = re.compile(r"\|[-| :]+\|")
WORDS = {1: "a", 2: "two", 5: "five"}


def in_words(number):
    return WORDS.get(number, str(number))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_row_is_part_of_a_table(document):
    """Away from its table a row is shown as a line of text with bars in it."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    tables = re.findall(r"^\|.*(?:\n\|.*)*", text, re.MULTILINE)
    assert [table for table in tables if not RULE.fullmatch((table.splitlines() * 2)[1])] == []


def test_no_example_repeats_a_header_that_its_function_sends():
    """The server refuses a request in which Content-Type comes twice."""
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    examples = re.findall(r"^\(?(?:DEPUTY_API_KEY=\S+ )?api .*", text, re.MULTILINE)
    assert len(examples) > 10
    assert [line for line in examples if re.search(r" (-H|--header) ", line)] == []


def test_what_never_ran_on_aws_is_said_first_and_each_claim_has_its_command():
    first_screen = "".join((ROOT / "README.md").read_text().splitlines(keepends=True)[:24])
    assert "**Deputy has never run on AWS.**" in first_screen
    text = (ROOT / "docs" / "deployment.md").read_text()
    [_, claims] = text.split("### What only a run on AWS settles")
    listed = re.split(r"^\d+\. \*\*", claims, flags=re.MULTILINE)[1:]
    assert len(listed) == 22
    for claim in listed:
        assert re.search(r"`(aws|make|api) [^`]+`", claim), claim


LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
BEFORE = "before-your-first-customer.md"


def anchors(document):
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_link_to_a_file_or_an_anchor_leads_somewhere(document):
    for file, anchor in LINK.findall(document.read_text()):
        target = document.parent / file if file else document
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), (file, anchor)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_each_file_of_the_code_that_a_document_names_is_there(name):
    """Architecture leaves `app/` out, and a table names a folder once."""
    files = re.findall(r"`(?:app/)?([\w/]+\.py)`", (ROOT / name).read_text())
    assert len(files) > 50
    there = [
        f"/{path.relative_to(ROOT)}" for path in ROOT.rglob("*.py") if ".venv" not in path.parts
    ]
    assert [file for file in files if not any(path.endswith(f"/{file}") for path in there)] == []


def test_what_can_not_be_changed_later_is_linked_from_where_a_deployment_begins():
    assert f"](docs/{BEFORE})" in (ROOT / "README.md").read_text()
    assert f"]({BEFORE})" in (ROOT / "docs" / "deployment.md").read_text()


def test_pages_that_are_read_at_night_and_the_readme_stay_short():
    sizes = {
        "README.md": 12,
        "docs/install.md": 20,
        "docs/monitoring.md": 20,
        "docs/runbooks.md": 20,
    }
    for name, most in sizes.items():
        assert len((ROOT / name).read_bytes()) <= most * 1024, name


def test_the_pages_tables_are_as_their_contents_are_declared():
    settings, api = (page.read_text() for page in tables.PAGES)
    for page in (settings, api):
        assert page == tables.fill_tables(page), "make format writes its tables"
    declared = [setting.variable for setting in collect_settings(Config).values()]
    assert sorted(re.findall(r"^\| `(\w+)`", settings, re.MULTILINE)) == sorted(declared)
    assert "\n| `connection.suspended` " in api
    assert "\n| credential requests with this key " in api


@pytest.mark.parametrize(
    ("number", "places"),
    [
        (f"{SEARCH_DAYS} days", ["docs/api.md", "docs/architecture.md", "docs/onboarding.md"]),
        (f"{SEARCH_DAYS} days", ["app/api/connections.py"]),
        (f"{LINK_DAYS} days unless", ["docs/api.md", "docs/onboarding.md"]),
        (f"{FEED_SECONDS} seconds", ["docs/api.md", "docs/architecture.md", "docs/runbooks.md"]),
        (f"{FEED_SECONDS} seconds", ["app/api/audit_events.py", "app/cli/audit.py"]),
        (f"over {BODY_KIB} KiB", ["docs/api.md"]),
        (
            f"{in_words(switch._CONFIRMED_AFTER // timedelta(minutes=1))} minutes apart",
            [
                "app/rotation/switch.py",
                "app/web/onboarding/statuses.py",
                "app/web/onboarding/templates/onboard/imported.html",
                "docs/architecture.md",
                "docs/migrate.md",
            ],
        ),
        (
            f"{in_words(switch._CONFIRMED_AFTER // timedelta(minutes=1))} minutes later",
            ["app/web/onboarding/templates/onboard/imported.html", "docs/api.md"],
        ),
        (
            f"for {in_words(switch._CONFIRMED_AFTER // timedelta(minutes=1))} minutes unless",
            ["app/rotation/rotations.py"],
        ),
        (f"for {rotations._LOST_AFTER.days} days `broken`", ["docs/api.md"]),
        (
            f"{in_words(connection._PROOF_AGE_MAX.days)} day old",
            ["app/api/connections.py", "app/store/models/connection.py", "docs/api.md"],
        ),
        (f"last {RECOVERABLE.days} days", ["app/webhooks/endpoints.py"]),
        (f"most {RECOVERABLE.days} days ago", ["app/api/webhook_endpoints.py"]),
        (f"last {retention.DELIVERIES_KEPT.days} days", ["app/api/webhook_endpoints.py"]),
        (f"last {retention.DELIVERIES_KEPT.days} days with", ["docs/webhooks.md"]),
        (
            f"{in_words(retries_and_disabling._FAILING.days)} days",
            [
                "app/webhooks/retention.py",
                "app/audit/actions.py",
                "app/audit/details.py",
                "app/store/models/webhook.py",
                "docs/webhooks.md",
                "docs/monitoring.md",
            ],
        ),
        (f"for {page_links._LEFTOVERS_SHOWN.days} days their", ["docs/runbooks.md"]),
        (f"For {page_links._LEFTOVERS_SHOWN.days} days after", ["SECURITY.md"]),
        (f"to delete, for {page_links._LEFTOVERS_SHOWN.days} days", ["docs/onboarding.md"]),
        (f"newest {history.KEPT} entries", ["docs/api.md"]),
        (f"newest {history.KEPT} proofs", ["docs/architecture.md"]),
        (f"{idempotency._STORED_MAX // 1024} KiB are kept", ["docs/api.md"]),
        (f"{role_rights._MOST_ANSWERED:,} characters", ["docs/api.md"]),
        (f"410 for {page_links._LEFTOVERS_SHOWN.days} days", ["docs/api.md"]),
        (
            f"in {attempts.KEPT // timedelta(hours=1)} hours",
            ["app/api/kit/idempotency.py", "app/limits/limits.py"],
        ),
        (f"once in {attempts.KEPT // timedelta(hours=1)} hours", ["docs/api.md"]),
        (
            f"{DELEGATION_HOURS} hours",
            [
                "app/identity/delegation.py",
                "app/api/api_keys.py",
                "app/cli/keys.py",
                "docs/workers.md",
                "docs/runbooks.md",
            ],
        ),
        (
            f"{housekeeping.EVERY // 60} minutes",
            [
                "app/background/housekeeping.py",
                "app/webhooks/endpoint_secrets.py",
                "docs/install.md",
                "docs/monitoring.md",
            ],
        ),
        (f"graceful_timeout = {worker._ENDING:.0f}", ["gunicorn.conf.py"]),
        (f"have {worker._ENDING:.0f} seconds to finish", ["docs/install.md"]),
        (
            f"{worker._ENDING:.0f} s",
            [
                "deploy/systemd/deputy-web.service",
                "deploy/systemd/deputy-worker.service",
                "deploy/compose.yaml",
                "deploy/fargate.yaml",
            ],
        ),
        (
            f"from {SESSION_MIN} to the deployment's maximum; unless given, {DURATION_DEFAULT} ",
            ["docs/api.md"],
        ),
    ],
)
def test_a_text_has_the_number_of_the_code(number, places):
    """Where a text can't take it from there: in documents, and in docstrings that users read."""
    for place in places:
        assert number in " ".join((ROOT / place).read_text().split()), place


CALLS = re.compile(
    r"""Authorization: Bearer (\$\{?\w+|%s\\n' "?\$\{?\w+)|(\$\{?[A-Z_]+)\}?\$?\d?/v1"""
)


def test_the_documents_have_every_code_of_a_problem_and_every_event_of_the_log():
    codes = (ROOT / "docs/api.md").read_text().partition("\n| code ")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", codes, re.MULTILINE)) == {*PROBLEMS}
    code = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    events = set(re.findall(r'logger\.\w+\(\s*"([a-z_.]+)"', code))
    logs = (ROOT / "docs/monitoring.md").read_text().partition("\n## Logs\n")[2]
    assert events - set(re.findall(r"`([a-z_.]+)`", logs.partition("\n## ")[0])) == set()
    assert len(events) > 20


def test_every_document_calls_the_address_and_the_key_alike():
    """`key` is the script's own, which has read DEPUTY_API_KEY_FILE."""
    others = re.compile(r"\$\{?(URL|KEY|ADMIN_KEY|API_KEY|DEPUTY_KEY|DEPUTY_ADDRESS)\b")
    addresses, keys = set(), set()
    for document in DOCUMENTS:
        text = document.read_text()
        assert not others.search(text), document.name
        for key, address in CALLS.findall(text):
            name = (key or address).rpartition("$")[2].strip("{")
            (keys if key else addresses).add(name)
    assert (addresses, keys) == ({"DEPUTY_URL"}, {"DEPUTY_API_KEY", "key"})


THREATS = (ROOT / "docs" / "threat-model.md").read_text()
ATTACKERS = THREATS.split("\n## ")[1:]


def test_the_threat_model_names_tests_that_exist():
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)(?:::(\w+))?`", THREATS)
    assert len(named) > 40
    for file, test in named:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text(), f"{file}::{test}"


@pytest.mark.parametrize("attacker", ATTACKERS, ids=lambda text: text.partition("\n")[0])
def test_of_each_attacker_it_says_what_it_can_and_can_not_achieve_and_what_shows_that(attacker):
    heads = []
    for claim, shows in re.findall(r"^\| (.*?) *\| (.*?) *\|$", attacker, re.MULTILINE):
        if shows == "test":
            heads.append(re.sub("^(its thief|it) ", "", claim))
        else:
            assert re.match(r"`\w+/.*`$|a known limit|see \[", shows), shows
    assert heads == ["can", "can't"]


def test_each_attacker_is_there():
    assert len(ATTACKERS) == 10


def test_reliabilitys_table_has_each_fault_that_is_tried():
    """make faults prints the table; a fault that is added or renamed asks for a new run."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| ([^|]+?) \|.*\| nothing of [\d,]+ \|$", text, re.MULTILINE)
    paths = sorted((ROOT / "tests" / "faults").glob("test_*.py"))
    tried = [*itertools.chain.from_iterable(map(faults_of, paths))]
    assert len(rows) > 20
    assert [row for row in rows if not any(re.fullmatch(name, row) for name in tried)] == []
    assert [name for name in tried if not any(re.fullmatch(name, row) for row in rows)] == []


def faults_of(path):
    """What it calls the faults that it tries, as patterns: a part that is filled in may be
    anything.
    """
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    assigned = {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    texts = [
        call.args[1]
        for call in nodes
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "assert_served_meanwhile"
    ]
    texts += getattr(assigned.get("STS"), "keys", [])
    # A parameter of the test's names none.
    named = [assigned.get(text.id) if isinstance(text, ast.Name) else text for text in texts]
    return ["".join(map(pattern_of, getattr(text, "values", [text]))) for text in named if text]


def pattern_of(part):
    return re.escape(part.value) if isinstance(part, ast.Constant) else ".+"


def test_what_make_mutants_changes_and_runs_is_there():
    """mutmut says nothing of a module or a test that was renamed: it leaves it out."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    for path in config["only_mutate"]:
        assert (ROOT / path).is_file(), path
    for test in config["pytest_add_cli_args_test_selection"]:
        file, _, name = test.partition("::")
        assert (ROOT / file).exists(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), test
    for path in config["also_copy"]:
        assert (ROOT / path).exists(), path
