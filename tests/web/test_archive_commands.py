"""The commands that archive Access Analyzer's finding: real shells and the real AWS CLI, against an
analyzer's endpoint that writes down what it is asked. The CLI knows AWS's parameters: with a wrong
one it sends nothing and fails.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from threading import Thread
from urllib.parse import unquote

import pytest

from tests.attacks.evidence import on_sqlite
from tests.support.cast import Customer
from tests.support.shells import run_as
from tests.web.conftest import Visitor

DOCS = Path(__file__).parents[2] / "docs" / "onboarding.md"
ANALYZER = "arn:aws:access-analyzer:us-east-1:444455556666:analyzer/Ours"


class Analyzer(ThreadingHTTPServer):
    """Access Analyzer, with one analyzer. `asked`: method, path and JSON of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, str, dict]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Analyzer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, unquote(self.path), json.loads(body or "{}")))
        found = {
            "arn": ANALYZER,
            "name": "Ours",
            "type": "ACCOUNT",
            "createdAt": 0,
            "status": "ACTIVE",
        }
        answer = json.dumps({"analyzers": [found]} if self.command == "GET" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Not to stderr."""


@pytest.fixture
def analyzer() -> Iterator[Analyzer]:
    with Analyzer() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def shell(aws, customer: Customer, analyzer: Analyzer) -> Callable[..., CompletedProcess[str]]:
    """Runs commands in the customer's account, until one fails."""
    return partial(run_as, aws, customer.account, AWS_ENDPOINT_URL_ACCESSANALYZER=analyzer.url)


def asks_for(rule: str, role_arn: str, broker: str) -> list[tuple[str, str, dict]]:
    account = broker.split(":")[4]
    criteria = {
        "resource": {"eq": [role_arn]},
        "principal.AWS": {"eq": [account, f"arn:aws:iam::{account}:root", broker]},
        "isPublic": {"eq": ["false"]},
    }
    applied = {"analyzerArn": ANALYZER, "ruleName": rule}
    return [
        ("GET", "/analyzer?type=ACCOUNT", {}),
        ("PUT", "/analyzer/Ours/archive-rule", {"ruleName": rule, "filter": criteria}),
        ("PUT", "/archive-rule", applied),
    ]


def unique(asked: list[tuple[str, str, dict]]) -> list[tuple[str, str, dict]]:
    """Without the random token by which AWS knows a repetition."""
    return [
        (method, path, {k: v for k, v in sent.items() if k != "clientToken"})
        for method, path, sent in asked
    ]


@on_sqlite
def test_the_pages_archive_what_this_role_lets_in_this_principal_and_nothing_else(
    visitor: Visitor, customer: Customer, analyzer: Analyzer, shell
):
    kit = visitor.world.kit(visitor.tenant)
    role_arn = customer.role(kit["role_name"], kit["trust_policy"], Path="/x/")
    done = shell(f"set -eu\n{visitor.page().select_one('#findings-commands').get_text()}")
    assert done.returncode == 0, done.stderr
    assert unique(analyzer.asked) == asks_for(
        kit["stack_name"], role_arn, kit["broker_principal_arn"]
    )


def test_the_documents_do_the_same(analyzer: Analyzer, shell):
    [commands] = re.findall(r"```sh\n(role=.*?)```", DOCS.read_text(), re.DOTALL)
    done = shell(f"set -eu\n{commands}", AWS_DEFAULT_REGION="us-east-1")
    assert done.returncode == 0, done.stderr
    role_arn, broker = (
        "arn:aws:iam::444455556666:role/deputy-2dc8435d",
        "arn:aws:iam::111122223333:role/DeputyBroker",
    )
    assert unique(analyzer.asked) == asks_for("deputy", role_arn, broker)
