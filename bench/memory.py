"""Row 9: the memory of a cached credential.

`python -m bench.memory COUNT` runs in a process of its own. It fills the service's own cache with
sessions as STS returns them. The measure is the growth of the process according to the operating
system, so Python's own overhead counts too.
"""

import gc
import hashlib
import json
import os
import secrets
import sys
from datetime import timedelta
from pathlib import Path

from app.aws.session_names import session_name
from app.aws.sts import Session
from app.clock import now, timestamp
from app.ids import AccountId, new_id
from app.issuing.session_cache import CacheKey, SessionCache
from bench.goals import MEMORY
from bench.servers import PLAIN, run_python
from bench.stage import Stage

_FIRST = 1_000  # after these, threads and pools are allocated


def measure(stage: Stage) -> None:
    count = stage.scale.credentials
    stage.say(f"memory: {count:,} cached credentials")
    figures = json.loads(run_python(("-m", "bench.memory", str(count)), PLAIN).splitlines()[-1])
    each = figures["bytes"] / count
    stage.findings.facts["memory"] = {
        "bytes of a cached credential": each,
        "characters of its token": figures["token"],
    }
    stage.findings.results.append(
        MEMORY.judge(f"{each / 1000:.2f} kB", each / 1000, values={"bytes": each})
    )


def main(count: int) -> None:
    cache = SessionCache((secrets.token_urlsafe(48),), None)
    tokens = [_obtain(cache) for _ in range(_FIRST)]
    gc.collect()
    before = _resident()
    for _ in range(count):
        _obtain(cache)
    gc.collect()
    print(json.dumps({"bytes": _resident() - before, "token": sum(tokens) / len(tokens)}))


def _obtain(cache: SessionCache) -> int:
    session = _session()
    tenant_id = new_id()
    text = json.dumps([tenant_id.hex, new_id().hex, 2, session.role_unique_id]).encode()
    key = CacheKey(tenant_id, text, hashlib.sha256(text).digest())
    cache.obtain(key, lambda: session, 10, timestamp())
    return len(session.session_token)


def _session() -> Session:
    """Return a session as STS does, whose token has 700 to 900 characters."""
    return Session(
        access_key_id=f"ASIA{secrets.token_hex(8).upper()}",
        secret_access_key=secrets.token_urlsafe(30),
        session_token=secrets.token_urlsafe(525 + secrets.randbelow(151)),
        expires_at=now() + timedelta(hours=1),
        account_id=AccountId("444455556666"),
        role_unique_id=f"AROA{secrets.token_hex(8).upper()}",
        name=session_name(new_id()),
    )


def _resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(int(sys.argv[1]))
