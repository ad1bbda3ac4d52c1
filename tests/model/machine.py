"""The machine: tenants, keys, connections, customers and a clock, in any order, against Deputy
and the model at once.
"""

from datetime import timedelta
from random import Random

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
)
from tests.model.trust import written
from tests.model.watching import NARROW, Watched

_ACCOUNTS = ("411111111111", "422222222222")
_ROUTINE = {"scheduled", "issuing", "rotation"}
_ISSUE = frozenset({"credentials:issue"})
SIGN_UP = frozenset({"tenants:create", "keys:delegate"})
REASON = {"reason": "the model"}
_WORKERS = 0.6  # of those who ask after a step
_A_TURN = timedelta(hours=1.3)  # of routine proofs, at most
app_ = st.integers(0, 1)
any_ = st.integers(0, 11)
whose_ = st.sampled_from(["owner", "vendor"])
# What another tenant's key tries on a connection, after the scope that it is refused by if its key
# lacks it.
_ATTACKS = [
    "credentials:issue POST /connections/{c}/credentials",
    "credentials:issue GET /connections/{c}/container-credentials",
    "credentials:issue POST /connections/{c}/report-refused",
    "connections:read GET /connections/{c}",
    "connections:write POST /connections/{c}/verify",
    "connections:write POST /connections/{c}/suspend",
    "connections:write POST /connections/{c}/resume",
    "connections:write POST /connections/{c}/approve",
    "connections:write DELETE /connections/{c}",
]
_ATTACKS_ON_TENANTS = [
    "tenants:write POST /suspend",
    "tenants:write POST /resume",
    "tenants:write POST /external-id/rotation",
    "tenants:write POST /external-id/rotation/complete",
    "tenants:write DELETE /external-id/rotation",
    "tenants:write DELETE ",
]


def _body(method, path):
    if method != "POST":
        return None
    return REASON if path.endswith(("/suspend", "/resume", "/rotation")) else {}


if_any_is_live = precondition(lambda self: self.model.live())


def on_a_connection(step):
    """A step of a tenant's own key or the vendor's, through one of the two processes."""
    return if_any_is_live(rule(app=app_, which=any_, whose=whose_)(step))


