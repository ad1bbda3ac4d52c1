"""The registry of audit actions: each has a sentence on when it is written, and a type of its
details.
"""

import ast
import re
from dataclasses import replace
from pathlib import Path

from app.audit import actions
from app.audit.actions import REFUSALS
from app.audit.events import ACTIONS, DETAILS, Action
from app.factory import _RESOURCES
from app.identity import WORKER
from tests.support.event_details import mistakes_in

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "app").rglob("*.py")
}


def test_each_action_is_a_noun_and_a_verb_with_a_sentence():
    for name, action in ACTIONS.items():
        assert name == action
        assert re.fullmatch(r"[a-z_]{1,31}\.[a-z_]{1,31}", name)
        assert re.fullmatch(r"[A-Z].+\.", action.when), name


def test_each_detail_means_the_same_in_every_event_and_has_a_sentence():
    for name, action in ACTIONS.items():
        assert action.schema["properties"].items() <= DETAILS.items(), name
    for name, schema in DETAILS.items():
        assert re.fullmatch(r"[A-Z`].+\.", schema["description"]), name


def test_a_change_of_a_connections_status_has_the_old_one_and_the_version():
    changes = (
        "suspended resumed deleted approved role_recreated verified awaits_approval proof_failed"
        " proof_inconclusive"
    )
    with_both = {
        name
        for name, action in ACTIONS.items()
        if {"was", "version"} <= {*action.schema["required"]}
    }
    assert with_both == {f"connection.{change}" for change in changes.split()}
    with_the_old_one = {
        name for name, action in ACTIONS.items() if "was" in action.schema["required"]
    }
    others = {"tenant.suspended", "tenant.resumed", "tenant.deleted"}
    others |= {"webhook_endpoint.changed", "webhook_endpoint.disabled"}
    assert with_the_old_one == with_both | others


def test_each_action_has_a_name_of_its_own_and_is_written_somewhere():
    """The API's blueprints name the refusals."""
    assert {resource.noun for resource in _RESOURCES if resource.noun} == set(REFUSALS)
    declared = {name for name, value in vars(actions).items() if isinstance(value, Action)}
    assert len(ACTIONS) == len(declared) + len(REFUSALS)
    used = {name for text in SOURCES.values() for name in re.findall(r"\bactions\.([A-Z_]+)", text)}
    assert declared - used == set()


def test_events_are_made_by_their_actions_which_are_declared_in_one_place():
    """mypy checks their details there."""
    calls = [
        (getattr(call.func, "id", ""), path)
        for path, text in SOURCES.items()
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and (call.args or call.keywords)
    ]
    assert {path for name, path in calls if name == "Event"} == {"app/audit/events.py"}
    assert {path for name, path in calls if name == "Action"} == {"app/audit/actions.py"}


def test_the_tests_find_an_event_with_other_details_or_another_outcome_than_its_actions():
    event = actions.DATABASE_RESTORED.event(WORKER, {"reaches": None})
    assert mistakes_in(event) == []
    for change in (
        {"outcome": "failed"},
        {"details": {}},
        {"details": {"reaches": 7}},
        {"details": {"reaches": None, "more": 1}},
    ):
        assert mistakes_in(replace(event, **change)) != [], change
