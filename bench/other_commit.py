"""Another commit of this project, built to be measured in the same run (`--against`)."""

import subprocess
import sys
from pathlib import Path

from bench.client import BenchError
from bench.servers import HERE, HOME, Checkout
from dev.stack import ROOT


def build(commit: str) -> Checkout:
    """Extract the commit's files into .bench/commits/, and return the checkout.

    It has this environment's Python, or its own if it pins other libraries. Raises BenchError if
    git does not have the commit, or if it can't be installed.
    """
    name = _run(
        "git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}"
    ).strip()
    if not name:
        raise BenchError(
            f"git knows no commit {commit} here; fetch it first (git fetch --unshallow for a"
            " shallow clone)"
        )
    root = HOME / "commits" / name
    if not (root / "wsgi.py").exists():
        root.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(
            ("git", "archive", name), cwd=ROOT, capture_output=True, check=True
        ).stdout
        subprocess.run(("tar", "-x", "-C", str(root)), input=archive, check=True)
    if (root / "requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes():
        return Checkout(root, HERE.python)
    return Checkout(root, _environment(root))


def _environment(root: Path) -> str:
    """Return a Python with the libraries that the commit pins."""
    folder = root / ".venv"
    python = str(folder / "bin" / "python")
    if not (folder / "installed").exists():
        uv = (sys.executable, "-m", "uv")
        _must(*uv, "venv", "--clear", "--python", sys.executable, str(folder))
        _must(
            *uv,
            "pip",
            "install",
            "--python",
            python,
            "--require-hashes",
            "-r",
            str(root / "requirements.txt"),
        )
        (folder / "installed").touch()
    return python


def _must(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")


def _run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
