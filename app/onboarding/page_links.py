"""Onboarding links: URLs that show one tenant's onboarding page to a customer's administrator.

The administrator has no account. The token in the URL is 256 random bits, and alone authorizes a
request. The database stores only its SHA-256, so a copy of the database opens no page.

A link sees one tenant. It can add roles, ask for proofs, and end a search that found nothing. Every
link that does not work gets the same 404, whether it is malformed, unknown, expired or revoked, or
its tenant is suspended or deleted. For some weeks after the deletion of a tenant, its links list
what to delete in the customer's account.
"""

import re
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from cachetools import LRUCache
from sqlalchemy import Row, Select, bindparam, func, select, update

from app.audit import actions
from app.clock import now
from app.config import Config
from app.connections import allowed_roles, connections
from app.connections.kit_names import KitNames, is_named_by_kit, names_of, new_names
from app.errors import ConflictError, NotFoundError, RoleNotAllowedError, ValidationFailedError
from app.identity import (
    LinkPrincipal,
    Maker,
    Principal,
    digest_of,
    ensure_room,
    live_links,
    one_or_not_found,
    owned,
    tenant_of,
)
from app.identity.family_revocation import Ending, Making
from app.ids import ACCOUNT_ID, RoleArn
from app.limits.counting_in_memory import Rates
from app.limits.limits import LINKS, UNKNOWN_LINKS
from app.limits.tenant_share import TenantShare
from app.onboarding.kit import Onboarding
from app.proofs import verification
from app.settings import return_urls
from app.settings.valid_values import DAY
from app.store.database import Database, Session, until_committed
from app.store.keyset import Page, page
from app.store.models import (
    Connection,
    ConnectionStatus,
    LinkStatus,
    OnboardingLink,
    Tenant,
    TenantStatus,
    Trigger,
    live_of,
)

LINK_DAYS = 30  # customers' IAM teams take weeks
LINK_DAYS_MAX = 90
LINK_SECONDS_MIN = 60
CONNECTIONS_SHOWN = 100  # most connections of a link in an answer
_LEFTOVERS_SHOWN = timedelta(days=30)
_ROLES_READ = 1_000  # maximum of a deleted tenant's roles that name its leftovers

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_LINKS = 10_000  # most links in a process's memory
# Built once, for speed. Anybody may send any number of requests with made-up tokens, so the first
# look-up is as cheap as possible.
_BY_DIGEST = select(OnboardingLink).where(OnboardingLink.digest == bindparam("digest"))
_BY_ID = select(OnboardingLink, Tenant).join(Tenant).where(OnboardingLink.id == bindparam("id"))


class Visit(NamedTuple):
    """An opened link, with the principal that its page acts as."""

    principal: LinkPrincipal
    tenant: Tenant
    link: OnboardingLink


class Leftovers(NamedTuple):
    """The stacks and roles that a deleted tenant's customer may still have in AWS accounts.

    `kit`: the names of the roles that the kit made, with the default names of their stacks.
    `own_names`: the names of other roles.
    """

    tenant_name: str
    kit: tuple[KitNames, ...]
    own_names: tuple[str, ...]
    region: str  # preselected on the page


