"""deputy-credential-process, as a process: what it prints, where, and with which status it ends."""

import datetime as dt
import json
import re
import sys
from pathlib import Path

import pytest
from deputy_client.cli import main

from tests.client.people import CLIENT, environment, run


@pytest.fixture
def key_file(place, tmp_path) -> Path:
    file = tmp_path / "key"
    file.write_text(f"{place.key}\n")
    return file


@pytest.fixture
def invocation(deputy, place, key_file, pauses) -> list[str]:
    return [*asked(place), "--url", deputy.url, "--key-file", str(key_file)]


def command(*arguments, **variables):
    return run(sys.executable, "-m", "deputy_client.cli", *arguments, env=environment(**variables))


def asked(place):
    return ("--tenant", place.ids[0], "--connection", place.ids[1])


def test_the_command_prints_the_credentials_and_nothing_else(deputy, place, key_file):
    """Its settings may come from the environment too."""
    for variables, options in (
        ({}, ("--url", deputy.url, "--key-file", key_file)),
        ({"DEPUTY_URL": deputy.url, "DEPUTY_API_KEY": place.key}, ("--reason", "nightly")),
    ):
        done = command(*asked(place), "--duration", "900", *options, **variables)
        assert done.returncode == 0
        assert done.stderr == ""
        printed = json.loads(done.stdout)
        assert list(printed) == [*KEYS, "AccountId"]
        assert printed["AccountId"] == place.customer.account
        assert printed["Version"] == 1
        assert dt.datetime.fromisoformat(printed["Expiration"]) > dt.datetime.now(dt.UTC)
    [event, *_] = place.world.audit(connection_id=place.ids[1], action="credentials.issued")
    assert event["details"]["duration_seconds"] == 900
    assert event["details"]["reason"] == "nightly"


FAILURES = [
    (["--duration", "1"], 2),
    (["--url", "http://deputy.example.com"], 2),
    (["--tenant", "x"], 2),
    (["--key-file", "/nowhere"], 2),
    (["--connection", "01890a5d-b1f2-7c41-9d6f-2a6c1d0e4f88"], 3),
    (["--url", "https://127.0.0.1:9"], 5),
]


def test_the_exit_status_tells_whose_turn_it_is_and_fail_closed_answers_a_key_that_opens_nothing(
    invocation, capsys
):
    """Wrong settings too: the first try would show nothing, as it would run in the worker's own
    account.
    """
    for extra, status in FAILURES:
        assert main([*invocation, *extra]) == status, extra
        printed = capsys.readouterr()
        assert printed.out == ""
        assert re.fullmatch("deputy-credential-process: [^\\n]+\\n", printed.err)
        assert "dpk_" not in printed.err
    for extra in (*(extra for extra, _ in FAILURES), ["--no-such-option"]):
        assert main([*invocation, *extra, "--fail-closed"]) == 0, extra
        printed = capsys.readouterr()
        made_up(printed.out)
        assert "deputy-credential-process: " in printed.err
        assert "dpk_" not in printed.err


def test_a_key_on_the_command_line_is_refused(invocation, capsys):
    assert main([*invocation, "--key", "dpk_x"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "unrecognized arguments: --key" in printed.err


KEYS = ["Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"]


def made_up(stdout):
    """The key of an answer that lets nobody in: of the form of real ones, other at each time,
    over in a minute.
    """
    printed = json.loads(stdout)
    assert list(printed) == KEYS
    assert printed["Version"] == 1
    assert re.fullmatch("ASIA[A-Z2-7]{16}", printed["AccessKeyId"])
    assert re.fullmatch("[A-Za-z0-9+/]{40}", printed["SecretAccessKey"])
    assert re.fullmatch("[A-Za-z0-9+/]{400}", printed["SessionToken"])
    left = dt.datetime.fromisoformat(printed["Expiration"]) - dt.datetime.now(dt.UTC)
    assert 0 < left.total_seconds() <= 60
    return str(printed["AccessKeyId"])


def test_fail_closed_answers_a_bug_with_a_key_that_opens_nothing(invocation, capsys, monkeypatch):
    monkeypatch.setattr("deputy_client.cli.Service", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(invocation)
    assert main([*invocation, "--fail-closed"]) == 0
    printed = capsys.readouterr()
    made_up(printed.out)
    assert "ZeroDivisionError" in printed.err


def test_fail_closed_says_why_and_makes_up_another_key_each_time(deputy, place):
    place.admin("/suspend", {"reason": "unpaid"})
    env = {"DEPUTY_URL": deputy.url, "DEPUTY_API_KEY": place.key}
    keys = set()
    for variable in ("1", "true"):
        done = command(*asked(place), **env, DEPUTY_FAIL_CLOSED=variable)
        assert done.returncode == 0
        assert "suspended" in done.stderr
        keys.add(made_up(done.stdout))
    assert len(keys) == 2
    assert len(deputy.requests) == 2, "nothing is reported to Deputy"
    done = command(*asked(place), **env, DEPUTY_FAIL_CLOSED="0")
    assert done.returncode == 4
    assert done.stdout == ""
    assert re.fullmatch(r".*suspended.*\(request \w+\).*\n", done.stderr)


def test_fail_closed_tries_again_first(deputy, invocation, pauses, capsys):
    busy = (503, {"Retry-After": "1"}, b"{}")
    deputy.answer_first(busy, busy, busy)
    assert main([*invocation, "--fail-closed"]) == 0
    printed = capsys.readouterr()
    assert "AccountId" in json.loads(printed.out), "a real one"
    assert printed.err == ""
    deputy.answer_first(*[busy] * 9)
    assert main([*invocation, "--fail-closed"]) == 0
    made_up(capsys.readouterr().out)
    assert len(deputy.requests) == 8
    assert sum(pauses) / 2 < 20, "Go waits for a minute"


def test_the_help_shows_the_profile_the_settings_and_the_exit_status(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    printed, readme = capsys.readouterr().out, (CLIENT / "README.md").read_text()
    for taught in (
        "~/.aws/config",
        "credential_process = deputy-credential-process",
        "exit status",
        "DEPUTY_URL",
        "DEPUTY_FAIL_CLOSED=1",
    ):
        assert taught in printed
    assert max(map(len, printed.splitlines())) <= 100
    for option in ("--url", "--key-file", "--tenant", "--connection", "--fail-closed"):
        assert option in printed
        assert option in readme


def test_fail_closed_spoils_no_key_in_mixed_streams_or_without_standard_error(deputy, place):
    """DuckDB's SDK mixes them; it would then go on as the worker's own role."""
    place.admin("/suspend", {"reason": "unpaid"})
    env = environment(DEPUTY_URL=deputy.url, DEPUTY_API_KEY=place.key)
    words = [sys.executable, "-m", "deputy_client.cli", *asked(place), "--fail-closed"]
    for streams in ("2>&1", "2>&-"):
        made_up(run("sh", "-c", f'"$@" {streams}', "sh", *words, env=env).stdout)


def test_the_command_starts_without_boto3_which_only_sessions_need():
    """An SDK starts it at each refresh, and waits for it."""
    program = "import sys, deputy_client.cli; sys.exit('boto3' in sys.modules)"
    assert run(sys.executable, "-c", program, env=environment()).returncode == 0
