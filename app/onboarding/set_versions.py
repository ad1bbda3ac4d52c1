"""The versions of permission sets: publishing records each, and nothing else changes what was published."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select

from app.clock import now
from app.errors import ConflictError, NotFoundError, ValidationFailedError
from app.permissions.difference import Difference, difference
from app.permissions.permission_sets import PermissionSet, PermissionSets, read_label
from app.store.database import SYSTEM, Database, Session
from app.store.models import PermissionSetVersion


class SetVersions:
    """Records and compares what was asked for."""

    def __init__(self, db: Database, sets: PermissionSets) -> None:
        self._db = db
        self._sets = sets
        self._managed: tuple[int, frozenset[str]] = (0, frozenset())  # for this number of published versions

    def ensure_raised(self) -> None:
        """Raises ConflictError, with a line for each set that goes against what was published under its name."""
        with self._db.read() as db:
            refused = [said for chosen in self._sets.values() if (said := _refusal(db, chosen))]
        if refused:
            raise ConflictError("\n".join(refused))

    def record(self) -> None:
        """Every set as it was just published."""
        with self._db.write(SYSTEM) as db:
            for chosen in self._sets.values():
                row = db.get(PermissionSetVersion, (chosen.name, chosen.version))
                if row is None:
                    row = PermissionSetVersion(name=chosen.name, version=chosen.version, published_at=now())
                    db.add(row)
                row.content = asdict(chosen)

    def managed_policies(self) -> frozenset[str]:
        """Return the names of AWS's policies that any published version of any set asked for.

        Versions are never deleted, and publishing refuses to change what one asks for. So their number shows whether
        there are new ones.
        """
        count, names = self._managed
        with self._db.read() as db:
            published = db.scalar(select(func.count()).select_from(PermissionSetVersion)) or 0
            if published != count:
                lists = db.scalars(select(PermissionSetVersion.content["managed_policies"]))
                names = frozenset(policy["name"] for policies in lists for policy in policies)
                self._managed = published, names
        return names

    def list(self, name: str) -> list[PermissionSetVersion]:
        """What was published under the name, newest first. Raises NotFoundError for a name that was never a set's."""
        if read_label(f"{name}@1") is None:  # PostgreSQL refuses some characters as text
            raise NotFoundError
        query = select(PermissionSetVersion).where(PermissionSetVersion.name == name)
        with self._db.read() as db:
            found = list(db.scalars(query.order_by(PermissionSetVersion.version.desc())))
        if not found and name not in self._sets:
            raise NotFoundError
        return found

    def difference(self, name: str, before: int, after: int) -> Difference:
        """Raises NotFoundError as `list`, and ValidationFailedError for a version that was not published."""
        published = {row.version: row for row in self.list(name)}
        wanted = {"from": before, "to": after}
        known = ", ".join(map(str, sorted(published)))
        said = f"Must be one of: {known}." if known else "Nothing was published yet."
        if absent := {field: [said] for field, version in wanted.items() if version not in published}:
            raise ValidationFailedError(absent)
        return difference(_set_of(published[before]), _set_of(published[after]))

    def of(self, name: str, version: int | None) -> PermissionSet | None:
        """The set as it was published, else as it is now; None if there is neither."""
        now_asked = self._sets.get(name)
        if version is None or (now_asked and now_asked.version == version):
            return now_asked
        with self._db.read() as db:
            row = db.get(PermissionSetVersion, (name, version))
        return now_asked if row is None else _set_of(row)


def _refusal(db: Session, chosen: PermissionSet) -> str | None:
    rows = db.scalars(select(PermissionSetVersion).where(PermissionSetVersion.name == chosen.name)).all()
    published = {row.version: row for row in rows}
    if chosen.access == "write" and (reading := [row.version for row in rows if row.content["access"] == "read"]):
        return (
            f"{chosen.name}: access: Version {max(reading)} was published with access: read. The vendor's approval, and"
            " keys that are limited to some sets, rely on that word. Give the file of the set that writes another name,"
            " and ask for it with PATCH …/connections/{c}."
        )
    latest, same = max(published, default=0), published.get(chosen.version)
    if same is not None and any(difference(_set_of(same), chosen).words()):
        found = f"What it asks for has changed since version {chosen.version} was published."
    elif same is None and chosen.version < latest:
        found = f"Version {latest} was published already."
    else:
        return None
    return f"{chosen.name}: version: {found} Raise version to {latest + 1}."


def _set_of(row: PermissionSetVersion) -> PermissionSet:
    lists = {key: tuple(value) for key, value in row.content.items() if isinstance(value, list)}
    content: dict[str, Any] = row.content | lists
    return PermissionSet(**content)