@dataclass(eq=False)
class Links:
    """The service that creates, lists, revokes and opens links, and acts for their pages."""

    _db: Database
    _onboarding: Onboarding
    _connections: connections.Connections
    _verification: verification.Verification
    _config: Config
    _rates: Rates
    _share: TenantShare
    # Maps a link's digest to the id of the link, and to its tenant's id unless it opens no page. A
    # request counts for both ids. So requests beyond the limit are refused without the database.
    _ids: LRUCache[bytes, tuple[UUID, UUID | None]] = field(
        default_factory=lambda: LRUCache(_LINKS)
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)  # protects _ids

    def create(
        self,
        principal: Maker,
        tenant_id: UUID,
        *,
        permission_set: str | None = None,
        region: str | None = None,
        expires_in: int = LINK_DAYS * DAY,
        return_url: str | None = None,
    ) -> tuple[OnboardingLink, str]:
        """Create a link. Return it with its URL, which is not stored. `expires_in`: seconds.

        Raises NotFoundError, SuspendedError, RateLimitedError when the tenant has TENANT_LINKS live
        links, and ValidationFailedError for an unknown permission set or region, or a return URL
        that is not allowed.
        """
        # The page will show this kit. If it can't be built, the vendor gets the error here.
        kit = self._onboarding.kit(
            principal, tenant_id, region=region, permission_set=permission_set
        )
        token = secrets.token_urlsafe(32)
        with self._db.write(Making(principal)) as db:
            tenant_of(db, principal, tenant_id, lock=True).ensure_active()
            live = live_links().where(Tenant.id == tenant_id)
            count = live.with_only_columns(func.count())
            ensure_room(db, count, LINKS.with_setting(self._config))
            link = OnboardingLink(
                tenant_id=tenant_id,
                digest=digest_of(token),
                permission_set=kit.permission_set,
                region=kit.region,
                made_by=principal.key_id,
                expires_at=now() + timedelta(seconds=expires_in),
                return_url=self._allowed(return_url),
            )
            db.add(link)
            db.flush()
            actions.LINK_CREATED.record(
                db,
                principal.actor,
                {
                    "onboarding_link_id": str(link.id),
                    "permission_set": link.permission_set,
                    "expires_at": link.expires_at.isoformat(),
                },
                tenant_id=tenant_id,
            )
            return link, f"{self._config.service.public_url}/onboard/{token}"

    def _allowed(self, return_url: str | None) -> str | None:
        try:
            if return_url is not None:
                return_urls.allowed(return_url, self._config.vendor.return_urls)
        except ValueError as error:
            reason = str(error)
            raise ValidationFailedError(return_url=f"{reason[0].upper()}{reason[1:]}") from error
        return return_url

    def list(
        self, principal: Principal, tenant_id: UUID, *, limit: int, after: UUID | None
    ) -> Page[OnboardingLink]:
        """Return one tenant's links, newest first, including expired and revoked ones.

        Raises NotFoundError.
        """
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            query = select(OnboardingLink).where(OnboardingLink.tenant_id == tenant_id)
            return page(db, query, OnboardingLink.id, limit=limit, after=after)

    def get(self, principal: Principal, tenant_id: UUID, link_id: UUID) -> OnboardingLink:
        """Return a link with its status, and the newest connections that were added through it.

        Raises NotFoundError.
        """
        with self._db.read() as db:
            tenant_of(db, principal, tenant_id)
            query = select(OnboardingLink).filter_by(tenant_id=tenant_id, id=link_id)
            link = one_or_not_found(db, query)
            columns = Connection.id, Connection.role_arn, Connection.account_id, Connection.status
            newest = _of_link(link).order_by(Connection.id.desc()).limit(CONNECTIONS_SHOWN)
            link.connections = db.execute(newest.with_only_columns(*columns)).all()
            link.status = _status_of(link, connected=_is_connected(db, link))
            return link

    @until_committed
    def revoke(self, principal: Maker, tenant_id: UUID, link_id: UUID) -> None:
        """Revoke a link. Once this has committed, its page is gone.

        Raises NotFoundError, also for a link that is already revoked.
        """
        query = select(OnboardingLink).where(
            OnboardingLink.tenant_id == tenant_id,
            OnboardingLink.id == link_id,
            OnboardingLink.revoked_at.is_(None),
        )
        with self._db.read() as db:  # a link that does not exist must not wait for the lock
            tenant_of(db, principal, tenant_id)
            one_or_not_found(db, query)
        with self._db.write(
            Ending(principal, query.with_only_columns(OnboardingLink.tenant_id))
        ) as db:
            tenant_of(db, principal, tenant_id)
            link = one_or_not_found(db, query)
            link.revoked_at = now()
            actions.LINK_REVOKED.record(
                db, principal.actor, {"onboarding_link_id": str(link.id)}, tenant_id=tenant_id
            )

    # The rest is what the page of a link does.

    def open(self, token: str, request_id: str | None, client_address: str | None = None) -> Visit:
        """Open the page of a link, and count the request.

        A request with a revoked or expired link counts only for the link, even the first request.
        Raises RateLimitedError, also if too many unknown tokens are looked up at once, and the same
        NotFoundError for every reason why a link does not work.
        """
        if not _TOKEN.fullmatch(token):
            raise NotFoundError
        # A look-up by digest takes a time that reveals nothing about the token
        digest = digest_of(token)
        with self._lock:
            ids = self._ids.get(digest)
        if ids is None:
            with self._share.looking_up(UNKNOWN_LINKS), self._db.read() as db:
                row = db.scalar(_BY_DIGEST, {"digest": digest})
            if row is None:
                raise NotFoundError
            ids = row.id, row.tenant_id if _is_live(row) else None
        self._rates.acquire_page(*ids)
        link, tenant = self._read(ids[0])
        opens = _is_live(link) and tenant.status is TenantStatus.ACTIVE
        with self._lock:
            self._ids[digest] = link.id, tenant.id if opens else None
        if not opens:
            raise NotFoundError
        return Visit(LinkPrincipal(tenant.id, link.id, request_id, client_address), tenant, link)

    def note_form(self, visit: Visit) -> None:
        """Record that the link was opened, when its page sends its first form.

        Raises NotFoundError if the link stopped working meanwhile.
        """
        if visit.link.opened_at is None:
            first = update(OnboardingLink).filter_by(id=visit.link.id, opened_at=None)
            with self._db.write(visit.principal) as db:
                db.execute(first.values(opened_at=now()))

    def way_back(self, visit: Visit, *, connected: bool) -> str | None:
        """Return the address of the button that leads back to the vendor's product.

        `connected`: everything on the page is connected. Otherwise one connection that was added
        through this link is enough. Returns None before that, and if no entry of RETURN_URLS allows
        the link's return URL any more.
        """
        link = visit.link
        if link.return_url is None:
            return None
        try:
            url = return_urls.allowed(link.return_url, self._config.vendor.return_urls)
        except ValueError:
            return None
        if not connected:
            with self._db.read() as db:
                connected = _is_connected(db, link)
        return url.connected(link.id) if connected else None

    def _read(self, link_id: UUID) -> Row[OnboardingLink, Tenant]:
        with self._db.read() as db:
            return db.execute(_BY_ID, {"id": link_id}).unique().one()

    def leftovers(self, token: str) -> Leftovers | None:
        """Return the leftovers of a tenant that was deleted in the last 30 days.

        Returns None for any other link. Call it after `open` has refused the token.
        """
        with self._lock:
            ids = self._ids.get(digest_of(token))
        if ids is None:  # no link ever had this token
            return None
        link, tenant = self._read(ids[0])
        deleted_at, revoked_at = tenant.deleted_at, link.revoked_at
        if (
            deleted_at is None
            or deleted_at <= now() - _LEFTOVERS_SHOWN
            or link.expires_at <= deleted_at
            or (revoked_at and revoked_at < deleted_at)
        ):
            return None
        with self._db.read() as db:
            new = new_names(db, self._config, self._onboarding.sets, tenant.id, link.permission_set)
            roles = select(Connection.role_arn, Connection.permission_set).filter_by(
                tenant_id=tenant.id  # deleted ones count
            )
            newest = db.execute(roles.order_by(Connection.id.desc()).limit(_ROLES_READ)).all()
        kit, own_names, sets = set[KitNames](), set[str](), set[str]()
        for role_arn, permission_set in newest:
            if is_named_by_kit(self._config, tenant.id, role_arn):
                kit.add(names_of(self._config, tenant.id, role_arn, new))
                sets.add(permission_set)
            else:
                own_names.add(RoleArn.parse(role_arn).name)
        if link.permission_set not in sets:
            kit.add(new)  # a stack may not have registered its role
        return Leftovers(tenant.name, (*sorted(kit),), (*sorted(own_names),), link.region)

    def stop_looking(self, visit: Visit, connection_id: UUID) -> None:
        """End the search for a role of which only the account was given, and delete its row.

        The row leaves no tombstone, because a stack may still register the role. Raises
        NotFoundError. Raises ConflictError for any other connection: only the vendor removes those.
        """
        tenant_id = visit.tenant.id
        with self._db.write(visit.principal) as db:
            tenant_of(db, visit.principal, tenant_id, lock=True).ensure_active()
            connection = owned(db, visit.principal, tenant_id, connection_id, lock=True)
            proof = db.scalar(verification.latest_conclusive(connection.id))
            if proof or not connection.is_only_an_account:
                raise ConflictError(
                    "Deputy heard from this role. Ask the vendor that sent you the link to"
                    " remove it."
                )
            actions.CONNECTION_DELETED.record_about(
                db,
                visit.principal.actor,
                connection,
                {
                    "role_arn": connection.role_arn,
                    "was": connection.status,
                    "status": ConnectionStatus.DELETED,
                    "version": connection.version,
                },
            )
            db.delete(connection)

    def _role(self, role_arn: str) -> RoleArn:
        """Parse the ARN of a role that a customer entered.

        An imported role may be entered, to prove its connection again. `Connections.create` refuses
        a new connection to such a role.
        """
        with suppress(RoleNotAllowedError):
            return allowed_roles.allowed_role(self._config, role_arn, imported=True)
        return allowed_roles.allowed_role(self._config, role_arn)

    def connect(self, visit: Visit, text: str) -> Connection:
        """Return the tenant's connection to this role, with a fresh proof. Create it if necessary.

        `text`: the role's ARN, or an account id. An account id starts a search for the kit's role
        in that account. Raises ValidationFailedError for any other text. Also raises what
        Connections.create and Verification.verify raise.
        """
        principal, tenant_id = visit.principal, visit.tenant.id
        given, permission_set = {"role_arn": text}, visit.link.permission_set
        role_arn = text
        account_id = text.replace("-", "")  # AWS's console shows 1234-5678-9012
        if ACCOUNT_ID.fullmatch(account_id):
            given = {"account_id": account_id}
            role_arn = self._connections.kit_role_arn(tenant_id, account_id, permission_set)
        if not role_arn.startswith("arn:"):
            raise ValidationFailedError(role_arn="Enter a role ARN or a 12-digit account ID.")
        # Checked before the database, because PostgreSQL refuses some characters as text
        role = self._role(role_arn)
        with self._db.read() as db:
            query = connections.to_role(tenant_id, role).where(live_of(tenant_id))
            existing = db.scalars(query).one_or_none()
        if existing:
            return self._verification.verify(
                principal, tenant_id, existing.id, trigger=Trigger.REQUESTED
            )
        return self._connections.create(
            principal, tenant_id, permission_set=permission_set, **given
        )


def _is_live(link: OnboardingLink) -> bool:
    """Return whether the link has neither expired nor been revoked, as `live_links` decides."""
    return link.revoked_at is None and link.expires_at > now()


def _of_link(link: OnboardingLink) -> Select[Connection]:
    """Select the live connections that were added through the link's page or its stacks."""
    return select(Connection).where(
        live_of(link.tenant_id), Connection.onboarding_link_id == link.id
    )


def _is_connected(db: Session, link: OnboardingLink) -> bool:
    verified = _of_link(link).where(Connection.status == ConnectionStatus.VERIFIED)
    return db.scalar(verified.with_only_columns(Connection.id).limit(1)) is not None


def _status_of(link: OnboardingLink, *, connected: bool) -> LinkStatus:
    if link.revoked_at is not None:
        return LinkStatus.REVOKED
    if connected:
        return LinkStatus.CONNECTED
    return LinkStatus.OPEN if _is_live(link) else LinkStatus.EXPIRED
