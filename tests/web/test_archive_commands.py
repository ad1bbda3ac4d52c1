"""The commands that archive Access Analyzer's finding: real shells and the real AWS CLI, against an
analyzer's endpoint that writes down what it is asked. The CLI knows AWS's parameters: with a wrong
one it sends nothing and fails.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from flask import Flask, request

from tests.client.people import served
from tests.support.shells import run_as

DOCS = Path(__file__).parents[2] / "docs" / "onboarding.md"
ANALYZER = "arn:aws:access-analyzer:us-east-1:444455556666:analyzer/Ours"


class Analyzer(Flask):
    """Access Analyzer, with one analyzer. `asked`: method, path and JSON of each request."""

    def __init__(self):
        super().__init__("analyzer")
        self.asked = []
        self.add_url_rule("/<path:path>", view_func=self.answer, methods=["GET", "PUT"])

    def answer(self, path):
        body = request.get_json(silent=True) or {}
        body.pop("clientToken", None)  # random: AWS knows a repetition by it
        query = f"?{request.query_string.decode()}" if request.query_string else ""
        self.asked.append((request.method, f"/{path}{query}", body))
        if request.method == "PUT":
            return {}
        names = {"arn": ANALYZER, "name": "Ours", "type": "ACCOUNT"}
        return {"analyzers": [names | {"createdAt": 0, "status": "ACTIVE"}]}


@pytest.fixture
def analyzer() -> Analyzer:
    return Analyzer()


@pytest.fixture
def shell(aws, customer, analyzer) -> Iterator[Callable[..., CompletedProcess[str]]]:
    """Runs commands in the customer's account, until one fails."""
    with served(analyzer) as port:
        url = f"http://127.0.0.1:{port}"
        yield partial(run_as, aws, customer.account, AWS_ENDPOINT_URL_ACCESSANALYZER=url)


def asks_for(rule, role_arn, broker):
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


def test_the_pages_archive_what_this_role_lets_in_this_principal_and_nothing_else(
    visitor, customer, analyzer, shell
):
    kit = visitor.world.kit(visitor.tenant)
    role_arn = customer.role(kit["role_name"], kit["trust_policy"], Path="/x/")
    done = shell(f"set -eu\n{visitor.page().select_one('#findings-commands').get_text()}")
    assert done.returncode == 0, done.stderr
    assert analyzer.asked == asks_for(kit["stack_name"], role_arn, kit["broker_principal_arn"])


def test_the_documents_do_the_same(analyzer, shell):
    [commands] = re.findall(r"```sh\n(role=.*?)```", DOCS.read_text(), re.DOTALL)
    done = shell(f"set -eu\n{commands}", AWS_DEFAULT_REGION="us-east-1")
    assert done.returncode == 0, done.stderr
    role_arn, broker = (
        "arn:aws:iam::444455556666:role/deputy-2dc8435d",
        "arn:aws:iam::111122223333:role/DeputyBroker",
    )
    assert analyzer.asked == asks_for("deputy", role_arn, broker)