class Deputy(Watched):
    @initialize(reads=st.booleans(), luck=st.integers(0, 2**32))
    def two_tenants(self, reads, luck):
        """Acme has a connection, as its kit says. Each tenant has a key with every right in it, and
        a worker's.

        A sign-up service's key made each.
        """
        self.begin()
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

    def actor(self, tenant, whose):
        """Who manages a tenant's things: the vendor, or the tenant's own key with every right."""
        own = next(it for it in self.model.keys if it.tenant is tenant and it.scopes == ALL)
        return self.vendor if whose == "vendor" else own

    def do(self, app, whose, tenant, request, body=None, *, expect, scope=None):
        """Ask for a change. `expect`: the status, if the key is let in at all. The answer; None
        if it was refused.
        """
        method, path = request.split(" ")
        if scope is None:
            scope = "connections:write" if path.startswith("/connections") else "tenants:write"
        key = self.actor(tenant, whose)
        expect = key.refused(scope, tenant, self.at) or expect
        under, body = f"/v1/tenants/{tenant.id}", body or _body(method, path)
        answer = self.stage.ask(app, key, method, under + path, body)
        assert answer.status_code == expect, f"{expect} expected: {answer.text}"
        self.seen[f"{method} {path.rpartition('/')[2] if method == 'POST' else ''} {expect}"] += 1
        if expect < 300:
            return answer.get_json() if answer.data else True
        return None

    def change(self, app, whose, connection, verb, *, expect):
        request = f"POST /connections/{connection.id}/{verb}"
        return self.do(app, whose, connection.tenant, request, expect=expect)

    def connection_named(self, place):
        connections = self.model.live()
        return connections[place % len(connections)]

    def role_named(self, place):
        return self.model.roles[place % len(self.model.roles)]

    # Credentials

    @if_any_is_live
    @rule(
        app=app_, which=any_, who=any_, seconds=st.sampled_from([900, 3600]), narrow=st.booleans()
    )
    def a_worker_asks(self, app, which, who, seconds, narrow):
        connection = self.connection_named(which)
        keys = [it for it in self.keys_of(connection.tenant) if "credentials:issue" in it.scopes]
        self.begin()
        key = keys[who % len(keys)]
        self.ask(app, key, connection.tenant, connection, seconds=seconds, narrow=narrow)

    def somebody_asks(self):
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

    def ask(self, app, key, tenant, connection, *, seconds=3600, narrow=False):
        """Ask for credentials: the answer is the model's."""
        stale = self.seen["a proof past its shelf life"]
        refusal = self._refusal(key, tenant, connection)
        body = {"duration_seconds": seconds} | ({"session_policy": NARROW} if narrow else {})
        answer = self.stage.ask(app, key, "POST", credentials_path(tenant, connection), body)
        if self.seen["a proof past its shelf life"] > stale:
            probed = [
                self._is_probe(call)
                for call in self.stage.calls[self.mark :]
                if call.role_arn == connection.role.arn
            ]
            assert True in probed, "answered on a proof that is too old"
        said = answer.status_code, answer.get_json().get("code")
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

    def _asked_in_vain(self, connection, calls):
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

    def _refusal(self, key, tenant, connection):
        """What the model says, after the fresh proof that a request makes when the last one is
        too old.
        """
        refusal = self.model.why_not(key, tenant, connection, self.at)
        proven_at = connection.proven_at
        if refusal or proven_at is None or self.at < proven_at + PROOF_MAX_AGE:
            return refusal
        self.seen["a proof past its shelf life"] += 1
        verdict = proofs.prove(self.model, connection, self.at, self.mark, routine=True)
        if verdict == proofs.INCONCLUSIVE:
            return 503, "proof_expired"
        return self.model.why_not(key, tenant, connection, self.at)

    @on_a_connection
    def a_worker_reports_a_refusal(self, app, which, whose):
        connection = self.connection_named(which)
        self.begin()
        request = f"POST /connections/{connection.id}/report-refused"
        scope, minute = "credentials:issue", timedelta(minutes=1)
        done = self.do(app, whose, connection.tenant, request, expect=202, scope=scope)
        reported_at = connection.reported_at
        lately = reported_at is not None and reported_at > self.at - minute
        if done and connection.status != SUSPENDED and not lately:
            connection.reported_at, connection.void_before = self.at, self.mark

    # Another tenant's key

    @if_any_is_live
    @rule(app=app_, which=any_, who=any_, attack=st.sampled_from(_ATTACKS), own_path=st.booleans())
    def another_tenants_key(self, app, which, who, attack, own_path):
        """Under the victim's path, or the victim's connection under its own path: it is as if
        there were none.
        """
        connection = self.connection_named(which)
        victim = connection.tenant
        under = self.model.other(victim) if own_path else victim
        self._attack(app, who, victim, under, attack.format(c=connection.id))

    @rule(app=app_, victim=any_, who=any_, attack=st.sampled_from(_ATTACKS_ON_TENANTS))
    def another_tenants_key_on_a_tenant(self, app, victim, who, attack):
        tenant = self.tenant_named(victim)
        self._attack(app, who, tenant, tenant, attack)

    def _attack(self, app, who, victim, under, attack):
        keys = [it for it in self.model.keys if it.tenant is self.model.other(victim)]
        key, (scope, method, path) = keys[who % len(keys)], attack.split(" ")
        self.begin()
        expect = key.refused(scope, under, self.at) or 404
        answer = self.stage.ask(
            app, key, method, f"/v1/tenants/{under.id}{path}", _body(method, path)
        )
        assert answer.status_code == expect, f"{attack}: {expect} expected: {answer.text}"
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
    def connect(self, app, victim, which, whose, permission_set):
        """Also a role of the other tenant's."""
        self.begin()
        tenant, role = self.tenant_named(victim), self.role_named(which)
        self._connect(app, whose, tenant, role, permission_set)

    def _connect(self, app, whose, tenant, role, permission_set=None):
        there = self.model.to_role(tenant, role)
        body = {"role_arn": role.arn} | (
            {"permission_set": permission_set} if permission_set else {}
        )
        model, account = self.model, role.account
        kept_out = (
            model.is_buried(tenant, role)
            or model.is_closed(tenant, account)
            or model.is_emptied(tenant, account)
        )
        refused = there or tenant.status == SUSPENDED or (kept_out and whose == "owner")
        expect = 409 if refused else 201
        made = self.do(app, whose, tenant, "POST /connections", body, expect=expect)
        if not made:
            return
        own = permission_set or "inventory"
        connection = Connection(made["id"], tenant, role, own, self.at, tenant.current)
        connection.awaiting = permission_set == WRITES and whose == "owner"
        self.model.connections.append(connection)
        self._proven(connection, made)

    def _proven(self, connection, answer):
        """A proof was made: Deputy's verdict is the model's."""
        verdict = proofs.prove(self.model, connection, self.at, self.mark, routine=False)
        assert answer["verification"]["verdict"] == verdict, answer["verification"]
        assert answer["status"] == connection.status
        assert answer["external_id"] == connection.pair
        self.seen[f"verdict {verdict}"] += 1

    @on_a_connection
    def verify(self, app, which, whose):
        self.begin()
        self._verify(app, self.connection_named(which), whose)

    def _verify(self, app, connection, whose):
        tenant = connection.tenant
        kept_out = whose == "owner" and self.is_kept_out(connection)
        expect = 409 if SUSPENDED in {tenant.status, connection.status} or kept_out else 200
        made = self.change(app, whose, connection, "verify", expect=expect)
        if made:
            self._proven(connection, made)

    @on_a_connection
    def suspend(self, app, which, whose):
        connection = self.connection_named(which)
        self.begin()
        bound = whose == "owner"
        already = connection.status == SUSPENDED and (bound or not connection.suspended_by_bound)
        if self.change(app, whose, connection, "suspend", expect=409 if already else 200):
            connection.become(SUSPENDED, self.mark)
            connection.suspended_by_bound = bound

    @on_a_connection
    def resume(self, app, which, whose):
        connection = self.connection_named(which)
        self.begin()
        expect = 409
        if (
            connection.tenant.status == ACTIVE
            and connection.status == SUSPENDED
            and self._may_undo(connection, whose)
        ):
            closed = self.model.is_closed(connection.tenant, connection.role.account)
            expect = 409 if closed and whose == "owner" else 200
        made = self.change(app, whose, connection, "resume", expect=expect)
        if made:
            connection.become(PENDING, self.mark)
            self._proven(connection, made)

    def is_kept_out(self, connection):
        """Whether nobody but the vendor may have it proven."""
        return connection.status != VERIFIED and self.model.is_closed(
            connection.tenant, connection.role.account
        )

    def _may_undo(self, suspended, whose):
        """What the vendor suspended, a tenant's key neither resumes nor deletes."""
        return (
            suspended.status != SUSPENDED or whose == "vendor" or bool(suspended.suspended_by_bound)
        )

    @on_a_connection
    def delete(self, app, which, whose):
        connection = self.connection_named(which)
        self.begin()
        expect = 204 if self._may_undo(connection, whose) else 409
        request = f"DELETE /connections/{connection.id}"
        if self.do(app, whose, connection.tenant, request, expect=expect):
            connection.become(DELETED, self.mark)
            connection.deleted_by_bound, connection.ended_at = whose == "owner", self.at

    @precondition(lambda self: any(it.awaiting for it in self.model.live()))
    @rule(app=app_, which=any_, whose=whose_)
    def approve(self, app, which, whose):
        self.begin()
        waiting = [it for it in self.model.live() if it.awaiting]
        self._approve(app, waiting[which % len(waiting)], whose)

    def _approve(self, app, connection, whose):
        expect = 403
        if whose == "vendor":
            expect = 200 if connection.tenant.status == ACTIVE else 409
        made = self.change(app, whose, connection, "approve", expect=expect)
        if not made:
            return
        connection.awaiting = False
        day_ago, passed_at = self.at - timedelta(days=1), connection.passed_at
        passed = passed_at is not None and passed_at >= day_ago
        if made["status"] == VERIFIED:
            assert passed, "approved, and verified without a fresh proof"
            connection.become(VERIFIED, self.mark)
            connection.proven_at = connection.passed_at
        self.seen[f"approved {made['status']}"] += 1
