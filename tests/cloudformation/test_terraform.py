"""The module in terraform/: parsed, and compared with what the kit and the template ask for."""

import json
import re
from pathlib import Path

import pytest

from app.ids import Broker
from app.onboarding.kit_trust_policy import trust_policy
from app.permissions import permission_sets
from tests.support import hcl

MODULE = Path(__file__).parents[2] / "terraform"
FILES = {path.stem: hcl.parse(path.read_text(encoding="utf-8")) for path in MODULE.glob("*.tf")}
VARIABLES = {name: block for item in FILES["variables"]["variable"] for name, block in item.items()}
SETS = permission_sets.load()
EXTERNAL_ID = "dpy-" + "0f" * 32
BROKER = "arn:aws:iam::123456789012:role/AcmeBroker"
LIMITS = ["access_until", "revoke_sessions_before", "permissions_boundary_arn"]
TIME, BOUNDARY = "2027-12-31T00:00:00Z", "arn:aws:iam::444455556666:policy/Boundary"
NEXT_EXTERNAL_ID = "dpy-" + "1e" * 32

TIMES = {
    "": True,
    TIME: True,
    "2027-12-31T00:00:00": False,  # in which time zone?
    "2027-13-01T00:00:00Z": False,
    f"{TIME}\n": False,
}
# What a parameter of the customer's template accepts, and the module's variable of that name.
ACCEPTED = {
    "ExternalId": {
        EXTERNAL_ID: True,
        **dict.fromkeys((f"{EXTERNAL_ID}\n", EXTERNAL_ID.upper(), "", "dpy-*"), False),
    },
    "NextExternalId": {NEXT_EXTERNAL_ID: True, "": True, "dpy-*": False},
    "RoleName": {"deputy-1a2b3c4d": True, "path/role": False, "a" * 65: False},
    "AccessUntil": TIMES,
    "RevokeSessionsBefore": TIMES,
    "PermissionsBoundaryArn": {
        "": True,
        BOUNDARY: True,
        BOUNDARY.replace("policy", "role"): False,
        f"{BOUNDARY}*": False,
    },
}


def read_itself(role_arn):
    """As in customer-role.yaml."""
    reads = [
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListRolePolicies",
        "iam:ListAttachedRolePolicies",
        "iam:SimulatePrincipalPolicy",
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": reads, "Resource": role_arn}],
    }


def given(broker_arn, policy):
    return {
        "var.external_id": EXTERNAL_ID,
        "var.next_external_id": "",
        "var.role_name": "deputy-1a2b3c4d",
        "var.broker_principal_arn": broker_arn,
        "var.vendor_name": "Acme 24",
        "var.permissions_policy": policy,
        "var.permission_set": "inventory@1",
        **{f"var.{name}": "" for name in LIMITS},
        "var.max_session_duration": VARIABLES["max_session_duration"]["default"],
    }


def in_a_list(policy):
    """The same policy: IAM takes a list of one value as that value."""
    compared = policy["Statement"][0]["Condition"]["StringEquals"]
    compared["sts:ExternalId"] = [compared["sts:ExternalId"]]
    return policy


def resource(kind, name="this"):
    [found] = [item[kind][name] for item in FILES["main"]["resource"] if name in item.get(kind, {})]
    return found


@pytest.mark.parametrize(
    ("chosen", "arn"),
    [*zip(SETS.values(), (BROKER, "arn:aws-cn:iam::123456789012:user/a/AcmeBroker"), strict=True)],
)
def test_the_module_makes_the_role_of_the_kit(chosen, arn):
    broker = Broker.parse(arn)
    names = given(arn, json.dumps(chosen.policy(broker.partition)))
    [written] = FILES["main"]["locals"]
    names["local.broker"] = hcl.evaluate(written["broker"], names)
    names["local.trust_policy"] = hcl.evaluate(written["trust_policy"], names)
    found = dict(resource("aws_iam_role"))
    assert found.pop("assume_role_policy") == "${jsonencode(local.trust_policy)}"
    assert names["local.trust_policy"] == in_a_list(trust_policy(broker, EXTERNAL_ID))
    rotating = hcl.evaluate(
        written["trust_policy"], names | {"var.next_external_id": NEXT_EXTERNAL_ID}
    )
    assert rotating == trust_policy(broker, EXTERNAL_ID, NEXT_EXTERNAL_ID)
    role = hcl.evaluate(found, names)
    assert role == {
        "name": "deputy-1a2b3c4d",
        "description": (
            f"Lets Acme 24 reach this account for the customer with External ID {EXTERNAL_ID}"
        ),
        "max_session_duration": 3600,
        "permissions_boundary": None,
        "tags": {
            "deputy:vendor": "Acme 24",
            "deputy:external-id": EXTERNAL_ID,
            "deputy:permission-set": "inventory@1",
        },
    }
    names |= {"aws_iam_role.this.id": "it", "aws_iam_role.this.arn": "its ARN"}
    policy = hcl.evaluate(resource("aws_iam_role_policy", "permissions"), names)
    assert policy["name"] == "permissions"
    assert policy["role"] == "it"
    assert json.loads(policy["policy"]) == chosen.policy(broker.partition)
    reads = hcl.evaluate(resource("aws_iam_role_policy", "read_itself"), names)
    assert (reads["name"], reads["role"]) == ("read-itself", "it")
    assert json.loads(reads["policy"]) == read_itself("its ARN")


