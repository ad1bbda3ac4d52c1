"""Import customers whose roles have External IDs of another system of the vendor.

Only the operator imports. Only an import adds an External ID that Deputy did not make.

Each tenant also gets Deputy's own External ID, which is `current` at once. The imported External ID
has the state `imported`, and only the connections that the file names use it. Proofs decide as
usual whether a connection issues, and when it switches to Deputy's External ID
(app/rotation/switch.py).

If an External ID can't be used, the connection gets Deputy's instead. Nothing is issued for the
connection until its role accepts it.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.approvals.approvals import SetRequests
from app.audit import actions
from app.audit.details import ImportedConnection
from app.config import Config
from app.connections import allowed_roles
from app.connections.connections import add_pending, to_role
from app.errors import AppError, ConflictError, StoreUnavailableError, ValidationFailedError
from app.identity import OperatorPrincipal, live_links, tenant_of
from app.ids import EXTERNAL_ID_MAX, EXTERNAL_ID_PREFIX, IMPORTED_EXTERNAL_ID, RoleArn
from app.imports.import_file import FileSummary, ImportRow
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.settings.valid_values import is_line
from app.store.database import Database, Session
from app.store.models import (
    Connection,
    ConnectionStatus,
    ExternalIdOrigin,
    ExternalIdRow,
    ExternalIdState,
    Tenant,
    TenantStatus,
)
from app.store.models.tenant import NAME_MAX
from app.tenants.tenants import add_tenant

_USED = "Its External ID is another customer's, or was retired or withdrawn."
_SHARED = "Its External ID is another customer's too."
_WAITS = (
    "It issues nothing until `connections approve`: see that the account is this customer's. An"
    " import with --yes-accounts says that you know it."
)
_NAMED = 3  # the most lines or tenants that a report names
_NEEDS_LINK = "It gets a new one, and a link; nothing is issued until its role accepts it."


class RowOutcome(enum.StrEnum):
    """The outcome of an import for one row. `known`: its connection existed already."""

    IMPORTED = "imported"
    NEW_ID = "new-id"
    KNOWN = "known"
    REFUSED = "refused"


class RowReport(NamedTuple):
    """The report for a row.

    `status`: the connection's. `is_imported`: whether the connection has an imported External ID.
    """

    line: int
    reference: str
    outcome: RowOutcome
    status: ConnectionStatus | None
    detail: str
    is_imported: bool = False


class CustomerReport(NamedTuple):
    """The reports for one customer's rows.

    `needs_link`: the tenant's id and a permission set, if an onboarding link must be created. It is
    needed if a role has to accept a new External ID, and the tenant has no live link.
    """

    rows: list[RowReport]
    needs_link: tuple[UUID, str] | None = None


class _CheckedRow(NamedTuple):
    """A row that can be imported.

    `unusable`: why its External ID can't be used, or empty. `account_lines`: lines of other
    customers with a role in its account.
    """

    row: ImportRow
    role: RoleArn
    permission_set: PermissionSet
    unusable: str
    account_lines: list[int]


@dataclass
class Imports:
    """Imports customers. Each customer's rows are imported in one transaction, all or none."""

    _db: Database
    _config: Config
    _sets: PermissionSets

    def add(
        self,
        operator: OperatorPrincipal,
        rows: Sequence[ImportRow],
        summary: FileSummary,
        *,
        accounts_known: bool,
        dry_run: bool,
    ) -> CustomerReport:
        """Import the rows of one customer, and report on each. `dry_run`: change nothing.

        `accounts_known`: the operator knows that each account is that customer's. Otherwise a
        connection awaits approval if its permission set writes, or another customer claims its
        account. A row whose connection exists already is only reported. Raises
        StoreUnavailableError.
        """
        checked, refused = list[_CheckedRow](), dict[int, str]()
        for row in rows:
            try:
                checked.append(self._check(row, rows[0], summary))
            except AppError as error:
                refused[row.line] = _words(error)
        if not refused:
            customer = _Customer(operator, self._config, checked, accounts_known)
            try:
                with self._db.write(operator) as db:
                    report = customer.add(db)
                    if dry_run:
                        db.rollback()
            except StoreUnavailableError:
                raise
            except AppError as error:
                refused[customer.line] = _words(error)
            else:
                return report
        return CustomerReport(_refusals(rows, refused))

    def _check(self, row: ImportRow, first: ImportRow, summary: FileSummary) -> _CheckedRow:
        """Check what a row says, without the database. Raises AppError."""
        if row.problem:
            raise ValidationFailedError(row=row.problem)
        if problems := _problems(row, first, summary):
            raise ValidationFailedError(**problems)
        role = allowed_roles.allowed_role(self._config, row.role_arn, imported=True)
        permission_set = self._sets.choose(row.permission_set or None)
        unusable = _why_unusable(row, summary)
        return _CheckedRow(row, role, permission_set, unusable, summary.lines_of_account(row))


