"""A victim's requests for credentials, timed one by one.

`python -m bench.victim PORT CONNECTIONS SECONDS`. wrk does not report single times, and a pause of
three seconds is lost in its median. Each line of stdin is a path and a key. The requests are sent
in turn, each connection's next one as soon as the last was answered. The output is JSON: the number
of answers in each tenth of a second, the longest wait in seconds, and the number of refusals.
"""

import asyncio
import itertools
import json
import sys
import time

from bench.hostile_load import answer_of, head_of

TENTH = 0.1  # seconds


class Victim:
    def __init__(self, port: int, requests: list[bytes], seconds: float) -> None:
        self._port = port
        self._requests = itertools.cycle(requests)
        self._seconds = seconds
        self.answered = [0] * round(seconds / TENTH)
        self.longest = 0.0
        self.refused = 0

    async def run(self, connections: int) -> None:
        self._began = time.perf_counter()
        await asyncio.gather(*(self._ask() for _ in range(connections)))

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while (sent := time.perf_counter()) < self._began + self._seconds:
            writer.write(next(self._requests))
            status, _ = await answer_of(reader)
            now = time.perf_counter()
            self.longest = max(self.longest, now - sent)
            if status != 200:
                self.refused += 1
                await asyncio.sleep(TENTH)
            elif (tenth := int((now - self._began) / TENTH)) < len(self.answered):
                self.answered[tenth] += 1
        writer.close()


def main(port: str, connections: str, seconds: str) -> None:
    lines = [line.split("\t") for line in sys.stdin.read().splitlines()]
    victim = Victim(
        int(port), [head_of(key, 0, f"POST {path}") for path, key in lines], float(seconds)
    )
    asyncio.run(victim.run(int(connections)))
    print(
        json.dumps(
            {"answered": victim.answered, "longest": victim.longest, "refused": victim.refused}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
