"""The README's tour, pasted as it is written: with a stack of its own and with the console's, and
where nothing runs.
"""

import json
import os
import re
import secrets
import shutil
import subprocess

import pytest

from tests.client.people import block
from tests.dev.make_run import ACME, ROOT, create_the_stack

LAST_WORDS = "PASTED-AND-DONE"
PATIENCE = 120  # seconds in which a few lines of shell are done, also on a busy machine
README = (ROOT / "README.md").read_text()
# Bash has every block further down
SHELLS = [shell for shell in ("dash", "zsh") if shutil.which(shell)] or ["bash"]


def blocks():
    tour = README.partition("## A tour in 60 seconds\n")[2].partition("\n`make run` starts")[0]
    return re.findall(r"^```sh\n(.*?)^```$", tour, re.MULTILINE | re.DOTALL)


class Shell:
    """A person's shell in the checkout, into which text is pasted."""

    def __init__(self, shell, data):
        self._shell = shell
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(data.parent),
            "DEPUTY_DATA_DIR": str(data),
        }
        self._errors = data.parent / f"errors-{secrets.token_hex(4)}"

    def __enter__(self):
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [self._shell, "-s"],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return self

    def __exit__(self, *_):
        self._process.communicate(timeout=PATIENCE)

    def paste(self, text):
        """What it prints."""
        self._process.stdin.write(f"{text}\necho {LAST_WORDS}\n")
        self._process.stdin.flush()
        return "".join(iter(self._process.stdout.readline, f"{LAST_WORDS}\n"))

    @property
    def errors(self):
        return self._errors.read_text()


def assert_it_was_told(printed, errors):
    connection, webhooks, issued, buckets, audited = printed
    assert " connection.verified " in webhooks
    assert '"status": "verified"' in connection
    assert connection.count('"outcome": "passed"') == connection.count('"outcome"') >= 6
    assert '"SecretAccessKey"' in issued
    assert re.fullmatch(r"\['deputy-shared-(acme|globex)'\]\n", buckets)
    assert audited.count('"action": "credentials.issued"') == 2
    assert errors == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_tour_makes_the_stack_itself(run, shell):
    with Shell(shell, run.data) as person:
        nothing, link, launched, *printed = [person.paste(block) for block in blocks()]
    assert nothing == ""
    assert link.startswith(f"{run.sandbox_url}/console/cloudformation/home?")
    assert "CREATE_COMPLETE" in launched
    assert_it_was_told(printed, person.errors)


def test_a_stack_of_the_console_will_do_and_the_workers_script_of_the_document_too(run, tmp_path):
    script, key = tmp_path / "deputy-credentials", tmp_path / "deputy-key"
    script.write_text(block("sh", "#!/bin/sh"))
    script.chmod(0o700)
    ask = f'DEPUTY_URL=$DEPUTY_URL DEPUTY_API_KEY_FILE={key} {script} "$TENANT" "$CONNECTION"; echo'
    first, second, *rest = blocks()
    with Shell("bash", run.data) as person:
        person.paste(first)
        create_the_stack(run, person.paste(second).strip())
        launched, *printed = [person.paste(part) for part in rest]
        assert "it is there already" in launched
        assert_it_was_told(printed, person.errors)
        person.paste(f'printf %s "$WORKER" > {key}')
        issued = json.loads(person.paste(ask))
        person.paste("""api "$ONE/suspend" -d '{"reason": "unpaid"}'""")
        refused = person.paste(ask)
    assert issued["AccountId"] == ACME
    assert refused == "\n"
    assert "Deputy answered 409 suspended, request " in person.errors


def test_without_make_run_the_document_fails_with_one_sentence(tmp_path):
    data = tmp_path / "data"
    for note in (None, '{"url": "http://localhost:1"}'):
        if note:
            data.mkdir()
            (data / "run.json").write_text(note)
        with Shell("sh", data) as person:
            assert person.paste("DEPUTY_URL=http://left.over\n" + "".join(blocks())).strip() == ""
        assert person.errors == (
            "make run is not running here. Start it in another terminal, in this folder; if it has"
            " a DEPUTY_DATA_DIR of its own, export that variable here. Then paste the tour again.\n"
        )
