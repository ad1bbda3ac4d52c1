"""The publication of this configuration: each permission set's two templates, and its document.

Publishing needs neither the database nor the secret keys. Deputy itself records a version when the
bucket serves all three as its own configuration renders them (app/onboarding/set_versions.py).
"""

from collections.abc import Iterator

from app.aws import templates
from app.aws.errors import Unavailable
from app.aws.templates import Published, TemplateBucket
from app.config import TemplateConfig
from app.errors import ConflictError
from app.log import logger
from app.onboarding.set_versions import refusal
from app.permissions.permission_sets import PermissionSet, PermissionSets
from app.permissions.set_document import read_document

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

        The settings and the permission sets do not change while the process lives.
        """
        self.bucket = TemplateBucket(config)
        self._sets = sets
        self.roles = {name: templates.render(config, chosen) for name, chosen in sets.items()}
        rendered = self.roles.items()
        self.organizations = {
            name: templates.render_organization(config, role, sets[name]) for name, role in rendered
        }
        self.ignored: set[str] = set()  # a sentence for each document that publishing ignored
        self._documents = {name: templates.render_document(chosen) for name, chosen in sets.items()}

    def publish(self) -> list[tuple[str, Published]]:
        """Upload every template and document. Return each URL with its state.

        Raises ConflictError when a set has changed without a higher version; then nothing is
        uploaded. Raises it too when the bucket has other content under a template's name; then no
        document is uploaded. Raises app.aws.errors.Unavailable.
        """
        self._ensure_raised()
        states = []
        for objects in (
            [*self.roles.values(), *self.organizations.values()],
            [*self._documents.values()],
        ):
            uploaded = [
                (self.bucket.url(template), self.bucket.publish(template)) for template in objects
            ]
            if replaced := [url for url, state in uploaded if state is Published.DIFFERS]:
                # another pipeline may have published the version at the same moment
                self._ensure_raised()
                raise ConflictError("\n".join([_REPLACED, *replaced]))
            states += uploaded
        return states

    def published(self) -> list[tuple[str, Published]]:
        """Return the state of each URL, read without credentials.

        Raises app.aws.errors.Unavailable.
        """
        groups = (self.roles, self.organizations, self._documents)
        everything = [template for group in groups for template in group.values()]
        return [
            (self.bucket.url(template), self.bucket.published(template)) for template in everything
        ]

    def serves(self, name: str) -> bool:
        """Return whether the bucket serves exactly what this configuration renders of the set."""
        expected = (self._documents[name], self.roles[name], self.organizations[name])
        try:
            return all(self.bucket.published(template) is Published.YES for template in expected)
        except Unavailable as error:
            logger.warning("permission_set.unread", permission_set=name, error=str(error))
            return False

    def _ensure_raised(self) -> None:
        if refusals := list(self._refusals()):
            raise ConflictError("\n".join([*refusals, _NOT_YOURS]))

    def _refusals(self) -> Iterator[str]:
        for chosen in self._sets.values():
            if sentence := refusal(chosen, self._versions(chosen), "The bucket"):
                yield sentence

    def _versions(self, chosen: PermissionSet) -> dict[int, PermissionSet]:
        """Return the published versions that may refuse this one.

        A name that was ever read-only must not become writing, so a set that writes is compared
        with all versions.
        """
        first_version = 1 if chosen.access == "write" else chosen.version
        texts = self.bucket.documents(chosen.name, first_version)
        versions = {
            version: read_document(text, chosen.name, version) for version, text in texts.items()
        }
        ignored = sorted(version for version, published in versions.items() if published is None)
        self.ignored |= {f"{chosen.name}: version {version}: {_IGNORED}" for version in ignored}
        return {
            version: published for version, published in versions.items() if published is not None
        }
