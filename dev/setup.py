"""Creates .venv and installs the pins of requirements-dev.txt.

It uses only the standard library, because nothing is installed yet. make runs it when
requirements-dev.txt has changed. It prints its progress, and advice after a failure.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed"


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit(
            f"Deputy needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try:"
            " make PYTHON=python3.12 …"
        )
    if not (VENV / "bin/pip").exists():
        say(f"Making the virtual environment .venv with Python {sys.version.split()[0]} …")
        shutil.rmtree(VENV, ignore_errors=True)
        venv = subprocess.run(
            [sys.executable, "-m", "venv", VENV], capture_output=True, text=True, check=False
        )
        if venv.returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit(
                "Python can't make virtual environments here. On Debian: apt-get install"
                f" python3-venv\n{venv.stdout}{venv.stderr}"
            )
    say("Installing what requirements-dev.txt pins (the first time takes a minute or two) …")
    began = time.monotonic()
    options = ["--require-hashes", "--disable-pip-version-check", "-r"]
    running = subprocess.Popen(
        [VENV / "bin/pip", "install", *options, ROOT / "requirements-dev.txt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = progress(running)
    if running.wait():
        sys.exit("pip could not install the requirements:\n" + "".join(lines[-15:]))
    STAMP.touch()
    say(f"Installed in {time.monotonic() - began:.0f} s.")


def progress(running: "subprocess.Popen[str]") -> list[str]:
    """Show pip's progress, on one line in a terminal, and every twenty packages elsewhere.

    Return all lines that pip printed.
    """
    lines = []
    packages = 0
    for line in running.stdout or ():
        lines.append(line)
        if line.startswith("Collecting "):
            packages += 1
            name = line.split()[1].partition("==")[0]
            if sys.stdout.isatty():
                print(f"\r\033[K  {packages:3} packages, now {name}", end="", flush=True)
            elif packages % 20 == 0:
                say(f"  {packages} packages …")
        elif line.startswith("Installing collected packages"):
            if sys.stdout.isatty():
                print("\r\033[K", end="")
            say(f"  {packages} packages downloaded, installing them (up to a minute) …")
    return lines


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; run make again to go on from here.")
