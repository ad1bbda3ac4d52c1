"""The kit's Terraform and its script for the AWS CLI: the same role as the template's, and no
value becomes code.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cfnlint.decode import decode

from app.ids import Broker
from app.onboarding import kit_scripts
from app.onboarding.kit_scripts import KitRole
from app.onboarding.kit_trust_policy import trust_policy
from app.permissions import permission_sets
from tests.cloudformation.test_terraform import read_itself
from tests.support import hcl, terraform

SETS = permission_sets.load()
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
EXTERNAL_ID = "dpy-" + "0f" * 32

KIT_ROLES = {
    f"{chosen.name}-{partition}": KitRole(
        name="deputy-1a2b3c4d",
        description="Lets Acme 24 reach this account",
        vendor="Müller, 'Söhne' & Co. 東京",
        vendor_tag="Muller Sohne Co.",
        external_id=EXTERNAL_ID,
        region="us-east-1",
        max_seconds=7200,
        trust=trust_policy(
            Broker.parse(f"arn:{partition}:iam::123456789012:role/service/AcmeBroker"), EXTERNAL_ID
        ),
        policy=chosen.policy(partition),
        permission_set=chosen.label,
    )
    for chosen, partition in zip(SETS.values(), ("aws", "aws-cn"), strict=True)
}
CUSTOMER_ROLE, _ = decode(str(Path(__file__).parents[2] / "cloudformation" / "customer-role.yaml"))
ROLE = KitRole(
    "deputy-x",
    "words",
    "Acme, Inc.",
    "Acme Inc.",
    EXTERNAL_ID,
    "us-east-1",
    3600,
    {"a": "b"},
    {"c": ["d"]},
)

LIMITED = ROLE._replace(
    trust=trust_policy(Broker.parse("arn:aws:iam::123456789012:role/AcmeBroker"), EXTERNAL_ID)
)
LIMITS = ("AccessUntil", "RevokeSessionsBefore", "PermissionsBoundaryArn")
NO_LIMITS = {f"var.{name}": "" for name in LIMITS}


def made_by(written, *, vendor):
    """The role that applying it would make; `vendor` stands in comments alone."""
    found = hcl.parse(written)
    assert set(found) == {"variable", "resource", "output"}
    [role], [policy], [reads] = (
        [resource[kind][name] for resource in found["resource"] if name in resource.get(kind, {})]
        for kind, name in (
            ("aws_iam_role", "deputy"),
            ("aws_iam_role_policy", "deputy"),
            ("aws_iam_role_policy", "deputy_read_itself"),
        )
    )
    names = {"aws_iam_role.deputy.id": "the role", "aws_iam_role.deputy.arn": "its ARN"} | NO_LIMITS
    role, policy, reads = (
        hcl.evaluate(role, names),
        hcl.evaluate(policy, names),
        hcl.evaluate(reads, names),
    )
    assert policy["name"] == "permissions"
    assert policy["role"] == "the role"
    assert reads["name"] == "read-itself"
    assert reads["role"] == "the role"
    assert json.loads(reads["policy"]) == read_itself("its ARN")
    assert role["permissions_boundary"] is None
    assert found["output"] == [{"role_arn": {"value": "${aws_iam_role.deputy.arn}"}}]
    assert set(role["tags"]) == {"deputy:vendor", "deputy:external-id", "deputy:permission-set"}
    return KitRole(
        name=role["name"],
        description=role["description"],
        vendor=vendor,
        vendor_tag=role["tags"]["deputy:vendor"],
        external_id=role["tags"]["deputy:external-id"],
        region="us-east-1",  # the provider's affair
        max_seconds=role["max_session_duration"],
        trust=json.loads(role["assume_role_policy"]),
        policy=json.loads(policy["policy"]),
        permission_set=role["tags"]["deputy:permission-set"],
    )


@pytest.mark.parametrize("role", KIT_ROLES.values(), ids=KIT_ROLES)
def test_terraform_makes_exactly_the_role(role):
    assert made_by(kit_scripts.terraform(role), vendor=role.vendor) == role


def test_terraforms_fmt_would_change_nothing():
    written = [kit_scripts.terraform(role) for role in KIT_ROLES.values()]
    assert terraform.formatted(*written) == written


def test_the_limits_of_terraform_are_the_templates():
    found = hcl.parse(kit_scripts.terraform(LIMITED))
    variables = {name: block for item in found["variable"] for name, block in item.items()}
    parameters = CUSTOMER_ROLE["Parameters"]
    assert list(variables) == list(LIMITS)
    for name, variable in variables.items():
        pattern = re.fullmatch(
            rf'\$\{{can\(regex\("(.*)", var\.{name}\)\)\}}', variable["validation"][0]["condition"]
        )
        assert variable["default"] == '""'
        assert pattern[1] == f"^({parameters[name]['AllowedPattern']})$"
        counts = re.findall(r"[0-9]+(?=[,}])", pattern[1])
        assert max(map(int, counts)) <= 255, "more is an error to grep on macOS"
    names = {
        "aws_iam_role.deputy.id": "it",
        "aws_iam_role.deputy.arn": "its ARN",
        **{f"var.{it}": it for it in LIMITS},
    }
    resources = [
        hcl.evaluate(block, names)
        for item in found["resource"]
        for it in item.values()
        for block in it.values()
    ]
    assert resources[0]["permissions_boundary"] == "PermissionsBoundaryArn"
    [statement] = json.loads(resources[0]["assume_role_policy"])["Statement"]
    assert statement["Condition"].pop("DateLessThan") == {"aws:CurrentTime": "AccessUntil"}
    assert statement == LIMITED.trust["Statement"][0]
    denials = {
        it["name"]: json.loads(it["policy"])["Statement"]
        for it in resources
        if it.get("count") == 1
    }
    assert denials == {
        name: [{"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}]
        for name, condition in (
            ("access-until", {"DateGreaterThanEquals": {"aws:CurrentTime": "AccessUntil"}}),
            (
                "AWSRevokeOlderSessions",
                {"DateLessThan": {"aws:TokenIssueTime": "RevokeSessionsBefore"}},
            ),
        )
    }
    none = hcl.evaluate(found["resource"][-1], names | NO_LIMITS)
    assert none["aws_iam_role_policy"]["deputy_RevokeSessionsBefore"]["count"] == 0


# What would end a string, begin a template or a comment, or be a control character in one language
# or the other.
HOSTILE = [
    "${file(1)}",
    "$${x}",
    "$$${x}",
    "%{ if true }x%{ endif }",
    "%%%{x}",
    "$%{x}${",
    "$$$${{",
    '"',
    '" }\nresource "x" "y" {}\n#',
    "\\",
    '\\"',
    "\\${x}",
    "a\nb\r\nc\td",
    "\x00\x08\x0c\x7f",
    "it's",
    "'; reboot; '",
    "$(reboot) `reboot`",
    "# // /* */",
    "${aws:PrincipalAccount}",
    "ü€😀\u2028",
    "",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_in_terraform_any_text_stays_text(text):
    changes = dict.fromkeys(("name", "description", "vendor", "vendor_tag", "external_id"), text)
    role = ROLE._replace(**changes, trust={text: [text]}, policy={"x": text})
    assert made_by(kit_scripts.terraform(role), vendor=role.vendor) == role


# --- the script ---


@pytest.mark.parametrize(
    ("role", "shell"), [*zip(KIT_ROLES.values(), ("sh", "bash"), strict=True)], ids=("sh", "bash")
)
def test_shellcheck_finds_nothing_wrong_with_the_script(role, shell):
    done = subprocess.run(
        [SHELLCHECK, "--norc", f"--shell={shell}", "-"],
        input=kit_scripts.aws_cli(role),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout + done.stderr == ""


@pytest.fixture
def recorder(tmp_path) -> Path:
    """A folder with an `aws` that writes down its words, each ended by a NUL, and does nothing."""
    program = tmp_path / "aws"
    program.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> '{tmp_path}/words'\n")
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_in_the_script_any_text_stays_text(recorder, shell):
    texts = [text for text in HOSTILE if "\x00" not in text]
    for text in ("".join(texts), "".join(texts[::-1]), "'", ""):
        (recorder / "words").unlink(missing_ok=True)
        changes = dict.fromkeys(("name", "description", "vendor", "vendor_tag", "region"), text)
        role = ROLE._replace(**changes, trust={text: text}, policy={"x": [text]})
        subprocess.run(
            [shutil.which(shell)],
            input=kit_scripts.aws_cli(role).encode(),
            env={"PATH": f"{recorder}:/usr/bin:/bin"},
            capture_output=True,
            check=True,
        )
        words = (recorder / "words").read_bytes().decode().split("\0")
        assert words[:2] == ["iam", "create-role"], text
        assert {f"--role-name={text}", f"--description={text}"} <= {*words}
        assert json.loads(words[words.index("--assume-role-policy-document") + 1]) == role.trust
        assert json.loads(words[words.index("--policy-document") + 1]) == role.policy
        tags = json.loads(words[words.index("--tags") + 1])
        assert {tag["Key"]: tag["Value"] for tag in tags} == role.tags
        assert words.count("iam") == 4, text
