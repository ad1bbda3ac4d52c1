"""Part of `make check`: what Access Analyzer's ValidatePolicy and CheckNoPublicAccess would say of
our own policies, as far as that can be told without AWS. docs/deployment.md has the commands for
those who can call it.

It reads every policy in cloudformation/ and in deploy/fargate.yaml. Each check takes one statement
and names what is wrong with it.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cfnlint.decode import decode  # type: ignore[import-untyped]

from app.permissions.action_data import actions_named
from app.permissions.wildcards import all_actions, all_resources

CLOUDFORMATION = Path(__file__).parents[1] / "cloudformation"
FARGATE = CLOUDFORMATION.with_name("deploy") / "fargate.yaml"
# Customers' accounts are not known in advance: their stacks read the templates and publish to the
# topic.
PUBLIC_ON_PURPOSE = {"AnyoneReadsPublishedTemplates", "AnyoneRegisters"}
_NARROWING = re.compile(
    r"aws:(source(arn|account|orgid|vpc|vpce|ip)|principal(arn|account|orgid|orgpaths))",
    re.IGNORECASE,
)
_OPERATOR = re.compile(
    r"((ForAllValues|ForAnyValue):)?(String(Not)?(Equals(IgnoreCase)?|Like)|Arn(Not)?(Equals|Like)|(Not)?IpAddress|Bool"
    r"|BinaryEquals|(Numeric|Date)((Not)?Equals|(Less|Greater)Than(Equals)?))(IfExists)?|Null"
)

Statement = dict[str, Any]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _either(value: Any) -> list[Any]:
    """Both of what Fn::If chooses from."""
    return list(value["Fn::If"][1:]) if isinstance(value, dict) and "Fn::If" in value else [value]


def actions(statement: Statement) -> list[str]:
    return [action for one in _either(statement.get("Action", [])) for action in as_list(one)]


def _on_everything(statement: Statement) -> bool:
    """On every resource, also after substitution."""
    found = [
        one.get("Fn::Sub", one) if isinstance(one, dict) else one
        for one in as_list(statement.get("Resource", []))
    ]
    resources = [
        one[0] if isinstance(one, list) else one for one in found
    ]  # a text with values of its own
    return bool(all_resources(one for one in resources if isinstance(one, str)))


def everything_on_everything(statement: Statement) -> list[str]:
    """All actions, or a whole service, on every resource."""
    if statement["Effect"] != "Allow" or not _on_everything(statement):
        return []
    return all_actions(actions(statement))


def any_role_passed(statement: Statement) -> list[str]:
    if statement["Effect"] != "Allow" or not _on_everything(statement):
        return []
    return [action for action in actions(statement) if "iam:passrole" in actions_named(action)]


def inverted(statement: Statement) -> list[str]:
    """An Allow of all but a list, which grows with every service that AWS adds."""
    if statement["Effect"] != "Allow":
        return []
    return [key for key in ("NotAction", "NotResource", "NotPrincipal") if key in statement]


def unknown_actions(statement: Statement) -> list[str]:
    """Names that AWS does not know: it accepts and ignores them, so a slip would go unseen."""
    return [action for action in actions(statement) if not actions_named(action)]


def _comparisons(condition: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(operator, key) of each."""
    for operator, tests in condition.items():
        for test in _either(tests) if operator != "Ref" else []:
            yield from ((operator, key) for key in test if key != "Ref")


def unknown_operators(statement: Statement) -> list[str]:
    found = [
        pair
        for condition in _either(statement.get("Condition", {}))
        for pair in _comparisons(condition)
    ]
    return [operator for operator, _ in found if not _OPERATOR.fullmatch(operator)]


def _narrows(condition: dict[str, Any]) -> bool:
    return any(
        _NARROWING.fullmatch(key)
        and operator.startswith(("String", "Arn", "IpAddress"))
        and "Not" not in operator
        and not operator.endswith("IfExists")
        for operator, key in _comparisons(condition)
    )


def public(statement: Statement) -> list[str]:
    """An Allow for everybody that no condition on who or whence narrows. sts:ExternalId does
    not: it is no secret.
    """
    principal = statement.get("Principal")
    names = as_list(principal.get("AWS", []) if isinstance(principal, dict) else principal)
    narrowed = all(map(_narrows, _either(statement.get("Condition", {}))))
    return ["*"] if statement["Effect"] == "Allow" and "*" in names and not narrowed else []


CHECKS = {
    "everything on everything": everything_on_everything,
    "any role may be passed": any_role_passed,
    "allows all but a list": inverted,
    "unknown actions": unknown_actions,
    "unknown operators": unknown_operators,
    "public": public,
}


def statements_in(node: Any) -> Iterator[Statement]:
    """The statements of every policy document at any depth of a template."""
    if isinstance(node, dict):
        # A rule of a web ACL has a Statement too, without an Effect.
        yield from (one for one in as_list(node.get("Statement", [])) if "Effect" in one)
        for child in node.values():
            yield from statements_in(child)
    elif isinstance(node, list):
        for child in node:
            yield from statements_in(child)


def shipped() -> Iterator[tuple[str, Statement]]:
    """A name for each statement of the templates and of the permission sets, and the statement."""
    for path in sorted(CLOUDFORMATION.glob("permission-sets/*.json")):
        for statement in json.loads(path.read_text())["statements"]:
            yield f"{path.stem}-{statement['Sid']}", statement
    for path in (*sorted(CLOUDFORMATION.glob("*.yaml")), FARGATE):
        template, _ = decode(str(path))
        for number, statement in enumerate(statements_in(template["Resources"])):
            yield f"{path.stem}-{statement.get('Sid', number)}", statement


def mistakes_in(statement: Statement) -> list[str]:
    left_out = {"public"} if statement.get("Sid") in PUBLIC_ON_PURPOSE else set()
    found = {what: check(statement) for what, check in CHECKS.items() if what not in left_out}
    return [f"{what}: {', '.join(names)}" for what, names in found.items() if names]


def main() -> int:
    found = [
        f"{name}: {mistake}" for name, statement in shipped() for mistake in mistakes_in(statement)
    ]
    print(
        "\n".join(found) if found else "The policies are sound.",
        file=sys.stderr if found else sys.stdout,
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
