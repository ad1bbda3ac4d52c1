"""Odd text in each argument and option of each command: it is refused in a line, or answered,
without a traceback.
"""

import click
import pytest

from app.cli import COMMANDS

# A byte that is not UTF-8, as Python hands it on; PostgreSQL has no NUL
NO_TEXT = ["\udcff", "a\0b"]
OUT_OF_RANGE = [
    "999999d",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31",
    "1969-12-31",
]
ODD = ["", "-1", "9" * 25, "x" * 10_000, "٣", "%", *NO_TEXT, OUT_OF_RANGE[0]]


def takes_text(command):
    return [
        one for one in command.params if not getattr(one, "is_flag", False) and one.name != "help"
    ]


def commands(group, *before):
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, *before, name)
        elif takes_text(one):
            yield (*before, name), one


ALL = dict(commands(click.Group(commands={one.name: one for one in COMMANDS if one.name})))


def words(command, odd, where, others):
    """The command's arguments: the odd one, and good ones where they are required."""
    options, arguments = [], []
    for param in takes_text(command):
        if param is where or param.required:
            value = odd if param is where else others[str(param.name)]
            if isinstance(param, click.Option):
                options += [param.opts[0], value]
            else:
                arguments.append(value)
    return [*options, "--", *arguments]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_command_refuses_odd_input_in_a_line(app, world, monkeypatch, path):
    def interrupted(_seconds):
        raise KeyboardInterrupt  # `tail` goes on until then

    monkeypatch.setattr("app.cli.audit.sleep", interrupted)
    tenant = world.tenant()
    others = dict.fromkeys(("tenant", "tenant_id", "connection", "link_id"), tenant["id"])
    others |= dict.fromkeys(("key", "session", "reason", "name"), "x") | {"scopes": "all"}
    others |= {"endpoint_id": tenant["id"], "url": "https://127.0.0.1/", "since": "1h", "file": "-"}
    for where in takes_text(ALL[path]):
        for odd in ODD:
            done = app.test_cli_runner().invoke(args=[*path, *words(ALL[path], odd, where, others)])
            assert isinstance(done.exception, SystemExit | None), (where.name, odd[:40])
            assert done.exit_code == 2 or odd not in NO_TEXT, (where.name, odd)


def test_a_time_or_a_limit_that_is_out_of_range_is_named(app, world):
    tenant = ["--tenant", world.tenant()["id"]]
    commands = {"search": tenant, "tail": tenant, "issued": tenant[1:]}
    cases = [
        ([name, *words, "--since", since], "1970 and 9998")
        for name, words in commands.items()
        for since in OUT_OF_RANGE
    ]
    for words, bounds in [*cases, (["search", "--limit", "9" * 25], "1<=x<=1000000")]:
        done = app.test_cli_runner().invoke(args=["audit", *words])
        assert done.exit_code == 2, words
        assert f"'{words[-2]}'" in done.output
        assert bounds in done.output
