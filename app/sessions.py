"""Sessions of customers' roles, kept while they are good: one call to AWS for everybody who asks the same.

In the process, and beyond it in the shared cache if there is one; sealed in both, under everything that the
question names, so that no session can answer another question. Three rules keep AWS and the callers apart:

- one flight per question: whoever asks while AWS is being asked waits for that answer, and for no other;
- nobody waits for long: SDKs give up on a credentials endpoint after 2 s, so a caller is told to come back, while
  the flight goes on and its answer is there when they do;
- a session is renewed before it has to be, at a random moment, and served on while AWS doesn't answer.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson
from cachetools import LRUCache

from app.aws.sts import Session
from app.db import now
from app.errors import AppError, AwsUnavailableError, TryLaterError
from app.hub import beside
from app.ids import AccountId
from app.sealing import Sealer
from app.shared_cache import SharedCache

Source = Literal["sts", "cache"]
Fetch = Callable[[], Session]

_KEPT = 50_000  # sessions, at about 1.5 kB each

# How much life a session must have left to be handed out. SDKs renew 10 to 15 minutes before the end, and would come
# back at every call for one that has less; half the life, where the whole is short.
_GOOD_SECONDS = 20 * 60
_LAST_RESORT_SECONDS = 60  # and while AWS doesn't answer
_RENEW_EARLY = 0.2  # of the time that it is good: where the random moment of its renewal lies
_RETRY_SECONDS = (5.0, 10.0)  # after a renewal that failed

_LOCK_SECONDS = 8.0  # longer than a call to AWS with its retry takes
_LOOK_SECONDS = 0.02  # how often those who wait for another process look
_OTHERS_SECONDS = 1.2  # how long they wait before they ask AWS themselves

_SLOW = "AWS did not answer in time; ask again in a moment, its answer will be here."


@dataclass(slots=True)
class _Kept:
    """A sealed session. Times are seconds since 1970."""

    sealed: bytes
    expires_at: float
    good_until: float
    renew_at: float


class Sessions:
    """`obtain` is the way in."""

    def __init__(self, secret_keys: tuple[str, ...], shared: SharedCache | None) -> None:
        self._sealer = Sealer(secret_keys, "sessions")
        self._shared = shared
        self._kept: LRUCache[bytes, _Kept] = LRUCache(_KEPT)
        self._flights: dict[bytes, Future[tuple[Session, Source]]] = {}
        self._lock = threading.Lock()  # around the two above

    def obtain(self, question: bytes, fetch: Fetch, patience: float) -> tuple[Session, Source]:
        """A session that answers this question, and whether AWS was asked for it on this caller's behalf.

        `question` names everything that the session depends on and whom it is for; `patience` is how many seconds
        the caller can wait for AWS. Raises AwsUnavailableError, also
        when the answer takes too long, and whatever `fetch` raises.
        """
        name = hashlib.sha256(question).digest()
        held = self._held(name, question)
        at = now().timestamp()
        if held is not None and at < held[0].good_until:
            if at >= held[0].renew_at:
                self._flight(name, question, fetch, held[0])
            return held[1], "cache"
        flight, mine = self._flight(name, question, fetch, held[0] if held else None)
        if flight is None:  # one has landed since
            return self.obtain(question, fetch, patience)
        try:
            session, source = flight.result(timeout=max(0.0, patience))
        except FutureTimeoutError:
            failure: AppError = AwsUnavailableError(_SLOW)
        except AwsUnavailableError as error:
            failure = error
        else:
            return session, source if mine else "cache"
        if held is not None and at < held[0].expires_at - _LAST_RESORT_SECONDS:
            return held[1], "cache"
        raise failure

    def _held(self, name: bytes, question: bytes) -> tuple[_Kept, Session] | None:
        with self._lock:
            kept = self._kept.get(name)
        if kept is None:
            return None
        opened = self._opened(kept.sealed, question)
        if opened is None:  # no use to anybody
            with self._lock:
                self._kept.pop(name, None)
            return None
        return kept, opened[0]

    def _opened(self, sealed: bytes, question: bytes) -> tuple[Session, float] | None:
        secret = self._sealer.open(sealed, question)
        return None if secret is None else _unpacked(secret)

    def _flight(
        self, name: bytes, question: bytes, fetch: Fetch, seen: _Kept | None
    ) -> "tuple[Future[tuple[Session, Source]] | None, bool]":
        """The flight for this question, and whether it was begun here; None if one has landed since `seen` was kept."""
        with self._lock:
            flight = self._flights.get(name)
            if flight is not None:
                return flight, False
            kept = self._kept.get(name)
            if kept is not None and kept is not seen:
                return None, False
            in_context = copy_context().run  # so that its log lines name the request
            flight = self._flights[name] = beside(in_context, self._fly, name, question, fetch)
            return flight, True

    def _fly(self, name: bytes, question: bytes, fetch: Fetch) -> tuple[Session, Source]:
        try:
            return self._asked(name, question, fetch)
        except TryLaterError:
            self._put_off(name)
            raise
        except AppError:  # the role refuses us, or is another: what is kept of it is over
            with self._lock:
                self._kept.pop(name, None)
            if self._shared is not None:
                self._shared.forget(_shared_name(name))
            raise
        finally:
            with self._lock:
                del self._flights[name]

    def _asked(self, name: bytes, question: bytes, fetch: Fetch) -> tuple[Session, Source]:
        if self._shared is None:
            return self._keep(name, question, fetch()), "sts"
        lock = f"{_shared_name(name)}:lock"
        deadline = time.monotonic() + _OTHERS_SECONDS
        while True:
            if (session := self._adopted(self._shared, name, question)) is not None:
                return session, "cache"
            token = self._shared.lock(lock, _LOCK_SECONDS)
            if token is not None or self._shared.away or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        try:
            # Whoever held the lock before us may have put the answer there in between.
            if token is not None and (session := self._adopted(self._shared, name, question)) is not None:
                return session, "cache"
            return self._keep(name, question, fetch(), self._shared), "sts"
        finally:
            if token is not None:
                self._shared.unlock(lock, token)

    def _adopted(self, shared: SharedCache, name: bytes, question: bytes) -> Session | None:
        """The shared cache's session, if it is good and lives longer than our own."""
        sealed = shared.get(_shared_name(name))
        opened = None if sealed is None else self._opened(sealed, question)
        if sealed is None or opened is None:
            return None
        session, good_until = opened
        kept = _kept(sealed, session, good_until)
        with self._lock:
            own = self._kept.get(name)
            if now().timestamp() >= good_until or (own is not None and kept.expires_at <= own.expires_at):
                return None
            self._kept[name] = kept
        return session

    def _keep(
        self, name: bytes, question: bytes, session: Session, shared: SharedCache | None = None
    ) -> Session:
        at, expires_at = now().timestamp(), session.expires_at.timestamp()
        good_until = expires_at - min(_GOOD_SECONDS, (expires_at - at) / 2)
        sealed = self._sealer.seal(_packed(session, good_until), question)
        with self._lock:
            self._kept[name] = _kept(sealed, session, good_until)
        if shared is not None:
            shared.put(_shared_name(name), sealed, good_until - at)
        return session

    def _put_off(self, name: bytes) -> None:
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None:
                kept.renew_at = now().timestamp() + random.uniform(*_RETRY_SECONDS)  # noqa: S311  no secret


def _kept(sealed: bytes, session: Session, good_until: float) -> _Kept:
    early = random.uniform(0, _RENEW_EARLY) * (good_until - now().timestamp())  # noqa: S311  no secret
    return _Kept(sealed, session.expires_at.timestamp(), good_until, good_until - early)


def _shared_name(name: bytes) -> str:
    return f"deputy:session:{name.hex()}"


def _packed(session: Session, good_until: float) -> bytes:
    return orjson.dumps(
        [
            good_until,
            session.expires_at.isoformat(),
            session.access_key_id,
            session.secret_access_key,
            session.session_token,
            session.account_id,
            session.role_unique_id,
            session.name,
        ]
    )


def _unpacked(secret: bytes) -> tuple[Session, float]:
    good_until, expires_at, *rest = orjson.loads(secret)
    access_key_id, secret_access_key, session_token, account_id, role_unique_id, name = rest
    session = Session(
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=session_token,
        expires_at=datetime.fromisoformat(expires_at),
        account_id=AccountId(account_id),
        role_unique_id=role_unique_id,
        name=name,
    )
    return session, float(good_until)
