"""metadataproxy 2.2.0, a similar program that installs with pip: IAM credentials over HTTP, cached.

It requires no key and keeps no audit log. It runs unchanged, as its README says (`gunicorn
metadataproxy:app --workers=2 -k gevent`), and in its best configuration:

- ROLE_MAPPING_FILE maps addresses to roles, so it makes no call to a docker daemon. The file
  contains role, account and External ID, so it makes no call to IAM either. A cached answer
  costs it two lookups in dicts.
- Its own pins are from 2018 and don't build on a current Python, so it gets Deputy's versions of
  Flask, gunicorn, gevent and boto3. So the comparison is between the two programs, not between
  library versions.
- For the cold rounds ROLE_EXPIRATION_THRESHOLD is longer than a session lives, so each answer is
  one STS call.
"""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.client import BenchError
from bench.load import Question
from bench.servers import HOME, InstantSts, Process, Workers, peer

_NAME = "metadataproxy==2.2.0"
_AS_DEPUTY = (
    "flask",
    "werkzeug",
    "gunicorn",
    "boto3",
    "botocore",
    "requests",
    "cachetools",
    "urllib3",
)
_ITS_OWN = (
    "packaging",  # for gunicorn
    "docker-py==1.10.6",  # only imported: with a mapping file it is never called
)
_ACCOUNT, _ROLE, _EXTERNAL_ID = "444455556666", "deputy-bench-peer", "dpy-bench-peer"
_SESSION_MINUTES = 60


def python() -> Path:
    """Return the Python of the peer's own environment in .bench/, and create it if it is absent."""
    requirements = [
        *(f"{name}=={importlib.metadata.version(name)}" for name in _AS_DEPUTY),
        *_ITS_OWN,
        *_gevent(),
    ]
    folder = HOME / "metadataproxy"
    installed = folder / "installed"
    if not installed.exists() or installed.read_text() != _marker(requirements):
        _run("venv", "--clear", "--python", sys.executable, str(folder))
        pip = ("pip", "install", "--python", str(folder / "bin/python"))
        _run(*pip, *requirements)
        _run(*pip, "--no-deps", _NAME)
        installed.write_text(_marker(requirements))
    return folder / "bin/python"


def _gevent() -> list[str]:
    """Return gevent's pin, or nothing if Deputy itself runs without it."""
    try:
        return [f"gevent=={importlib.metadata.version('gevent')}"]
    except importlib.metadata.PackageNotFoundError:
        return []


def _marker(requirements: Sequence[str]) -> str:
    return "\n".join((sys.version, _NAME, *requirements))


def _run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "uv", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(
            f"metadataproxy can't be installed (uv {arguments[0]}):\n{done.stderr.strip()[-2000:]}"
        )


def start(sts: InstantSts, workers: Workers, *, cold: bool) -> Process:
    sts.register({f"arn:aws:iam::{_ACCOUNT}:role/{_ROLE}": _EXTERNAL_ID})
    interpreter = python()
    mapping = HOME / "metadataproxy" / "roles.json"
    role = {"name": _ROLE, "account_id": _ACCOUNT, "external_id": _EXTERNAL_ID}
    mapping.write_text(json.dumps({"127.0.0.1": role}))
    env = {name: value for name, value in sts.environment.items() if name != "AWS_REGION"}
    # AWS_REGION would make it call AWS's own endpoint. boto3 takes the region from
    # AWS_DEFAULT_REGION.
    env |= {"ROLE_MAPPING_FILE": str(mapping)}
    if cold:
        env |= {"ROLE_EXPIRATION_THRESHOLD": str(_SESSION_MINUTES + 1)}
    return peer(interpreter, "metadataproxy-cold" if cold else "metadataproxy", env, workers)


QUESTION = Question("GET", f"/latest/meta-data/iam/security-credentials/{_ROLE}")
