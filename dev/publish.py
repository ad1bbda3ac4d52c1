"""`make publish`: publish changed permission sets, and restart the Deputy of `make run` with them.

The local AWS and the database continue, so roles of an earlier version can be updated.
"""

import os
import sys
import time

from dev.run_settings import Settings, StackError
from dev.stack import NOT_RUNNING, running

_READY_SECONDS = 180  # for a restart on a busy machine


def main() -> None:
    try:
        print(ask(Settings.of_running(os.environ)))
    except StackError as error:
        sys.exit(str(error))


def ask(settings: Settings) -> str:
    """Ask `make run` to publish, and return its answer.

    Raises StackError if nothing was published.
    """
    if running(settings) is None:
        raise StackError(NOT_RUNNING)
    settings.publish_request.touch()
    deadline = time.monotonic() + _READY_SECONDS
    while settings.publish_request.exists():
        if time.monotonic() > deadline:
            settings.publish_request.unlink(missing_ok=True)
            raise StackError(
                f"make run did not answer within {_READY_SECONDS} seconds. Look at its terminal."
            )
        time.sleep(0.1)
    outcome, _, text = settings.publish_answer.read_text().partition("\n")
    if outcome != "published":
        raise StackError(text)
    return text


if __name__ == "__main__":
    main()
