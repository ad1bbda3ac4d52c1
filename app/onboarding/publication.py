"""The publication of permission sets, and the record of the versions that were published.

Publishing uploads two templates and a document of each permission set. It needs neither the
database nor the secret keys. Deputy itself records a version once the bucket serves all three as
Deputy's own configuration renders them. Nothing else changes the record. It holds what this
configuration renders: the bucket's content is only compared with that, and never stored.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from app.audit import actions
from app.aws import templates
from app.aws.errors import Unavailable
from app.aws.template_bucket import Published, Template, TemplateBucket
from app.config import TemplateConfig
from app.errors import ConflictError, NotFoundError, ValidationFailedError
from app.identity import WORKER
from app.log import logger
from app.permissions import permission_sets
from app.permissions.difference_in_words import Difference, difference
from app.permissions.permission_sets import PermissionSet, PermissionSets, read_document, read_label
from app.permissions.version_rules import version_refusal
from app.store.database import SYSTEM, Database, Session
from app.store.models import PermissionSetVersion

_PLACE = "The database"
_REPLACED = (
    "The bucket has other content than this release's under the addresses below, and customers"
    " would launch it. Do not release until you know who uploaded it, and it is removed."
)
_NOT_YOURS = (
    "If you never published a version that is named here, somebody else uploaded it:"
    " docs/runbooks.md says how an administrator of the vendor's account removes it. Or give the"
    " file of the set another name."
)
_IGNORED = (
    "The bucket has a document that Deputy did not write. It is ignored, but while it is there,"
    " this version can't be published. Find out who uploaded it (docs/runbooks.md)."
)


class Rendered(NamedTuple):
    """The templates and the document of one permission set, rendered with this configuration."""

    role: Template
    organization: Template
    document: Template


class Publication:
    """The templates and documents of this configuration.

    It renders them, publishes them, and compares the bucket with them.
    """

    def __init__(self, config: TemplateConfig) -> None:
        """Load the permission sets, and render everything once.

        The settings and the permission sets do not change while the process runs. Raises
        ConfigError for sets with mistakes.
        """
        folder, default = config.vendor.permission_sets, config.vendor.default_permission_set
        self.sets = permission_sets.load(folder, default, config.aws.role_prefix)
        self.bucket = TemplateBucket(config)
        self.rendered: dict[str, Rendered] = {}
        for name, chosen in self.sets.items():
            role = templates.render(config, chosen)
            organization = templates.render_organization(config, role, chosen)
            self.rendered[name] = Rendered(role, organization, templates.render_document(chosen))
        self.ignored: set[str] = set()  # one sentence for each document that publishing ignored

    def publish(self) -> list[tuple[str, Published]]:
        """Upload every template and document. Return each URL with its state.

        Raises ConflictError and uploads nothing when a set has changed without a higher version.
        Raises ConflictError and uploads no document when the bucket has other content under a
        template's name. Raises app.aws.errors.Unavailable.
        """
        self._ensure_raised()
        roles, organizations, documents = self._objects()
        return self._upload(roles + organizations) + self._upload(documents)

    def _objects(self) -> Iterable[tuple[Template, ...]]:
        """Return all roles' templates, then all organizations', then all documents."""
        return zip(*self.rendered.values(), strict=True)

    def _upload(self, objects: Iterable[Template]) -> list[tuple[str, Published]]:
        states = [(self.bucket.url(each), self.bucket.publish(each)) for each in objects]
        replaced = [url for url, state in states if state is Published.DIFFERS]
        if replaced:
            # Another pipeline may have published the version at the same moment
            self._ensure_raised()
            raise ConflictError("\n".join([_REPLACED, *replaced]))
        return states

    def published(self) -> list[tuple[str, Published]]:
        """Return the state of each URL, read without credentials.

        Raises app.aws.errors.Unavailable.
        """
        objects = chain.from_iterable(self._objects())
        return [(self.bucket.url(each), self.bucket.published(each)) for each in objects]

    def serves(self, name: str) -> bool:
        """Return whether the bucket serves exactly what this configuration renders for the set."""
        try:
            return {*map(self.bucket.published, self.rendered[name])} == {Published.YES}
        except Unavailable as error:
            logger.warning("permission_set.unread", permission_set=name, error=str(error))
            return False

    def _ensure_raised(self) -> None:
        if refusals := list(filter(None, map(self._refusal, self.sets.values()))):
            raise ConflictError("\n".join([*refusals, _NOT_YOURS]))

    def _refusal(self, chosen: PermissionSet) -> str | None:
        """Return why this set conflicts with the bucket's versions of it; None if it does not.

        A set that writes is compared with all versions, because a name that was ever read-only must
        not get a version that writes.
        """
        first_version = 1 if chosen.access == "write" else chosen.version
        versions = {}
        for version, text in self.bucket.documents(chosen.name, first_version).items():
            published = read_document(text, chosen.name, version)
            if published is None:
                self.ignored.add(f"{chosen.name}: version {version}: {_IGNORED}")
            else:
                versions[version] = published
        return version_refusal(chosen, versions, "The bucket")


@dataclass(eq=False)
class SetVersions:
    """The record of published versions, and its comparisons."""

    _db: Database
    _sets: PermissionSets
    # The names of AWS's policies that published versions ask for, by the number of versions
    _managed: dict[int, set[str]] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)  # names whose refusal this process has logged

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
                if sentence := version_refusal(chosen, versions, _PLACE):
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
            if version_refusal(chosen, _versions(db, chosen.name), _PLACE):
                return
            row = db.get(PermissionSetVersion, (chosen.name, chosen.version))
            if row is None:
                row = PermissionSetVersion(name=chosen.name, version=chosen.version)
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
            content = asdict(chosen)
            # The previous release can't read this field, and permissions do not depend on it
            del content["administrator"]
            row.content = content

    def managed_policies(self) -> set[str]:
        """Return the names of AWS's policies that any published version of any set asked for.

        Versions are never deleted, and publishing refuses to change their policies. So the policies
        are read again only when the number of versions has changed.
        """
        with self._db.read() as db:
            count = db.scalars(select(func.count()).select_from(PermissionSetVersion)).one()
            if count not in self._managed:
                lists = db.scalars(select(PermissionSetVersion.content["managed_policies"]))
                self._managed[count] = {policy["name"] for policy in chain.from_iterable(lists)}
        return self._managed[count]

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
        published = {row.version: PermissionSet(**row.content) for row in self.list(name)}
        message = "Nothing was published yet."
        if published:
            message = f"Must be one of: {', '.join(map(str, sorted(published)))}."
        errors = {}
        for field_name, version in (("from", before), ("to", after)):
            if version not in published:
                errors[field_name] = message
        if errors:
            raise ValidationFailedError(**errors)
        return difference(published[before], published[after])

    def of(self, name: str, version: int | None) -> PermissionSet | None:
        """Return the published version of the set, or else the current one, or None."""
        current = self._sets.get(name)
        if version is None or (current and current.version == version):
            return current
        with self._db.read() as db:
            row = db.get(PermissionSetVersion, (name, version))
        return PermissionSet(**row.content) if row else current


def _versions(db: Session, name: str) -> dict[int, PermissionSet]:
    rows = db.scalars(select(PermissionSetVersion).where(PermissionSetVersion.name == name))
    return {row.version: PermissionSet(**row.content) for row in rows}
