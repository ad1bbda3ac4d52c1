"""Row 22: the CPU time of requests, of proving a due connection, and of reading a trust policy.

Each route is measured with its costliest request. The weights of requests in rate limits come from
these figures (app/limits/request_costs.py, app/limits/tenant_share.py). One client calls one web
process, so no other request adds to the CPU time.
"""

import contextlib
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bench import cpu
from bench.client import BenchError, Client
from bench.goals import CPU
from bench.population import role_arn, spread
from bench.servers import Deputy, run_python
from bench.slow_policies import SLOW_STATEMENTS, slow_policies
from bench.stage import Populated, Stage

_TIMES, _ROWS = 8, 200
_ONE_PROCESS = {"GUNICORN_CMD_ARGS": "--workers 1"}
_TENANT, _CONNECTION = "/v1/tenants/{tenant}", "/v1/tenants/{tenant}/connections/{connection}"
_ROTATION = f"{_TENANT}/external-id/rotation"
_ENDPOINT = "/v1/webhook-endpoints/{new}"
_ACCOUNTS = [f"{number:012}" for number in range(300_000_000_000, 300_000_010_000)]
_OTHER_ACCOUNTS = [f"{number:012}" for number in range(400_000_000_000, 400_000_010_000)]
_SESSION_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "x" * 1_900}],
}
_WHY = {"reason": "x" * 200}
_NEW_KEY: dict[str, Any] = {"name": "x" * 100, "scopes": ["keys:write"]}


def _long(number: int) -> dict[str, Any]:
    return {
        "duration_seconds": 900,
        "session_policy": {"Statement": [*_SESSION_POLICY["Statement"]], "Id": str(number)},
    }


def _an_hour_ago() -> str:
    return (datetime.now(UTC) - timedelta(hours=1)).isoformat()