def _refusals(rows: Sequence[ImportRow], refused: dict[int, str]) -> list[RowReport]:
    """Return a refusal for each row of a customer. `refused`: the reasons, by line."""
    others = f"Line {min(refused)} of this customer is refused."
    reports = []
    for row in rows:
        detail = refused.get(row.line, others)
        reports.append(RowReport(row.line, row.reference, RowOutcome.REFUSED, None, detail))
    return reports


def _problems(row: ImportRow, first: ImportRow, summary: FileSummary) -> dict[str, str]:
    """Return what is wrong with a row's texts, by column."""
    problems = {}
    for column in ("reference", "name"):
        text = getattr(row, column)
        if len(text) > NAME_MAX or not is_line(text):
            problems[column] = f"Must be one line of 1 to {NAME_MAX} printable characters."
    if row.name != first.name:
        problems["name"] = f"Line {first.line} gives this customer another name."
    if summary.is_scattered(row.reference):
        problems["reference"] = "Rows of other customers stand between the rows of this one."
    elif summary.is_beside_unknown(row.reference):
        beside = "A row without one is beside it, and may be this customer's."
        problems.setdefault("reference", beside)
    if row.external_id and not IMPORTED_EXTERNAL_ID.fullmatch(row.external_id):
        problems["external_id"] = (
            f"Must be 2 to {EXTERNAL_ID_MAX} letters, digits or any of _+=,.@:/-, as in AWS."
        )
    if lines := summary.lines_of_role(row):
        problems["role_arn"] = (
            f"Line {_listed(lines)} names the same role for another customer, and it is one role."
            " Find out whose it is."
        )
    return problems


def _listed(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines[:_NAMED])) + (", …" if len(lines) > _NAMED else "")


def _why_unusable(row: ImportRow, summary: FileSummary) -> str:
    """Return why the External ID in the file can't be used, or an empty text."""
    if not row.external_id:
        return "It has no External ID."
    if row.external_id.lower().startswith(EXTERNAL_ID_PREFIX):
        return f"External IDs that begin with {EXTERNAL_ID_PREFIX} are Deputy's own."
    return _SHARED if summary.is_shared(row.external_id) else ""


def _words(error: AppError) -> str:
    """Return the error's messages on one line."""
    problems = [f"{field}: {' '.join(texts)}" for field, texts in error.errors.items()]
    return " ".join(problems) or error.detail


@dataclass
class _Customer:
    """One customer's rows, in the order of the file. `line`: the row that is being imported."""

    operator: OperatorPrincipal
    config: Config
    rows: Sequence[_CheckedRow]
    accounts_known: bool
    line: int = 0

    def add(self, db: Session) -> CustomerReport:
        """Import all rows. Raises AppError about the row at `line`."""
        self.line = self.rows[0].row.line
        tenant = self._tenant(db)
        reports, renewed = list[RowReport](), list[Connection]()
        for checked in self.rows:
            self.line = checked.row.line
            outcome, connection, detail = self._import(db, tenant, checked)
            status = connection.status if connection else None
            is_imported = bool(connection and connection.imported_id)
            row = checked.row
            reports.append(RowReport(row.line, row.reference, outcome, status, detail, is_imported))
            if connection and _needs_new_id(connection):
                renewed.append(connection)
        # A suspended tenant gets no link. Its live links can't be opened, and are not found.
        is_active = tenant.status is TenantStatus.ACTIVE
        links = live_links().where(Tenant.id == tenant.id).limit(1)
        if renewed and is_active and not db.scalars(links).first():
            return CustomerReport(reports, (tenant.id, renewed[0].permission_set))
        return CustomerReport(reports)

    def _tenant(self, db: Session) -> Tenant:
        """Lock the tenant with this reference, or create it. Raises ConflictError."""
        first = self.rows[0].row
        live = select(Tenant.id).filter_by(reference=first.reference, deleted_at=None)
        tenant_id = db.scalar(live)
        if tenant_id is None:
            self._ensure_not_deleted(db, first.reference)
            return add_tenant(db, self.operator, name=first.name, reference=first.reference)
        tenant = tenant_of(db, self.operator, tenant_id, lock=True)
        if tenant.reference != first.reference:  # it was changed before the lock
            raise ConflictError("Its tenant's reference was changed meanwhile; import again.")
        return tenant

    def _ensure_not_deleted(self, db: Session, reference: str) -> None:
        """Raise ConflictError if these rows were imported before, and their tenant was deleted."""
        values = [checked.row.external_id for checked in self.rows]
        deleted = select(Tenant.id).join(ExternalIdRow, ExternalIdRow.tenant_id == Tenant.id)
        deleted = deleted.where(Tenant.reference == reference, ExternalIdRow.value.in_(values))
        if db.scalar(deleted.limit(1)) is not None:
            raise ConflictError(
                "This customer was deleted in Deputy. To begin anew, leave its external_id empty."
            )

    def _import(
        self, db: Session, tenant: Tenant, checked: _CheckedRow
    ) -> tuple[RowOutcome, Connection | None, str]:
        """Import a row. Return the outcome, the connection, and a sentence for the report."""
        existing = db.scalars(to_role(tenant.id, checked.role)).unique().one_or_none()
        if existing is not None:
            if existing.status is ConnectionStatus.DELETED:
                return RowOutcome.KNOWN, None, "Its connection was deleted."
            return RowOutcome.KNOWN, existing, _progress(existing, checked.row)
        tenant.ensure_active()
        claims = _claims_of_account(db, tenant, checked)
        imported, unusable = None, checked.unusable
        if not unusable:
            _ensure_no_emergency(db, tenant.id)
            imported = _imported_id(db, tenant.id, checked.row.external_id)
            unusable = "" if imported else _USED
        actor = self.operator.actor
        connection = add_pending(
            db,
            self.config,
            actor,
            tenant,
            checked.role,
            permission_set=checked.permission_set,
            approved=True,
        )
        if imported:
            connection.external_id_id = imported.id
        waits = self._why_it_waits(tenant, checked, claims)
        if waits:
            SetRequests(db, actor, connection).require_approval()
        db.flush()
        db.refresh(connection)
        details: ImportedConnection = {
            "role_arn": checked.role.text,
            "external_id": connection.external_id,
        }
        actions.CONNECTION_IMPORTED.record_about(db, actor, connection, details)
        if imported:
            return RowOutcome.IMPORTED, connection, waits
        return RowOutcome.NEW_ID, connection, f"{unusable} {_NEEDS_LINK} {waits}".rstrip()

    def _why_it_waits(self, tenant: Tenant, checked: _CheckedRow, claims: list[str]) -> str:
        """Return why the connection awaits approval, or an empty text."""
        if self.accounts_known or tenant.declares_accounts:
            return ""
        if claims:
            account = checked.role.account_id
            return f"Account {account} is also in {', '.join(claims)}. {_WAITS}"
        return (
            f"Its permission set writes. {_WAITS}"
            if checked.permission_set.access == "write"
            else ""
        )


