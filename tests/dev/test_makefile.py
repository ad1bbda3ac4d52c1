"""make refuses what nothing would read. It is only asked what it would run (`make -n`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def would_run(*words):
    # `make test ARGS=…` hands its own ARGS to every make below it.
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "ARGS"}}
    done = subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mutants", "seed=2"], "make does not know seed=…"),
        (["test", "args=-k pages"], "make does not know args=…"),
        (["run", "PROT=8001"], "make does not know PROT=…"),
        (["test", "tests/cli"], "make does not know `tests/cli`"),
        (["run", "ARGS=--port 8001"], "make run takes no ARGS"),
        (["check", "ARGS=app"], "make check takes no ARGS"),
        (["ARGS=x"], "make help takes no ARGS"),
    ],
)
def test_make_refuses_arguments_that_nothing_reads(words, said):
    code, output = would_run(*words)
    assert code == 2
    assert said in output


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["mutants", "ARGS=seed=2"], "-m dev.mutants seed=2"),
        (["test", "ARGS=tests/api -k pages"], "-m pytest -n 4 --dist worksteal tests/api -k pages"),
        (["run", "PORT=8001", "DEPUTY_DATA_DIR=x", "PYTHON=python3.12"], "-m dev.run"),
        ([], "make publish"),
        (
            ["aws-check", "VENDOR=one", "CUSTOMER=two", "CANARY=three", "ARGS=--yes --region x"],
            '-m dev.aws_check --vendor "one" --customer "two" --canary "three" --yes --region x',
        ),
        (["aws-check", "VENDOR=one", "CUSTOMER=two"], '--customer "two"  \n'),
    ],
)
def test_make_takes_what_its_help_names(words, runs):
    code, output = would_run(*words)
    assert code == 0, output
    assert runs in output


def test_mutants_refuses_arguments_that_it_does_not_know():
    done = subprocess.run(
        [sys.executable, "-m", "dev.mutants", "go-on", "seed=two"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "make mutants does not know seed=two. ARGS may have: go-on, seed=<number>.\n"
    )
