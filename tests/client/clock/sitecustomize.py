"""Python loads this when it starts in a worker of ours: the worker's clock follows the test's,
through two files.

It starts before anything of the worker's is imported, so that the program itself runs as it is.
"""

import datetime as dt
import os
import threading
import time
from pathlib import Path

import time_machine

_folder = Path(os.environ["TEST_CLOCK"])


def _wanted():
    return float((_folder / "offset").read_text())


def _follow(clock, seen):
    while True:
        wanted = _wanted()
        if wanted != seen:
            clock.shift(wanted - seen)
            seen = wanted
            (_folder / f"{os.getpid()}.new").write_text(str(seen))
            (_folder / f"{os.getpid()}.new").replace(_folder / "seen")
        time.sleep(0.01)


_offset = _wanted()
_clock = time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=_offset)).start()
threading.Thread(target=_follow, args=(_clock, _offset), daemon=True).start()
