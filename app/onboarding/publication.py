"""The publication of this configuration: two templates and a document of each permission set.

Publishing needs neither the database nor the secret keys. Deputy itself records a version once the
bucket serves all three as Deputy's own configuration renders them (set_versions.py).
"""

from collections.abc import Iterable

from app.aws import templates
from app.aws.errors import Unavailable
from app.aws.templates import Published, Template, TemplateBucket
from app.config import TemplateConfig
from app.errors import ConflictError
from app.log import logger
from app.onboarding.set_versions import refusal
from app.permissions.permission_sets import PermissionSet, PermissionSets, read_document

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


class Publication:
    """The templates and documents of this configuration.

    It renders them, publishes them, and compares the bucket with them.
    """

    def __init__(self, config: TemplateConfig, sets: PermissionSets) -> None:
        """Render everything once.

        The settings and the permission sets do not change while the process runs.
        """
        self.bucket = TemplateBucket(config)
        self._sets = sets
        self.roles: dict[str, Template] = {}
        self.organizations: dict[str, Template] = {}
        self._documents: dict[str, Template] = {}
        for name, chosen in sets.items():
            role = self.roles[name] = templates.render(config, chosen)
            self.organizations[name] = templates.render_organization(config, role, chosen)
            self._documents[name] = templates.render_document(chosen)
        self.ignored: set[str] = set()  # one sentence for each document that publishing ignored

    def publish(self) -> list[tuple[str, Published]]:
        """Upload every template and document. Return each URL with its state.

        Raises ConflictError and uploads nothing when a set has changed without a higher version.
        Raises ConflictError and uploads no document when the bucket has other content under a
        template's name. Raises app.aws.errors.Unavailable.
        """
        self._ensure_raised()
        states = self._upload([*self.roles.values(), *self.organizations.values()])
        return states + self._upload(self._documents.values())

    def _upload(self, objects: Iterable[Template]) -> list[tuple[str, Published]]:
        states = []
        replaced = []
        for each in objects:
            url, state = self.bucket.url(each), self.bucket.publish(each)
            states.append((url, state))
            if state is Published.DIFFERS:
                replaced.append(url)
        if replaced:
            # Another pipeline may have published the version at the same moment
            self._ensure_raised()
            raise ConflictError("\n".join([_REPLACED, *replaced]))
        return states

    def published(self) -> list[tuple[str, Published]]:
        """Return the state of each URL, read without credentials.

        Raises app.aws.errors.Unavailable.
        """
        objects = [*self.roles.values(), *self.organizations.values(), *self._documents.values()]
        return [(self.bucket.url(each), self.bucket.published(each)) for each in objects]

    def serves(self, name: str) -> bool:
        """Return whether the bucket serves exactly what this configuration renders for the set."""
        expected = (self._documents[name], self.roles[name], self.organizations[name])
        try:
            return {*map(self.bucket.published, expected)} == {Published.YES}
        except Unavailable as error:
            logger.warning("permission_set.unread", permission_set=name, error=str(error))
            return False

    def _ensure_raised(self) -> None:
        if refusals := list(filter(None, map(self._refusal, self._sets.values()))):
            raise ConflictError("\n".join([*refusals, _NOT_YOURS]))

    def _refusal(self, chosen: PermissionSet) -> str | None:
        """Return why this set conflicts with the bucket's versions of it; None if it does not.

        A set that writes is compared with all versions, because a name that was ever read-only must
        not get a version that writes.
        """
        first_version = chosen.version
        if chosen.access == "write":
            first_version = 1
        versions = {}
        for version, text in self.bucket.documents(chosen.name, first_version).items():
            published = read_document(text, chosen.name, version)
            if published is None:
                self.ignored.add(f"{chosen.name}: version {version}: {_IGNORED}")
            else:
                versions[version] = published
        return refusal(chosen, versions, "The bucket")
