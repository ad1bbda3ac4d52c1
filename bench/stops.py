"""Row 23: the duration of a stop while 60 connections write continuously.

They write as the stopped principal, or about the stopped resource. A stop is a revocation of a key
or a link, or the suspension or deletion of a tenant or a connection. After each stop one more
request is sent, which must be refused.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Callable
from typing import NamedTuple

from bench.client import BenchError, Client
from bench.goals import STOPS
from bench.neighbour import Attack, attacked
from bench.population import role_arn
from bench.stage import Populated, Stage

_WRITERS = 60
_WARM_SECONDS = 1.5
_WHY = {"reason": "an incident"}
_SCOPES = ["tenants:write", "connections:write", "keys:write", "credentials:issue"]
_SETS = ("inventory", "bucket-sync")  # two of the example permission sets


class _Place(NamedTuple):
    """The paths of a tenant and its connection, and an admin's client."""

    admin: Client
    tenant: str
    connection: str

    def key(self, *, bound: bool, **more: object) -> tuple[str, str]:
        """Create a key, and return its path and its text."""
        body = {
            "name": "writer",
            "scopes": _SCOPES,
            "tenant_id": self.tenant.split("/")[3] if bound else None,
            **more,
        }
        key = self.admin.must("POST", "/v1/api-keys", body, expect=201)
        return f"/v1/api-keys/{key['id']}", key["key"]

    def moves(self) -> list[str]:
        """Return requests that alternate the permission set.

        Each writes to the tenant and the connection.
        """
        return [
            f"PATCH {self.connection}\t{json.dumps({'permission_set': name})}" for name in _SETS
        ]


class _Stop(NamedTuple):
    """A key and its writes, the request that stops them, and a request to be refused afterwards."""

    key: str
    writes: list[str]
    stop: tuple[str, str]
    refused: tuple[str, str]


def _bound_key(place: _Place) -> _Stop:
    path, text = place.key(bound=True)
    return _Stop(text, place.moves(), ("DELETE", path), ("GET", "/v1/api-keys"))


def _family(place: _Place) -> _Stop:
    path, text = place.key(bound=False)
    makes = [f"POST /v1/api-keys\t{json.dumps({'name': 'child', 'scopes': ['keys:write']})}"]
    return _Stop(text, makes, ("DELETE", path), ("GET", "/v1/api-keys"))


def _link(place: _Place) -> _Stop:
    link = place.admin.must("POST", f"{place.tenant}/onboarding-links", {}, expect=201)
    page = f"/{link['url'].split('/', 3)[3]}"
    return _Stop(
        "none",
        [f"POST {page}/connections"],
        ("DELETE", f"{place.tenant}/onboarding-links/{link['id']}"),
        ("GET", page),
    )


def _tenant(how: str) -> Callable[[_Place], _Stop]:
    def stop(place: _Place) -> _Stop:
        _, text = place.key(bound=False)
        renames = [
            f"PATCH {place.tenant}\t{json.dumps({'name': name})}" for name in ("One", "Other")
        ]
        issue = "POST", f"{place.connection}/credentials"
        return _Stop(text, renames + place.moves(), _request(how, place.tenant), issue)

    return stop


def _connection(how: str) -> Callable[[_Place], _Stop]:
    def stop(place: _Place) -> _Stop:
        _, text = place.key(bound=False)
        return _Stop(
            text,
            place.moves(),
            _request(how, place.connection),
            ("POST", f"{place.connection}/credentials"),
        )

    return stop


def _request(how: str, path: str) -> tuple[str, str]:
    return ("POST", f"{path}/suspend") if how == "suspend" else ("DELETE", path)


_CASES: dict[str, Callable[[_Place], _Stop]] = {
    "a bound key": _bound_key,
    "an unbound key that makes keys": _family,
    "a link": _link,
    "a tenant, suspended": _tenant("suspend"),
    "a tenant, deleted": _tenant("delete"),
    "a connection, suspended": _connection("suspend"),
    "a connection, deleted": _connection("delete"),
}


def measure(stage: Stage) -> None:
    """Measure row 23."""
    stage.say(f"stops: {len(_CASES)} kinds beside {_WRITERS} writers")
    seconds = {kind: _seconds(stage, stage.on_postgres, case) for kind, case in _CASES.items()}
    stage.findings.facts["a stop beside writers, seconds"] = seconds
    longest = max(seconds.values())
    stage.findings.results.append(STOPS.judge(f"{longest:.2f} s", longest, values=seconds))


def _seconds(stage: Stage, populated: Populated, case: Callable[[_Place], _Stop]) -> float:
    deputy = populated.server
    with contextlib.closing(deputy.admin()) as admin:
        tenant = admin.must("POST", "/v1/tenants", {"name": "Stopped"}, expect=201)
        path, arn = f"/v1/tenants/{tenant['id']}", role_arn(tenant["id"], 0)
        stage.sts.register({arn: tenant["external_id"]})
        connection = admin.must("POST", f"{path}/connections", {"role_arn": arn}, expect=201)
        stop = case(_Place(admin, path, f"{path}/connections/{connection['id']}"))
        writes = tuple(itertools.islice(itertools.cycle(stop.writes), _WRITERS))
        with attacked(deputy, Attack("repeat", stop.key, writes)):
            time.sleep(_WARM_SECONDS)
            began = time.perf_counter()
            method, where = stop.stop
            answer = admin.ask(method, where, _WHY if method == "POST" else None)
            took = time.perf_counter() - began
            if answer.status not in {200, 204}:
                raise BenchError(
                    f"{method} {where} answered {answer.status} after {took:.1f} s:"
                    f" {answer.body.decode()}"
                )
            with contextlib.closing(deputy.client(stop.key)) as writer:
                if (late := writer.ask(*stop.refused)).status < 400:
                    raise BenchError(
                        f"{' '.join(stop.refused)} answered {late.status} after the stop"
                    )
        return took
