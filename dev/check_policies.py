"""Part of `make check`: the checks of Access Analyzer on our own policies, without AWS.

It replaces ValidatePolicy and CheckNoPublicAccess as far as possible. docs/deployment.md has the
commands for those who can call them. It reads every policy in cloudformation/ and in
deploy/fargate.yaml. Each check takes one statement and returns what is wrong with it.
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
    """Return both alternatives of Fn::If, or the value."""
    return list(value["Fn::If"][1:]) if isinstance(value, dict) and "Fn::If" in value else [value]


def actions(statement: Statement) -> list[str]:
    return [action for one in _either(statement.get("Action", [])) for action in as_list(one)]


def _on_everything(statement: Statement) -> bool:
    """Return True if the statement applies to every resource, also after substitution."""
    found = [
        one.get("Fn::Sub", one) if isinstance(one, dict) else one
        for one in as_list(statement.get("Resource", []))
    ]
    # Fn::Sub with a list: the text and its values.
    resources = [one[0] if isinstance(one, list) else one for one in found]
    return bool(all_resources(one for one in resources if isinstance(one, str)))


def everything_on_everything(statement: Statement) -> list[str]:
    """Return allowed wildcards for all actions, or for a whole service, on every resource."""
    if statement["Effect"] != "Allow" or not _on_everything(statement):
        return []
    return all_actions(actions(statement))


def any_role_passed(statement: Statement) -> list[str]:
    if statement["Effect"] != "Allow" or not _on_everything(statement):
        return []
    return [action for action in actions(statement) if "iam:passrole" in actions_named(action)]


def inverted(statement: Statement) -> list[str]:
    """Return the elements that allow all but a list.

    Such a statement allows more with every service that AWS adds.
    """
    if statement["Effect"] != "Allow":
        return []
    return [key for key in ("NotAction", "NotResource", "NotPrincipal") if key in statement]


def unknown_actions(statement: Statement) -> list[str]:
    """Return the actions that do not exist. AWS ignores them, so a typing error has no effect."""
    return [action for action in actions(statement) if not actions_named(action)]


def _comparisons(condition: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the operator and key of each comparison."""
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
    """Return "*" if the statement allows everybody, without a condition on identity or origin.

    sts:ExternalId is no such condition, because it is no secret.
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
    """Yield the statements of every policy document at any depth of a template."""
    if isinstance(node, dict):
        # A rule of a web ACL has a Statement too, without an Effect.
        yield from (one for one in as_list(node.get("Statement", [])) if "Effect" in one)
        for child in node.values():
            yield from statements_in(child)
    elif isinstance(node, list):
        for child in node:
            yield from statements_in(child)


def shipped() -> Iterator[tuple[str, Statement]]:
    """Yield the statements of the templates and of the permission sets, each with a name."""
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
