"""The registry of audit actions, with a sentence on when each is written, and docs/api.md, which
has the same.
"""

import ast
import re
from pathlib import Path

from app.audit.events import Action
from app.factory import _RESOURCES

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` +\| (.+?) +\|", re.MULTILINE)
SOURCES = {path: path.read_text() for path in (ROOT / "app").rglob("*.py")}


def test_each_action_is_a_noun_and_a_verb_with_a_sentence():
    for action in Action:
        assert re.fullmatch(r"[a-z_]{1,31}\.[a-z_]{1,31}", action)
        assert re.fullmatch(r"[A-Z].+\.", action.when), action


def test_the_docs_list_the_actions_and_say_when_each_is_written():
    documented = ROW.findall((ROOT / "docs" / "api.md").read_text())
    assert documented == [(action.value, action.when) for action in Action]


def test_each_action_is_written_somewhere():
    nouns = {resource.bp.noun for resource in _RESOURCES if resource.bp.noun}
    of_requests = {Action(f"{noun}.refused") for noun in nouns}
    used = {name for text in SOURCES.values() for name in re.findall(r"\bAction\.([A-Z_]+)", text)}
    assert {action for action in Action if action.name not in used} - of_requests == set()


def test_no_event_has_an_action_that_is_not_registered():
    """`make check` refuses a text as an action by its type; this finds one behind an ignored
    type.
    """
    known = {action.value for action in Action}
    found = [
        (path.name, node.value)
        for path, text in SOURCES.items()
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call)
        and getattr(call.func, "attr", getattr(call.func, "id", ""))
        in {"record", "record_about", "Event"}
        for node in ast.walk(call)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[a-z_]+\.[a-z_]+", node.value)
    ]
    assert [one for one in found if one[1] not in known] == []