# The costliest form of each route that a test can construct. Requests that belong together follow
# each other. {new} is the `id` in the previous answer. A function builds a new body each time.
REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/v1/tenants", {"name": "x" * 100, "accounts": _ACCOUNTS}),
    ("GET", "/v1/tenants/{new}", None),
    ("PATCH", "/v1/tenants/{new}", {"accounts": _OTHER_ACCOUNTS}),
    ("POST", "/v1/tenants/{new}/suspend", _WHY),
    ("POST", "/v1/tenants/{new}/resume", _WHY),
    ("DELETE", "/v1/tenants/{new}", None),
    ("GET", f"/v1/tenants?limit={_ROWS}", None),
    ("POST", _ROTATION, _WHY),
    ("GET", _ROTATION, None),
    ("POST", f"{_ROTATION}/complete", {}),
    ("DELETE", _ROTATION, None),
    ("GET", f"{_TENANT}/onboarding", None),
    ("GET", "/v1/templates/customer-role.yaml", None),
    ("GET", "/v1/templates/customer-org.yaml", None),
    ("POST", f"{_TENANT}/onboarding-links", {}),
    ("GET", f"{_TENANT}/onboarding-links/{{new}}", None),
    ("DELETE", f"{_TENANT}/onboarding-links/{{new}}", None),
    ("GET", f"{_TENANT}/onboarding-links?limit={_ROWS}", None),
    ("GET", "/v1/permission-sets", None),
    ("GET", "/v1/permission-sets/{set}/versions", None),
    ("GET", "/v1/permission-sets/{set}/difference?from=1&to=1", None),
    ("POST", f"{_TENANT}/connections", {"account_id": "300000000000"}),
    ("GET", f"{_TENANT}/connections?limit={_ROWS}", None),
    ("GET", f"{_TENANT}/connections/summary", None),
    ("GET", f"/v1/connections?limit={_ROWS}", None),
    ("GET", _CONNECTION, None),
    ("PATCH", _CONNECTION, {"permission_set": "inventory"}),
    ("POST", f"{_CONNECTION}/verify", {}),
    ("POST", f"{_CONNECTION}/diagnose", {}),
    ("GET", f"{_CONNECTION}/proofs?limit={_ROWS}", None),
    ("POST", f"{_CONNECTION}/approve", {}),
    ("POST", f"{_CONNECTION}/report-refused", {}),
    ("POST", f"{_CONNECTION}/credentials", _long),
    ("GET", f"{_CONNECTION}/container-credentials", None),
    ("POST", f"{_CONNECTION}/suspend", _WHY),
    ("POST", f"{_CONNECTION}/resume", _WHY),
    ("POST", "/v1/api-keys", _NEW_KEY),
    ("GET", "/v1/api-keys/{new}", None),
    ("POST", "/v1/api-keys/{new}/replace", {}),
    ("DELETE", "/v1/api-keys/{new}", None),
    ("GET", f"/v1/api-keys?limit={_ROWS}", None),
    ("GET", f"/v1/audit-events?limit={_ROWS}", None),
    ("POST", "/v1/webhook-endpoints", {"url": "https://93.184.215.14/", "types": ["*"]}),
    ("GET", f"/v1/webhook-endpoints?limit={_ROWS}", None),
    ("GET", _ENDPOINT, None),
    ("PATCH", _ENDPOINT, {"url": "https://93.184.215.14/other"}),
    ("POST", f"{_ENDPOINT}/rotate-secret", {}),
    ("POST", f"{_ENDPOINT}/test", {}),
    ("POST", f"{_ENDPOINT}/recover", lambda _: {"since": _an_hour_ago()}),
    ("GET", f"{_ENDPOINT}/deliveries?limit={_ROWS}", None),
    ("POST", f"{_ENDPOINT}/deliveries/{{connection}}/redeliver", {}),
    ("DELETE", _ENDPOINT, None),
    ("GET", "/v1/event-types", None),
    ("GET", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/openapi.json", None),
    ("GET", "/onboard/static/{file}", None),
    ("GET", "/onboard/look/{file}", None),
    ("GET", "/onboard/{link}", None),
    ("GET", "/onboard/{link}/status", None),
    ("GET", "/onboard/{link}/review", None),
    ("GET", "/onboard/{link}/review.json", None),
    ("GET", "/onboard/{link}/connections", None),
    ("POST", "/onboard/{link}/connections", {}),
    ("POST", "/onboard/{link}/connections/{connection}/verify", {}),
    ("POST", "/onboard/{link}/connections/{connection}/stop", {}),
    ("DELETE", f"{_TENANT}/connections/{{spare}}", None),
)


def measure(stage: Stage) -> None:
    """Measure row 22."""
    stage.say(f"costly: {_TIMES} times the costliest request of each route")
    with stage.on_postgres.server.twin("deputy-costly", _ONE_PROCESS) as deputy:
        names = _tenant_of_many(stage, stage.on_postgres)
        routes, due = _routes(deputy, names), _due(deputy, names)
    reading = {name: _cpu(partial(_read, policy)) for name, policy in slow_policies().items()}
    times = {
        "routes": dict(sorted(routes.items(), key=lambda route: -route[1])),
        "a due connection": due,
        "reading": reading,
    }
    stage.findings.facts["CPU, ms"] = times
    figures = [max(each.values()) for each in (routes, due, reading)]
    text = " · ".join(f"{figure:.1f}" for figure in figures)
    stage.findings.results.append(CPU.judge(text, *figures, values=times))


