"""The baseline of row 24: `requests.post` of one body in as many threads as a worker has.

`python -m bench.posts URL THREADS NUMBER`, with the body on standard input.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import requests


def main() -> None:
    url, threads, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    body = sys.stdin.buffer.read()

    def post(_: int) -> None:
        requests.post(url, data=body, timeout=15).raise_for_status()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(post, range(number)))


if __name__ == "__main__":
    main()
