"""Several of the operator's commands in one process, which loads the service once.

Usage: python -m dev.commands "templates check" migrate "keys bootstrap"
"""

import gc
import os
import sys

gc.disable()  # wsgi.py does too, and enables it again

from flask.cli import cli


def main(commands: list[str]) -> None:
    """Run the commands like the shell's `flask --app wsgi A && flask --app wsgi B`."""
    os.environ.setdefault("DEPUTY_OPERATOR", "make")  # nobody may be at a terminal
    for words in commands:
        try:
            cli.main(["--app", "wsgi", *words.split()], prog_name="flask")
        except SystemExit as ended:
            if ended.code:
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
