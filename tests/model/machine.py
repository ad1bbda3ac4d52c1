"""The machine: tenants, keys, connections, customers and a clock, in any order, against Deputy
and the model at once.
"""

from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model import proofs
from tests.model.stage import ALL, credentials_path
from tests.model.state import (
    ACTIVE,
    DELETED,
    PENDING,
    PROOF_MAX_AGE,
    SUSPENDED,
    VERIFIED,
    WRITES,
    Connection,
    Key,
    Role,
    Tenant,
)
from tests.model.trust import written
from tests.model.watching import NARROW, Watched

_ACCOUNTS = ("411111111111", "422222222222")
_ROUTINE = {"scheduled", "issuing", "rotation"}
_ISSUE = frozenset({"credentials:issue"})
SIGN_UP = frozenset({"tenants:write", "keys:delegate"})
_REASON = {"reason": "the model"}
_WORKERS = 0.6  # of those who ask after a step
_A_TURN = timedelta(hours=1.3)  # of routine proofs, at most
app_ = st.integers(0, 1)
any_ = st.integers(0, 11)
whose_ = st.sampled_from(["owner", "vendor"])
# What another tenant's key tries on a connection, and the scope that it is refused by if its key
# lacks it.
_ATTACKS = [
    ("POST", "/connections/{c}/credentials", {}, "credentials:issue"),
    ("GET", "/connections/{c}/container-credentials", None, "credentials:issue"),
    ("POST", "/connections/{c}/report-refused", {}, "credentials:issue"),
    ("GET", "/connections/{c}", None, "connections:read"),
    ("POST", "/connections/{c}/verify", {}, "connections:write"),
    ("POST", "/connections/{c}/suspend", _REASON, "connections:write"),
    ("POST", "/connections/{c}/resume", _REASON, "connections:write"),
    ("POST", "/connections/{c}/approve", {}, "connections:write"),
    ("DELETE", "/connections/{c}", None, "connections:write"),
]
_ATTACKS_ON_TENANTS = [
    ("POST", "/suspend", _REASON, "tenants:write"),
    ("POST", "/resume", _REASON, "tenants:write"),
    ("POST", "/external-id/rotation", _REASON, "tenants:write"),
    ("POST", "/external-id/rotation/complete", {}, "tenants:write"),
    ("DELETE", "/external-id/rotation", None, "tenants:write"),
    ("DELETE", "", None, "tenants:write"),
]


