"""The versions of permission sets, which Deputy records when they are published.

Nothing but publishing changes the record. It holds what this configuration renders. The bucket's
content is only compared with that, and never stored.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from app.audit import WORKER, actions
from app.clock import now
from app.errors import NotFoundError, ValidationFailedError
from app.log import logger
from app.permissions.difference import Difference, difference
from app.permissions.permission_sets import PermissionSet, PermissionSets, read_label
from app.permissions.set_fields import VERSION_MAX
from app.store.database import SYSTEM, Database, Session
from app.store.models import PermissionSetVersion

_PLACE = "The database"


class SetVersions:
    """The record of published versions, and its comparisons."""

    def __init__(self, db: Database, sets: PermissionSets) -> None:
        self._db = db
        self._sets = sets
        # The number of published versions, and the names of AWS's policies that they ask for
        self._managed: tuple[int, frozenset[str]] = (0, frozenset())
        self._refused: set[str] = set()  # names whose refusal this process has logged

    def refusals(self) -> dict[str, str]:
        """Return, by the set's name, the reason why its version can't be recorded.

        Sets without a conflict with earlier versions are left out.
        """
        refusals, _ = self._compare()
        return refusals

    def _compare(self) -> tuple[dict[str, str], list[PermissionSet]]:
        """Return the refusals, and the sets that are to be recorded."""
        refusals: dict[str, str] = {}
        missing: list[PermissionSet] = []
        with self._db.read() as db:
            for name, chosen in self._sets.items():
                versions = _versions(db, name)
                if sentence := refusal(chosen, versions, _PLACE):
                    refusals[name] = sentence
                elif versions.get(chosen.version) != replace(chosen, administrator=False):
                    missing.append(chosen)
        return refusals, missing

    def record_published(self, serves: Callable[[str], bool]) -> bool:
        """Record the version of each set that is published. Return whether none is left to record.

        `serves`: whether the bucket has exactly what this configuration renders for the set. Raises
        StoreUnavailableError.
        """
        refusals, missing = self._compare()
        for name in refusals.keys() - self._refused:
            logger.error("permission_set.not_recorded", permission_set=name, detail=refusals[name])
        self._refused |= refusals.keys()
        published = [chosen for chosen in missing if serves(chosen.name)]
        for chosen in published:
            with suppress(IntegrityError):  # another background worker recorded it just now
                self._record(chosen)
        return published == missing

    def _record(self, chosen: PermissionSet) -> None:
        """Store a new version and its event. An existing version only gets new descriptions."""
        with self._db.write(SYSTEM) as db:
            if refusal(chosen, _versions(db, chosen.name), _PLACE):
                return
            row = db.get(PermissionSetVersion, (chosen.name, chosen.version))
            if row is None:
                row = PermissionSetVersion(
                    name=chosen.name, version=chosen.version, published_at=now()
                )
                db.add(row)
                actions.PERMISSION_SET_PUBLISHED.record(
                    db,
                    WORKER,
                    {
                        "permission_set": chosen.name,
                        "permission_set_version": chosen.version,
                        "access": chosen.access,
                    },
                )
            row.content = _content(chosen)

    def managed_policies(self) -> frozenset[str]:
        """Return the names of AWS's policies that any published version of any set asked for.

        Versions are never deleted, and publishing refuses to change their policies. So the policies
        are read again only when the number of versions has changed.
        """
        count, names = self._managed
        with self._db.read() as db:
            published = db.scalar(select(func.count()).select_from(PermissionSetVersion)) or 0
            if published != count:
                lists = db.scalars(select(PermissionSetVersion.content["managed_policies"]))
                names = frozenset(policy["name"] for policy in chain.from_iterable(lists))
                self._managed = published, names
        return names

    def list(self, name: str) -> list[PermissionSetVersion]:
        """Return the published versions of the name, newest first.

        Raises NotFoundError if no set ever had the name.
        """
        # PostgreSQL refuses some characters as text
        if read_label(f"{name}@1") is None:
            raise NotFoundError
        query = select(PermissionSetVersion).where(PermissionSetVersion.name == name)
        with self._db.read() as db:
            rows = list(db.scalars(query.order_by(PermissionSetVersion.version.desc())))
        if not rows and name not in self._sets:
            raise NotFoundError
        return rows

    def difference(self, name: str, before: int, after: int) -> Difference:
        """Return the difference between two published versions.

        Raises NotFoundError as `list` does, and ValidationFailedError for a version that was not
        published.
        """
        published = {row.version: row for row in self.list(name)}
        message = "Nothing was published yet."
        if published:
            message = f"Must be one of: {', '.join(map(str, sorted(published)))}."
        errors = {}
        for field, version in (("from", before), ("to", after)):
            if version not in published:
                errors[field] = [message]
        if errors:
            raise ValidationFailedError(errors)
        return difference(_set_of(published[before]), _set_of(published[after]))

    def of(self, name: str, version: int | None) -> PermissionSet | None:
        """Return the set as published, or else the current one; None if there is neither."""
        current = self._sets.get(name)
        if version is None or (current and current.version == version):
            return current
        with self._db.read() as db:
            row = db.get(PermissionSetVersion, (name, version))
        if row is None:
            return current
        return _set_of(row)


def _content(chosen: PermissionSet) -> dict[str, Any]:
    """Return the stored content of a version.

    `administrator` is left out: the previous release can't read it, and it does not change what the
    version asks for.
    """
    content = asdict(chosen)
    del content["administrator"]
    return content


def refusal(chosen: PermissionSet, versions: Mapping[int, PermissionSet], place: str) -> str | None:
    """Return why the set can't be published under its version; None if it can.

    `versions`: the published ones. `place`: what has these versions, as the subject of a sentence.
    """
    reading = [version for version, published in versions.items() if published.access == "read"]
    if chosen.access == "write" and reading:
        return (
            f"{chosen.name}: access: {place} has version {max(reading)} with access: read. The"
            " vendor's approval, and keys that are limited to some sets, rely on that word. Give"
            " the file of the set that writes another name, and ask for it with PATCH"
            " …/connections/{c}."
        )
    latest, same = max(versions, default=0), versions.get(chosen.version)
    if same is not None and same.document() != chosen.document():
        sentence = f"{place} has version {chosen.version}, which asks for something else."
    elif same is None and chosen.version < latest:
        sentence = f"{place} has version {latest} already."
    else:
        return None
    way_out = f"Raise version to {latest + 1}."
    if latest >= VERSION_MAX:
        way_out = "Give the file of the set another name."
    return f"{chosen.name}: version: {sentence} {way_out}"


def _versions(db: Session, name: str) -> dict[int, PermissionSet]:
    rows = db.scalars(select(PermissionSetVersion).where(PermissionSetVersion.name == name))
    return {row.version: _set_of(row) for row in rows}


def _set_of(row: PermissionSetVersion) -> PermissionSet:
    content: dict[str, Any] = dict(row.content)
    for field in ("statements", "managed_policies", "parameters"):
        content[field] = tuple(content.get(field, ()))
    return PermissionSet(**content)