def _claims_of_account(db: Session, tenant: Tenant, checked: _CheckedRow) -> list[str]:
    """Return which other customers have a role in this row's account.

    Raises ConflictError if another tenant has this very role.
    """
    role = checked.role
    theirs = select(Tenant.id, Tenant.reference, Tenant.name, Connection.role_arn).join(
        Connection, Connection.tenant_id == Tenant.id
    )
    theirs = theirs.where(
        Connection.account_id == role.account_id,
        Connection.status != ConnectionStatus.DELETED,
        Tenant.id != tenant.id,
    )
    claims = [f"line {_listed(checked.account_lines)}"] if checked.account_lines else []
    for tenant_id, reference, name, role_arn in db.execute(theirs):
        other = f"tenant {reference or name} ({tenant_id})"
        # An account has one role of a name, whatever its path and the case of its letters
        if RoleArn.parse(role_arn).name.lower() == role.name.lower():
            raise ConflictError(
                f"This role is already in {other}, and it is one role. Find out whose it is. If it"
                " is the same customer, was that tenant's reference changed?"
            )
        claims.append(other)
    return [*dict.fromkeys(claims)][:_NAMED]


def _ensure_no_emergency(db: Session, tenant_id: UUID) -> None:
    """Raise ConflictError while an emergency has withdrawn the tenant's External IDs.

    Otherwise credentials would be issued with an imported External ID meanwhile.
    """
    current = select(ExternalIdRow).filter_by(tenant_id=tenant_id, state=ExternalIdState.CURRENT)
    if db.scalars(current).one().is_withdrawn:
        raise ConflictError("An emergency rotation is open: its External IDs are withdrawn.")


def _imported_id(db: Session, tenant_id: UUID, value: str) -> ExternalIdRow | None:
    """Return the row of the tenant's imported External ID, and add it if it is new.

    Return None if the External ID is another tenant's, withdrawn or retired. Raises ConflictError
    if another import added it a moment ago.
    """
    row = db.scalars(select(ExternalIdRow).filter_by(value=value)).one_or_none()
    if row is not None:
        is_own = row.tenant_id == tenant_id and row.state is ExternalIdState.IMPORTED
        return row if is_own and not row.is_withdrawn else None
    row = ExternalIdRow(tenant_id=tenant_id, value=value, state=ExternalIdState.IMPORTED)
    db.add(row)
    try:
        db.flush()
    except IntegrityError as error:
        raise ConflictError("Its External ID was added meanwhile; import again.") from error
    return row


def _needs_new_id(connection: Connection) -> bool:
    """Return whether the role has to accept an External ID of Deputy's before its first proof."""
    is_ours = connection.external_id_row.origin is ExternalIdOrigin.DEPUTY
    return is_ours and connection.verified_at is None


def _progress(connection: Connection, row: ImportRow) -> str:
    """Return which External ID the connection has, and why it does not issue, if it does not."""
    with_id = "It has an External ID of Deputy's."
    if connection.imported_id:
        is_same = connection.imported_id == row.external_id
        with_id = f"It has {'the' if is_same else 'another'} imported External ID."
    why = (connection.why or "").replace("see verification", "`connections diagnose` says why")
    return f"{with_id} {why}".strip()
