"""The rest of the machine: what customers do in their accounts, keys, tenants, rotations, and
time that passes.
"""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.model import proofs
from tests.model.machine import (
    _A_TURN,
    _ISSUE,
    _REASON,
    _ROUTINE,
    SIGN_UP,
    Deputy,
    any_,
    app_,
    whose_,
)
from tests.model.stage import ALL
from tests.model.state import (
    ACTIVE,
    ENDED,
    NEXT,
    RETIRED,
    RETIRING,
    SUSPENDED,
    VERIFIED,
    WRITES,
    Key,
    Tenant,
)
from tests.model.trust import HANDS, LOOSE, Trust, written

_MOST_ROLES = 5


class Surroundings(Deputy):
    # Customers, who write what they like

    def _written(self, hand: str, tenant: Tenant) -> Trust:
        before = tenant.with_state(RETIRING) or tenant.with_state(RETIRED)
        foreign = self.model.other(tenant).current
        return written(hand, tenant.current, tenant.with_state(NEXT), before, foreign)

    def _owner(self, account: str) -> Tenant:
        return self.model.tenants[[it.account for it in self.model.roles].index(account)]

    @rule(which=any_, hand=st.sampled_from(HANDS), proven=st.booleans())
    def a_customer_edits_a_trust_policy(self, which: int, hand: str, proven: bool) -> None:
        """And perhaps somebody looks at once."""
        self.begin(f"written {hand}")
        role = self.model.roles[which % len(self.model.roles)]
        if role.exists:
            self.stage.retrust(role, self._written(hand, self._owner(role.account)))
        connections = [it for it in self.model.live() if it.role is role]
        if proven and connections:
            self._verify(which % 2, connections[which % len(connections)], "vendor")

    @rule(which=any_, hand=st.sampled_from(LOOSE))
    def a_customer_loosens_a_trust_policy(self, which: int, hand: str) -> None:
        self.a_customer_edits_a_trust_policy(which, hand, proven=True)

    @rule(which=any_)
    def a_customer_does_as_the_kit_says(self, which: int) -> None:
        """Proven twice at once, which is too soon, and once more: a connection switches to the next
        External ID where there is one.
        """
        for _ in range(2):
            self.a_customer_edits_a_trust_policy(which, HANDS[0], proven=True)
        self.a_background_worker_comes_back({"minutes": 3})

    @precondition(lambda self: len(self.model.roles) < _MOST_ROLES)
    @rule(
        app=app_,
        whose=any_,
        by=whose_,
        hand=st.sampled_from(HANDS[:1] * 6 + HANDS),
        reads=st.booleans(),
        permission_set=st.sampled_from([None, WRITES]),
        approved=st.booleans(),
    )
    def a_customer_makes_a_role(
        self,
        app: int,
        whose: int,
        by: str,
        *,
        hand: str,
        reads: bool,
        permission_set: str | None,
        approved: bool,
    ) -> None:
        """And connects it; perhaps the vendor approves it at once, or the tenant tries to."""
        self.begin("made a role")
        place, tenant = whose % 2, self.tenant_named(whose)
        role = self.stage.new_role(
            self.model.roles[place].account, self._written(hand, tenant), reads=reads
        )
        self.model.roles.append(role)
        self._connect(app, by, tenant, role, permission_set)
        connection = self.model.to_role(tenant, role)
        if approved and connection and connection.awaiting:
            self._approve(app, connection, "owner")
            self._approve(app, connection, "vendor")

    @precondition(lambda self: len(self.model.roles) < _MOST_ROLES)
    @rule(app=app_, whose=any_, reads=st.booleans())
    def a_tenant_adds_a_role_that_writes(self, app: int, whose: int, reads: bool) -> None:
        """Which the tenant may not approve itself, and the vendor does."""
        self.a_customer_makes_a_role(
            app, whose, "owner", hand=HANDS[0], reads=reads, permission_set=WRITES, approved=True
        )

    @rule(which=any_, comes_back=st.booleans())
    def a_customer_deletes_a_role(self, which: int, comes_back: bool) -> None:
        """And perhaps makes it again: under the same ARN it is another one."""
        self.begin("deleted a role")
        role = self.model.roles[which % len(self.model.roles)]
        if role.exists:
            self.stage.remove(role)
        if comes_back:
            self.stage.make(role)

    # Keys

    @rule(
        app=app_,
        whose=any_,
        by=whose_,
        life=st.sampled_from([None, timedelta(minutes=10)]),
        scopes=st.sampled_from([_ISSUE, ALL - _ISSUE, ALL]),
        permission_set=st.sampled_from([None, "inventory"]),
    )
    def make_a_key(
        self, app: int, whose: int, by: str, *, life: Any, scopes: Any, permission_set: str | None
    ) -> None:
        tenant, at = self.tenant_named(whose), self.begin("made a key")
        maker = self.actor(tenant, by)
        ends = min((it for it in (life and at + life, maker.expires_at) if it), default=None)
        body = {
            "name": "a program",
            "scopes": sorted(scopes),
            "tenant_id": tenant.id,
            **({"expires_at": ends.isoformat()} if ends else {}),
            **({"permission_sets": [permission_set]} if permission_set else {}),
        }
        answer = self.stage.ask(app, maker, "POST", "/v1/api-keys", body)
        assert answer.status_code == (maker.refused("keys:write", tenant, at) or 201), answer.text
        if answer.status_code == 201:
            made = answer.get_json()
            self.model.keys.append(
                Key(made["id"], made["key"], scopes, tenant, ends, permission_set, maker)
            )

    @rule(app=app_, whose=any_, which=any_, scopes=st.sampled_from([_ISSUE, _ISSUE, ALL]))
    def a_sign_up_service_makes_a_key(self, app: int, whose: int, which: int, scopes: Any) -> None:
        """The maker of the tenant tries, and another one."""
        tenant, at = self.tenant_named(whose), self.begin("signed up")
        makers = [it for it in self.model.keys if it.scopes == SIGN_UP]
        for maker in dict.fromkeys(
            (makers[which % len(makers)], makers[(which + 1) % len(makers)])
        ):
            self._sign_up(app, maker, tenant, scopes, at)

    def _sign_up(self, app: int, maker: Key, tenant: Tenant, scopes: Any, at: datetime) -> None:
        body = {"name": "a program", "scopes": sorted(scopes), "tenant_id": tenant.id}
        answer = self.stage.ask(app, maker, "POST", "/v1/api-keys", body)
        may = tenant.status != ENDED and maker.may_sign_up(tenant, at)
        expect = 401 if not maker.is_live(at) else 403 if scopes != _ISSUE else 201 if may else 404
        assert answer.status_code == expect, (
            f"{answer.status_code} instead of {expect}: {answer.text}"
        )
        self.seen[f"signed up {expect}"] += 1
        if expect == 201:
            made = answer.get_json()
            self.model.keys.append(
                Key(made["id"], made["key"], scopes, tenant, maker.expires_at, None, maker)
            )

    def _key_named(self, place: int) -> Key:
        """Any but the vendor's own."""
        return self.model.keys[1 + place % (len(self.model.keys) - 1)]

    @rule(app=app_, which=any_)
    def revoke_a_key(self, app: int, which: int) -> None:
        key = self._key_named(which)
        self.begin("revoked a key")
        answer = self.stage.ask(app, self.vendor, "DELETE", f"/v1/api-keys/{key.id}")
        # An expired one can be revoked
        gone = key.revoked or (key.tenant is not None and key.tenant.status == ENDED)
        assert answer.status_code == (404 if gone else 204), answer.text
        if answer.status_code == 204:
            for one in self.model.family(key):
                one.revoked = True

    @rule(app=app_, which=any_, grace=st.sampled_from([0, 600]))
    def replace_a_key(self, app: int, which: int, grace: int) -> None:
        key, at = self._key_named(which), self.begin("replaced a key")
        path = f"/v1/api-keys/{key.id}/replace"
        answer = self.stage.ask(app, self.vendor, "POST", path, {"grace_seconds": grace})
        assert answer.status_code == (
            404 if not key.is_live(at) else 409 if key.replaced_by else 201
        ), answer.text
        if answer.status_code != 201:
            return
        made = answer.get_json()
        ends = None if made["expires_at"] is None else datetime.fromisoformat(made["expires_at"])
        assert (ends is None) == (key.expires_at is None), (
            "it lives as long as the old one was made to live"
        )
        successor = Key(
            made["id"], made["key"], key.scopes, key.tenant, ends, key.permission_set, self.vendor
        )
        for one in self.model.keys:
            one.made_by = successor if one.made_by is key and not one.revoked else one.made_by
        key.replaced_by = successor
        key.expires_at = min(
            at + timedelta(seconds=grace), key.expires_at or datetime.max.replace(tzinfo=at.tzinfo)
        )
        self.model.keys.append(successor)

    # Tenants

    @rule(app=app_, whose=any_, by=whose_)
    def suspend_a_tenant(self, app: int, whose: int, by: str) -> None:
        tenant, self.at = self.tenant_named(whose), self.begin("suspended a tenant")
        already = tenant.status == SUSPENDED and (by == "owner" or not tenant.suspended_by_bound)
        expect = 409 if already else 200
        if (
            self.do(app, by, tenant, ("POST", "/suspend", _REASON), "tenants:write", expect=expect)
            is not None
        ):
            tenant.status, tenant.suspended_by_bound = SUSPENDED, by == "owner"

    @precondition(lambda self: any(it.status == SUSPENDED for it in self.model.tenants))
    @rule(app=app_, whose=any_, by=whose_)
    def resume_a_tenant(self, app: int, whose: int, by: str) -> None:
        tenant, self.at = self.tenant_named(whose), self.begin("resumed a tenant")
        may = tenant.status == SUSPENDED and self._may_undo(tenant, by)
        expect = 200 if may else 409
        if (
            self.do(app, by, tenant, ("POST", "/resume", _REASON), "tenants:write", expect=expect)
            is not None
        ):
            tenant.status = ACTIVE

    @rule(app=app_, whose=any_, sure=st.integers(0, 3))
    def end_a_tenant(self, app: int, whose: int, sure: int) -> None:
        """Rarely, as little happens to it afterwards."""
        tenant, self.at = self.tenant_named(whose), self.begin("ended a tenant")
        if sure:
            return
        if (
            self.do(app, "vendor", tenant, ("DELETE", "", None), "tenants:write", expect=204)
            is not None
        ):
            self.model.end(tenant, self.mark)

    # Rotations

    @rule(app=app_, whose=any_, by=whose_, emergency=st.booleans())
    def start_a_rotation(self, app: int, whose: int, by: str, emergency: bool) -> None:
        tenant, self.at = self.tenant_named(whose), self.begin("started a rotation")
        expect = 201 if not tenant.is_open else 200 if emergency else 409
        body = _REASON | {"emergency": emergency}
        made = self.do(
            app, by, tenant, ("POST", "/external-id/rotation", body), "tenants:write", expect=expect
        )
        if made is None:
            return
        if expect == 201:
            proofs.start(tenant, made["next_external_id"], self.at)
        rotation = tenant.rotation
        assert rotation is not None
        assert (made["external_id"], made["next_external_id"]) == (rotation.old, rotation.new)
        rotation.by_bound = rotation.by_bound and by == "owner"
        if emergency and not rotation.emergency:
            proofs.withdraw(tenant, self.at)
            self._ask_at_once(app, tenant)

    @rule(app=app_, whose=any_)
    def an_emergency(self, app: int, whose: int) -> None:
        self.start_a_rotation(app, whose, "vendor", emergency=True)

    @precondition(lambda self: any(it.rotation for it in self.model.tenants))
    @rule(app=app_, whose=any_, by=whose_)
    def complete_a_rotation(self, app: int, whose: int, by: str) -> None:
        tenant, self.at = self.tenant_named(whose), self.begin("completed a rotation")
        ready = tenant.is_open and not proofs.waiting(self.model, tenant)
        expect = 404 if tenant.rotation is None else 200 if ready else 409
        path = "/external-id/rotation/complete"
        if self.do(app, by, tenant, ("POST", path, {}), "tenants:write", expect=expect) is not None:
            proofs.complete(self.model, tenant, self.at)

    @rule(app=app_, whose=any_, emergency=st.booleans())
    def a_rotation_is_carried_through(self, app: int, whose: int, emergency: bool) -> None:
        """Begun, followed by one customer at least, and completed if that was enough."""
        self.start_a_rotation(app, whose, "vendor", emergency)
        self.a_customer_does_as_the_kit_says(whose % 2)
        self.complete_a_rotation(app, whose, "vendor")

    @precondition(lambda self: any(it.rotation for it in self.model.tenants))
    @rule(app=app_, whose=any_, by=whose_)
    def abandon_a_rotation(self, app: int, whose: int, by: str) -> None:
        tenant, self.at = self.tenant_named(whose), self.begin("abandoned a rotation")
        switched = tenant.rotation and any(
            it.pair == tenant.rotation.new for it in self.model.live(tenant)
        )
        undoes = tenant.rotation and by == "owner" and not tenant.rotation.by_bound
        expect = (
            404
            if tenant.rotation is None
            else 204
            if tenant.is_open and not switched and not undoes
            else 409
        )
        path = "/external-id/rotation"
        if (
            self.do(app, by, tenant, ("DELETE", path, None), "tenants:write", expect=expect)
            is not None
        ):
            proofs.abandon(tenant)

    # Time

    @rule(
        by=st.sampled_from(
            [
                {"seconds": 90},
                {"minutes": 3},
                {"minutes": 12},
                {"minutes": 50},
                *[{"hours": 26}] * 4,
            ]
        )
    )
    def time_passes(self, by: dict[str, int]) -> None:
        """And no background worker is there."""
        self.begin("time passed")
        self.clock.shift(timedelta(**by))
        for tenant in self.model.tenants:
            self._ask_at_once(0, tenant)

    def _ask_at_once(self, app: int, tenant: Tenant) -> None:
        """Ask for a connection that is verified, before anything proves it."""
        connection = next(self.model.verified(tenant), None)
        if connection is not None:
            self._begin("asked at once")
            self.ask(app, self.vendor, tenant, connection)
            self._look()
            self.handed_out = []

    @rule(by=st.sampled_from([{"seconds": 1}, {"minutes": 3}, {"minutes": 75}]))
    def a_background_worker_comes_back(self, by: dict[str, int]) -> None:
        self.clock.shift(timedelta(**by))
        self.at = self.begin("worked")
        for connection_id, why in self.stage.work():
            if not connection_id:
                for tenant in self.model.tenants:
                    if tenant.status != ENDED and tenant.rotates:
                        proofs.settle(self.model, tenant, self.at)
                continue
            connection = next(it for it in self.model.connections if it.id == connection_id)
            pair = connection.pair
            if connection.tenant.status == ACTIVE and not self.is_kept_out(connection):
                proofs.prove(self.model, connection, self.at, self.mark, routine=why in _ROUTINE)
            connection.tried_at = self.at
            self.seen[f"proven {why}"] += 1
            self.seen["switched"] += connection.pair != pair
        for connection in self.model.live():
            if connection.status == VERIFIED and connection.tenant.status == ACTIVE:
                assert connection.tried_at is not None
                assert connection.tried_at > self.at - _A_TURN, "not proven for longer than a turn"
