"""The commands that archive Access Analyzer's finding: real shells run them, against an `aws` that writes its words down."""

import json
import shutil
import subprocess

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from tests.attacks.evidence import on_sqlite
from tests.web.conftest import Visitor

pytestmark = on_sqlite  # nothing here depends on the database

ROLE, ANALYZER = (
    "arn:aws:iam::444455556666:role/x/deputy-1",
    "arn:aws:access-analyzer:us-east-1:444455556666:analyzer/Ours",
)
_AWS = f"""#!/bin/sh
printf '%s\\0' "$@" '' >> "$0.words"
case "$2" in get-role) echo {ROLE} ;; list-analyzers) echo {ANALYZER} ;; esac
"""


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_they_archive_what_this_role_lets_in_this_principal_and_nothing_else(visitor: Visitor, tmp_path, shell: str):
    kit = visitor.world.kit(visitor.tenant)
    program = tmp_path / "aws"
    program.write_text(_AWS)
    program.chmod(0o755)
    subprocess.run(
        [shutil.which(shell), "-eu"],
        input=visitor.page().select_one("#findings-commands").get_text().encode(),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        check=True,
    )
    calls = [call.split("\0") for call in (tmp_path / "aws.words").read_text().removesuffix("\0\0").split("\0\0")]
    assert [call[1] for call in calls] == ["get-role", "list-analyzers", "create-archive-rule", "apply-archive-rule"]
    asked, _, create, applied = (dict(zip(call[2::2], call[3::2], strict=True)) for call in calls)
    assert asked["--role-name"] == kit["role_name"]
    assert applied == {"--region": kit["region"], "--analyzer-arn": ANALYZER, "--rule-name": kit["stack_name"]}
    account = kit["broker_principal_arn"].split(":")[4]
    sent = {
        "analyzerName": create["--analyzer-name"],
        "ruleName": create["--rule-name"],
        "filter": json.loads(create["--filter"]),
    }
    assert sent == {
        "analyzerName": "Ours",
        "ruleName": kit["stack_name"],
        "filter": {
            "resource": {"eq": [ROLE]},
            "principal.AWS": {"eq": [account, f"arn:aws:iam::{account}:root", kit["broker_principal_arn"]]},
            "isPublic": {"eq": ["false"]},
        },
    }
    model = get_session().get_service_model("accessanalyzer").operation_model("CreateArchiveRule")
    assert not ParamValidator().validate(sent, model.input_shape).has_errors()