def denied(name, variable):
    """The name and the condition of one of the policies that deny everything."""
    names = given(BROKER, "{}") | {"aws_iam_role.this.id": "it"}
    assert hcl.evaluate(resource("aws_iam_role_policy", name), names)["count"] == 0
    policy = hcl.evaluate(resource("aws_iam_role_policy", name), names | {f"var.{variable}": TIME})
    [statement] = json.loads(policy["policy"])["Statement"]
    condition = statement.pop("Condition")
    assert statement == {"Effect": "Deny", "Action": "*", "Resource": "*"}
    return {policy["name"]: condition, "count": policy["count"]}


def test_the_limits_are_there_when_they_are_given():
    names = given(BROKER, "{}") | {
        "var.access_until": TIME,
        "var.permissions_boundary_arn": BOUNDARY,
    }
    [written] = FILES["main"]["locals"]
    names["local.broker"] = hcl.evaluate(written["broker"], names)
    [statement] = hcl.evaluate(written["trust_policy"], names)["Statement"]
    assert statement["Condition"].pop("DateLessThan") == {"aws:CurrentTime": TIME}
    assert statement == in_a_list(trust_policy(Broker.parse(BROKER), EXTERNAL_ID))["Statement"][0]
    assert hcl.evaluate(resource("aws_iam_role")["permissions_boundary"], names) == BOUNDARY
    ends = {"access-until": {"DateGreaterThanEquals": {"aws:CurrentTime": TIME}}, "count": 1}
    assert denied("access_until", "access_until") == ends
    revokes = {"AWSRevokeOlderSessions": {"DateLessThan": {"aws:TokenIssueTime": TIME}}, "count": 1}
    assert denied("revoke_older_sessions", "revoke_sessions_before") == revokes


def test_only_these_may_be_left_out():
    optional = [
        "next_external_id",
        "managed_policy_arns",
        "permission_set",
        "max_session_duration",
        *LIMITS,
    ]
    assert [name for name, block in VARIABLES.items() if "default" in block] == optional
    assert all(block["description"] for block in VARIABLES.values())
    assert [name for name, block in VARIABLES.items() if "validation" not in block] == optional[1:3]


def patterns(name):
    """The patterns that a variable must match. Unlike Python's, Go's $ is the very end."""
    found = []
    for validation in VARIABLES[name]["validation"]:
        text = re.fullmatch(
            rf'\$\{{can\(regex\((".*"), var\.{name}\)\)\}}', validation["condition"]
        )[1]
        found.append(re.compile(hcl.text_of(text, {}).removesuffix("$") + r"\Z", re.ASCII))
    return found


def test_a_variable_takes_only_what_it_should():
    own = {re.sub("(?<=.)([A-Z])", r"_\1", name).lower(): of for name, of in ACCEPTED.items()}
    own["vendor_name"] = {"Acme 24": True, "A\nb": False, "${x}": False}
    arn = "arn:aws:iam::123456789012:"
    own["broker_principal_arn"] = {
        f"{arn}role/AcmeBroker": True,
        "arn:aws-us-gov:iam::123456789012:user/team/Acme": True,
        f"{arn}role/*": False,
        f"{arn}role/*/AcmeBroker": False,
        f"{arn}role/${{aws:x}}/AcmeBroker": False,
        f"{arn}root": False,
    }
    for name, values in own.items():
        for value, accepted in values.items():
            matches = all(pattern.match(value) for pattern in patterns(name))
            assert matches is accepted, (name, value)


def rows_of_readme():
    """The rows that a registry shows: inputs, the required ones first, and outputs."""
    inputs = []
    for name, block in sorted(VARIABLES.items(), key=lambda item: ("default" in item[1], item[0])):
        kind = block["type"].removeprefix("${").removesuffix("}")
        given = block.get("default", "n/a")  # a text is in quotes already
        default = given if given == "n/a" else f"`{given}`"
        required = "no" if "default" in block else "yes"
        about = hcl.text_of(block["description"], {})
        inputs.append(f"| `{name}` | {about} | `{kind}` | {default} | {required} |")
    outputs = [
        f"| `{name}` | {hcl.text_of(block['description'], {})} |"
        for item in FILES["outputs"]["output"]
        for name, block in item.items()
    ]
    return inputs, outputs


def test_the_readme_has_the_variables_the_outputs_the_resources_and_the_versions():
    text = (MODULE / "README.md").read_text(encoding="utf-8")
    for rows in rows_of_readme():
        assert "\n".join(rows) in text
    for item in FILES["main"]["resource"]:
        for kind, named in item.items():
            assert f"| `{kind}.{next(iter(named))}` " in text
    [written] = FILES["versions"]["terraform"]
    [providers] = written["required_providers"]
    version = hcl.text_of(providers["aws"]["version"], {})
    for name, required in (
        ("terraform", hcl.text_of(written["required_version"], {})),
        ("aws", version),
    ):
        assert re.search(rf"^\| `{name}` +\| `{required}` +\|$", text, re.MULTILINE), name
