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

from app.permissions.action_checks import actions_named
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
    r"((ForAllValues|ForAnyValue):)?(String(Not)?(Equals(IgnoreCase)?|Like)"
    r"|Arn(Not)?(Equals|Like)|(Not)?IpAddress|Bool"
    r"|BinaryEquals|(Numeric|Date)((Not)?Equals|(Less|Greater)Than(Equals)?))(IfExists)?|Null"
)

Statement = dict[str, Any]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _either(value: Any) -> list[Any]:
    """Return both alternatives of Fn::If, or the value."""
    return list(value["Fn::If"][1:]) if isinstance(value, dict) and "Fn::If" in value else [value]


def actions(statement: Statement) -> list[str]:
    names: list[str] = []
    for names_or_name in _either(statement.get("Action", [])):
        names += as_list(names_or_name)
    return names


def _on_everything(statement: Statement) -> bool:
    """Return True if the statement allows actions on every resource, even after Fn::Sub."""
    resources = []
    for resource in as_list(statement.get("Resource", [])):
        text = resource.get("Fn::Sub") if isinstance(resource, dict) else resource
        if isinstance(text, list):  # the text and its values
            text = text[0]
        if isinstance(text, str):
            resources += [text]
    return statement["Effect"] == "Allow" and bool(all_resources(resources))


def everything_on_everything(statement: Statement) -> list[str]:
    """Return the wildcards that allow all actions, or those of a service, on every resource."""
    return all_actions(actions(statement)) if _on_everything(statement) else []


def any_role_passed(statement: Statement) -> list[str]:
    if not _on_everything(statement):
        return []
    return [action for action in actions(statement) if "iam:passrole" in actions_named(action)]


def inverted(statement: Statement) -> list[str]:
    """Return the elements that allow everything except a list.

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
        if operator == "Ref":
            continue
        for test in _either(tests):
            for key in set(test) - {"Ref"}:
                yield operator, key


def unknown_operators(statement: Statement) -> list[str]:
    unknown = []
    for condition in _either(statement.get("Condition", {})):
        for operator, _ in _comparisons(condition):
            if not _OPERATOR.fullmatch(operator):
                unknown.append(operator)
    return unknown


def _narrows(condition: dict[str, Any]) -> bool:
    for operator, key in _comparisons(condition):
        is_positive = "Not" not in operator and not operator.endswith("IfExists")
        compares = operator.startswith(("String", "Arn", "IpAddress"))
        if is_positive and compares and _NARROWING.fullmatch(key):
            return True
    return False


def public(statement: Statement) -> list[str]:
    """Return "*" if the statement allows everybody, without a condition on identity or origin.

    A condition on sts:ExternalId does not count, because the External ID is no secret.
    """
    principal = statement.get("Principal")
    if isinstance(principal, dict):
        principal = principal.get("AWS", [])
    is_narrowed = all(map(_narrows, _either(statement.get("Condition", {}))))
    if statement["Effect"] == "Allow" and "*" in as_list(principal) and not is_narrowed:
        return ["*"]
    return []


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
    children = node if isinstance(node, list) else []
    if isinstance(node, dict):
        children = list(node.values())
        for given in as_list(node.get("Statement", [])):
            for statement in _either(given):
                if "Effect" in statement:  # a rule of a web ACL has a Statement without one
                    yield statement
    for child in children:
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
    mistakes = []
    for name, check in CHECKS.items():
        if name == "public" and statement.get("Sid") in PUBLIC_ON_PURPOSE:
            continue
        if parts := check(statement):
            mistakes.append(f"{name}: {', '.join(parts)}")
    return mistakes


def main() -> int:
    status = 0
    for name, statement in shipped():
        for mistake in mistakes_in(statement):
            print(f"{name}: {mistake}", file=sys.stderr)
            status = 1
    if status == 0:
        print("The policies are sound.")
    return status


if __name__ == "__main__":
    sys.exit(main())