class Deputy(Watched):
    @initialize(reads=st.booleans(), luck=st.integers(0, 2**32))
    def two_tenants(self, reads: bool, luck: int) -> None:
        """Acme has a connection, as its kit says. Each tenant has a key with every right in it, and
        a worker's.

        A sign-up service's key made each.
        """
        self.begin("initialized")
        self.dice = Random(luck)  # noqa: S311  no secret
        makers = [self.stage.new_key(None, SIGN_UP) for _ in _ACCOUNTS]
        self.model.keys += makers
        for name, account, maker in zip(("Acme", "Globex"), _ACCOUNTS, makers, strict=True):
            tenant = self.stage.new_tenant(name, maker)
            self.model.tenants.append(tenant)
            self.model.keys += [self.stage.new_key(tenant, ALL), self.stage.new_key(tenant, _ISSUE)]
            trust = written("as the kit says", tenant.current, None, None, "")
            self.model.roles.append(self.stage.new_role(account, trust, reads=reads))
        self.model.keys.append(self.stage.new_key(None, _ISSUE))
        self._connect(0, "vendor", self.model.tenants[0], self.model.roles[0])

    def actor(self, tenant: Tenant, whose: str) -> Key:
        """Who manages a tenant's things: the vendor, or the tenant's own key with every right."""
        own = next(it for it in self.model.keys if it.tenant is tenant and it.scopes == ALL)
        return self.vendor if whose == "vendor" else own

    def do(
        self,
        app: int,
        whose: str,
        tenant: Tenant,
        request: tuple[str, str, Any],
        scope: str,
        *,
        expect: int,
    ) -> Any:
        """Ask for a change. `expect`: the status, if the key is let in at all. The answer; None
        if it was refused.
        """
        key = self.actor(tenant, whose)
        expect, (method, path, body) = key.refused(scope, tenant, self.at) or expect, request
        answer = self.stage.ask(app, key, method, f"/v1/tenants/{tenant.id}{path}", body)
        assert answer.status_code == expect, (
            f"{answer.status_code} instead of {expect}: {answer.text}"
        )
        self.seen[f"{method} {path.rpartition('/')[2] if method == 'POST' else ''} {expect}"] += 1
        return None if expect >= 300 else answer.get_json() if answer.data else {}

    def connection_named(self, place: int, *, live: bool = True) -> Connection:
        known = self.model.live() if live else self.model.connections
        return known[place % len(known)]

    # Credentials

    @precondition(lambda self: self.model.live())
    @rule(
        app=app_, which=any_, who=any_, seconds=st.sampled_from([900, 3600]), narrow=st.booleans()
    )
    def a_worker_asks(self, app: int, which: int, who: int, seconds: int, narrow: bool) -> None:
        connection = self.connection_named(which)
        keys = [it for it in self.keys_of(connection.tenant) if "credentials:issue" in it.scopes]
        self.begin("a worker asks")
        self.ask(
            app,
            keys[who % len(keys)],
            connection.tenant,
            connection,
            seconds=seconds,
            narrow=narrow,
        )

    def somebody_asks(self) -> None:
        """After each step: a worker for a connection of its tenant's; or any key, also for what
        is gone.
        """
        app = self.dice.randrange(2)
        connection = self.dice.choice(self.model.live() or self.model.connections)
        if self.dice.random() < _WORKERS:
            workers = [it for it in self.keys_of(connection.tenant) if it.scopes == _ISSUE]
            self.ask(app, self.dice.choice(workers), connection.tenant, connection)
        else:
            connection = self.dice.choice([connection, *self.model.connections])
            tenant = self.dice.choice(
                [connection.tenant, connection.tenant, self.model.other(connection.tenant)]
            )
            self.ask(app, self.dice.choice(self.model.keys), tenant, connection)

    def ask(
        self,
        app: int,
        key: Key,
        tenant: Tenant,
        connection: Connection,
        *,
        seconds: int = 3600,
        narrow: bool = False,
    ) -> None:
        """Ask for credentials: the answer is the model's."""
        stale = self.seen["a proof past its shelf life"]
        refusal = self._refusal(key, tenant, connection)
        body = {"duration_seconds": seconds} | ({"session_policy": NARROW} if narrow else {})
        answer = self.stage.ask(app, key, "POST", credentials_path(tenant, connection), body)
        if self.seen["a proof past its shelf life"] > stale:
            probed = [
                call
                for call in self.stage.calls[self.mark :]
                if call.role_arn == connection.role.arn
            ]
            assert any(map(self._is_probe, probed)), "answered on a proof that is too old"
        said = answer.status_code, None if answer.status_code == 200 else answer.get_json()["code"]
        self.seen[f"issue {said[1] or 200}"] += 1
        calls = self.sessions_since(self.mark, connection, key)
        role = connection.role
        lets_in, same = role.lets_in(connection.pair), role.unique_id == connection.unique_id
        if refusal is not None:
            if self._asked_in_vain(connection, calls):
                refusal = self._refusal(key, tenant, connection) or refusal
            assert said[0] == refusal[0], f"{said} instead of {refusal}"
            assert refusal[1] in {None, said[1]}, f"{said} instead of {refusal}"
            assert (key.may_see(tenant) and connection.tenant is tenant) or not calls, (
                "AWS was asked for a stranger"
            )
            return
        if said[0] == 200:
            self.check_session(answer.get_json(), connection, key, seconds, narrow=narrow)
        else:
            assert calls, f"refused without asking AWS: {answer.text}"
            assert not (lets_in and same), f"the model allows it: {answer.text}"
            assert said == (409, "connection_not_verified" if lets_in else "role_refused")
        if lets_in and not same and calls:
            connection.recreated(self.mark)

    def _asked_in_vain(self, connection: Connection, calls: list[Any]) -> bool:
        """By a process that has not heard yet that nothing is issued. Returns whether it saw that
        the role is another one, so that the connection needs a proof as well.
        """
        self.seen["asked AWS in vain"] += bool(calls)
        if not calls or connection.status != VERIFIED:
            return False
        if self.stage.rows(connection.tenant)[2][connection.id][0] != PENDING:
            return False
        assert connection.role.unique_id != connection.unique_id
        connection.recreated(self.mark)
        return True

    def _refusal(
        self, key: Key, tenant: Tenant, connection: Connection
    ) -> tuple[int, str | None] | None:
        """What the model says, after the fresh proof that a request makes when the last one is
        too old.
        """
        refusal = self.model.why_not(key, tenant, connection, self.at)
        if (
            refusal
            or connection.proven_at is None
            or self.at < connection.proven_at + PROOF_MAX_AGE
        ):
            return refusal
        self.seen["a proof past its shelf life"] += 1
        verdict = proofs.prove(self.model, connection, self.at, self.mark, routine=True)
        if verdict == proofs.INCONCLUSIVE:
            return 503, "proof_expired"
        return self.model.why_not(key, tenant, connection, self.at)

    @precondition(lambda self: self.model.live())
    @rule(app=app_, which=any_, whose=whose_)
    def a_worker_reports_a_refusal(self, app: int, which: int, whose: str) -> None:
        connection = self.connection_named(which)
        tenant = connection.tenant
        self.begin("reported")
        path = f"/connections/{connection.id}/report-refused"
        done = self.do(app, whose, tenant, ("POST", path, {}), "credentials:issue", expect=202)
        lately = (
            connection.reported_at is not None
            and connection.reported_at > self.at - timedelta(minutes=1)
        )
        if done is not None and connection.status != SUSPENDED and not lately:
            connection.reported_at, connection.void_before = self.at, self.mark

    # Another tenant's key

    @precondition(lambda self: self.model.live())
    @rule(app=app_, which=any_, who=any_, attack=st.sampled_from(_ATTACKS), own_path=st.booleans())
    def another_tenants_key(
        self, app: int, which: int, who: int, attack: Any, own_path: bool
    ) -> None:
        """Under the victim's path, or the victim's connection under its own path: it is as if
        there were none.
        """
        connection = self.connection_named(which)
        theirs = self.model.other(connection.tenant)
        keys = [it for it in self.model.keys if it.tenant is theirs]
        key, (method, path, body, scope) = keys[who % len(keys)], attack
        self.begin("attacked")
        under = theirs if own_path else connection.tenant
        expect = key.refused(scope, under, self.at) or 404
        self._refused(
            app,
            key,
            (method, f"/v1/tenants/{under.id}{path.format(c=connection.id)}", body),
            expect,
        )

    @rule(app=app_, victim=any_, who=any_, attack=st.sampled_from(_ATTACKS_ON_TENANTS))
    def another_tenants_key_on_a_tenant(self, app: int, victim: int, who: int, attack: Any) -> None:
        tenant = self.tenant_named(victim)
        keys = [it for it in self.model.keys if it.tenant is self.model.other(tenant)]
        key, (method, path, body, scope) = keys[who % len(keys)], attack
        self.begin("attacked")
        expect = key.refused(scope, tenant, self.at) or 404
        self._refused(app, key, (method, f"/v1/tenants/{tenant.id}{path}", body), expect)

    def _refused(self, app: int, key: Key, request: tuple[str, str, Any], expect: int) -> None:
        answer = self.stage.ask(app, key, *request)
        assert answer.status_code == expect, f"{request}: {answer.status_code} instead of {expect}"
        assert len(self.stage.calls) == self.mark, "AWS was asked for somebody who sees nothing"
        self.seen[f"attack {expect}"] += 1

    # Connections

    @rule(
        app=app_,
        victim=any_,
        which=any_,
        whose=whose_,
        permission_set=st.sampled_from([None, None, WRITES]),
    )
    def connect(
        self, app: int, victim: int, which: int, whose: str, permission_set: str | None
    ) -> None:
        """Also a role of the other tenant's."""
        self.begin("connect")
        role = self.model.roles[which % len(self.model.roles)]
        self._connect(app, whose, self.tenant_named(victim), role, permission_set)

    def _connect(
        self, app: int, whose: str, tenant: Tenant, role: Role, permission_set: str | None = None
    ) -> None:
        there = self.model.to_role(tenant, role)
        body = {"role_arn": role.arn} | (
            {"permission_set": permission_set} if permission_set else {}
        )
        kept_out = self.model.is_buried(tenant, role) or self.model.is_closed(tenant, role.account)
        refused = there or tenant.status == SUSPENDED or (kept_out and whose == "owner")
        expect = 409 if refused else 201
        made = self.do(
            app, whose, tenant, ("POST", "/connections", body), "connections:write", expect=expect
        )
        if made is None:
            return
        awaits = permission_set == WRITES and whose == "owner"
        connection = Connection(
            made["id"],
            tenant,
            role,
            permission_set or "inventory",
            self.at,
            tenant.current,
            awaiting=awaits,
        )
        self.model.connections.append(connection)
        self._proven(connection, made, routine=False)

    def _proven(self, connection: Connection, answer: dict[str, Any], *, routine: bool) -> None:
        """A proof was made: Deputy's verdict is the model's."""
        verdict = proofs.prove(self.model, connection, self.at, self.mark, routine=routine)
        assert answer["verification"]["verdict"] == verdict, answer["verification"]
        assert (answer["status"], answer["external_id"]) == (connection.status, connection.pair)
        self.seen[f"verdict {verdict}"] += 1

    @precondition(lambda self: self.model.live())
    @rule(app=app_, which=any_, whose=whose_)
    def verify(self, app: int, which: int, whose: str) -> None:
        self.begin("verify")
        self._verify(app, self.connection_named(which), whose)

    def _verify(self, app: int, connection: Connection, whose: str) -> None:
        tenant = connection.tenant
        kept_out = whose == "owner" and self.is_kept_out(connection)
        expect = 409 if SUSPENDED in {tenant.status, connection.status} or kept_out else 200
        path = f"/connections/{connection.id}/verify"
        made = self.do(app, whose, tenant, ("POST", path, {}), "connections:write", expect=expect)
        if made is not None:
            self._proven(connection, made, routine=False)

    @precondition(lambda self: self.model.live())
    @rule(app=app_, which=any_, whose=whose_)
    def suspend(self, app: int, which: int, whose: str) -> None:
        connection = self.connection_named(which)
        tenant, self.at, bound = connection.tenant, self.begin("suspend"), whose == "owner"
        already = connection.status == SUSPENDED and (bound or not connection.suspended_by_bound)
        path, expect = f"/connections/{connection.id}/suspend", 409 if already else 200
        if (
            self.do(app, whose, tenant, ("POST", path, _REASON), "connections:write", expect=expect)
            is not None
        ):
            connection.become(SUSPENDED, self.mark)
            connection.suspended_by_bound = bound

    @precondition(lambda self: self.model.live())
    @rule(app=app_, which=any_, whose=whose_)
    def resume(self, app: int, which: int, whose: str) -> None:
        connection = self.connection_named(which)
        tenant, self.at = connection.tenant, self.begin("resume")
        may = (
            tenant.status == ACTIVE
            and connection.status == SUSPENDED
            and self._may_undo(connection, whose)
        )
        may = may and (
            whose == "vendor" or not self.model.is_closed(tenant, connection.role.account)
        )
        path, expect = f"/connections/{connection.id}/resume", 200 if may else 409
        made = self.do(
            app, whose, tenant, ("POST", path, _REASON), "connections:write", expect=expect
        )
        if made is not None:
            connection.become(PENDING, self.mark)
            self._proven(connection, made, routine=False)

    def is_kept_out(self, connection: Connection) -> bool:
        """Whether nobody but the vendor may have it proven."""
        return connection.status != VERIFIED and self.model.is_closed(
            connection.tenant, connection.role.account
        )

    def _may_undo(self, suspended: Connection | Tenant, whose: str) -> bool:
        """What the vendor suspended, a tenant's key neither resumes nor deletes."""
        return (
            suspended.status != SUSPENDED or whose == "vendor" or bool(suspended.suspended_by_bound)
        )

    @precondition(lambda self: self.model.live())
    @rule(app=app_, which=any_, whose=whose_)
    def delete(self, app: int, which: int, whose: str) -> None:
        connection = self.connection_named(which)
        tenant, self.at = connection.tenant, self.begin("delete")
        path, expect = (
            f"/connections/{connection.id}",
            204 if self._may_undo(connection, whose) else 409,
        )
        if (
            self.do(app, whose, tenant, ("DELETE", path, None), "connections:write", expect=expect)
            is not None
        ):
            connection.become(DELETED, self.mark)
            connection.deleted_by_bound = whose == "owner"

    @precondition(lambda self: any(it.awaiting for it in self.model.live()))
    @rule(app=app_, which=any_, whose=whose_)
    def approve(self, app: int, which: int, whose: str) -> None:
        self.begin("approve")
        waiting = [it for it in self.model.live() if it.awaiting]
        self._approve(app, waiting[which % len(waiting)], whose)

    def _approve(self, app: int, connection: Connection, whose: str) -> None:
        active = connection.tenant.status == ACTIVE
        path, expect = (
            f"/connections/{connection.id}/approve",
            (200 if active else 409) if whose == "vendor" else 403,
        )
        made = self.do(
            app, whose, connection.tenant, ("POST", path, {}), "connections:write", expect=expect
        )
        if made is None:
            return
        connection.awaiting = False
        passed = connection.passed_at is not None and connection.passed_at >= self.at - timedelta(
            days=1
        )
        if made["status"] == VERIFIED:
            assert passed, "approved, and verified without a fresh proof"
            connection.become(VERIFIED, self.mark)
            connection.proven_at = connection.passed_at
        self.seen[f"approved {made['status']}"] += 1