def _tenant_of_many(stage: Stage, populated: Populated) -> dict[str, str]:
    """Create a tenant with a full page of connections, links and keys. Return the paths' values."""
    with contextlib.closing(populated.server.admin()) as admin:
        tenant = admin.must("POST", "/v1/tenants", {"name": "Many"}, expect=201)
        arns = [role_arn(tenant["id"], place) for place in range(_ROWS)]
        stage.sts.register(dict.fromkeys(arns, tenant["external_id"]))
        path = f"/v1/tenants/{tenant['id']}"

        def connect(client: Client, arn: str) -> str:
            connection: dict[str, str] = client.must(
                "POST", f"{path}/connections", {"role_arn": arn}, expect=201
            )
            return connection["id"]

        connections = spread(connect, arns, populated.server.admin)
        for statement in SLOW_STATEMENTS[:1]:
            stage.sts.deny(arns[-1], statement)
        for _ in range(_ROWS - 2 * _TIMES):
            link = admin.must("POST", f"{path}/onboarding-links", {}, expect=201)
            admin.must(
                "POST",
                "/v1/api-keys",
                {"name": "one of many", "scopes": ["audit:read"]},
                expect=201,
            )
        names = {
            f"spare {number}": connection for number, connection in enumerate(connections[:_TIMES])
        }
        names |= {"set": "inventory", "file": "pico.min.css"}
        return names | {
            "tenant": tenant["id"],
            "connection": connections[-1],
            "link": link["url"].rsplit("/", 1)[1],
        }


def _routes(deputy: Deputy, names: dict[str, str]) -> dict[str, float]:
    """Return the milliseconds of CPU time for each of the requests."""
    used: dict[str, list[float]] = {}
    with contextlib.closing(deputy.admin()) as admin:
        for number in range(_TIMES):
            names["spare"] = names[f"spare {number}"]
            for method, path, body in REQUESTS:
                sent = body(secrets.randbits(60)) if callable(body) else body
                before = cpu.seconds(deputy.pids())
                answer = admin.ask(method, path.format(**names), sent)
                used.setdefault(f"{method} {path}", []).append(
                    (cpu.seconds(deputy.pids()) - before) * 1000
                )
                if answer.status >= 500:
                    raise BenchError(
                        f"{method} {path} answered {answer.status}: {answer.body[:200].decode()}"
                    )
                if answer.status == 201 and "id" in (shown := answer.json()):
                    names["new"] = shown["id"]
    return {name: sorted(each)[len(each) // 2] for name, each in used.items()}


def _due(deputy: Deputy, names: dict[str, str]) -> dict[str, float]:
    """Return the milliseconds of a background worker's CPU time for one due connection."""
    arguments = ("-m", "bench.costly", names["tenant"], names["connection"])
    times: dict[str, float] = json.loads(run_python(arguments, deputy.environment).splitlines()[-1])
    return times


def _cpu(work: Callable[[], object]) -> float:
    """Return the median CPU time of several calls, in milliseconds."""
    used = []
    for _ in range(_TIMES):
        began = time.process_time()
        work()
        used.append((time.process_time() - began) * 1000)
    return sorted(used)[len(used) // 2]


def _read(policy: object) -> object:
    # Imported lazily: the bench's own process needs none of the service.
    from app.ids import AccountId, Broker  # noqa: PLC0415
    from app.proofs.trust_policy import read  # noqa: PLC0415

    broker = Broker.parse("arn:aws:iam::111122223333:role/DeputyBroker")
    return read(policy, broker, AccountId("444455556666"), ["dpy-" + "a" * 64], [])


def main(tenant: str, connection: str) -> None:
    """Prove as a background worker does, in a process with Deputy's settings."""
    from uuid import UUID  # noqa: PLC0415

    from app.config import Config  # noqa: PLC0415
    from app.identity.principals import WORKER, SystemPrincipal  # noqa: PLC0415
    from app.services import Services  # noqa: PLC0415
    from app.store.models import Trigger  # noqa: PLC0415

    services = Services(Config.from_environment())
    principal, ids = SystemPrincipal(WORKER, UUID(tenant)), (UUID(tenant), UUID(connection))

    def proofs() -> Iterator[tuple[str, float]]:
        for trigger in (Trigger.SCHEDULED, Trigger.REGISTERED):
            yield (
                f"proof, {trigger.value}",
                _cpu(partial(services.verification.verify, principal, *ids, trigger=trigger)),
            )

    print(json.dumps(dict(proofs())))


if __name__ == "__main__":
    main(*sys.argv[1:])
