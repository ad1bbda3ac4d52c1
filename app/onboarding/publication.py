"""The publication of this configuration: each permission set's two templates, and its document.

Publishing needs neither the database nor the secret keys. Deputy itself records a version once the bucket serves all
three as its own configuration renders them (app/onboarding/set_versions.py).
"""

from collections.abc import Iterator

from app.aws import templates
from app.aws.errors import Unavailable
from app.aws.templates import Published, TemplateBucket
from app.config import TemplateConfig
from app.errors import ConflictError
from app.log import logger
from app.onboarding.set_versions import refusal
from app.permissions.permission_sets import PermissionSets

_REPLACED = (
    "The bucket has other content than this release's under the addresses below, and customers would launch it. Do not"
    " release until you know who uploaded it, and it is removed."
)


class Publication:
    """Renders this configuration's templates and documents, publishes them, and compares the bucket with them."""

    def __init__(self, config: TemplateConfig, sets: PermissionSets) -> None:
        """Render everything, once: the settings and the permission sets stay the same while the process lives."""
        self.bucket = TemplateBucket(config)
        self._sets = sets
        self.roles = {name: templates.render(config, chosen) for name, chosen in sets.items()}
        rendered = self.roles.items()
        self.organizations = {name: templates.render_organization(config, role, sets[name]) for name, role in rendered}
        self._documents = {name: templates.render_document(chosen) for name, chosen in sets.items()}

    def publish(self) -> list[tuple[str, Published]]:
        """Upload every template and document: its URL, and whether it is new. Raises app.aws.errors.Unavailable.

        Raises ConflictError when a set has changed without a higher version: nothing is uploaded then. Raises it too
        when the bucket has other content under a template's name: no document is uploaded then.
        """
        self._ensure_raised()
        states = []
        for objects in ([*self.roles.values(), *self.organizations.values()], [*self._documents.values()]):
            uploaded = [(self.bucket.url(template), self.bucket.publish(template)) for template in objects]
            if replaced := [url for url, state in uploaded if state is Published.DIFFERS]:
                self._ensure_raised()  # another pipeline may have published the version at the same moment
                raise ConflictError("\n".join([_REPLACED, *replaced]))
            states += uploaded
        return states

    def published(self) -> list[tuple[str, Published]]:
        """Return the state of each URL, read without credentials. Raises app.aws.errors.Unavailable."""
        groups = (self.roles, self.organizations, self._documents)
        everything = [template for group in groups for template in group.values()]
        return [(self.bucket.url(template), self.bucket.published(template)) for template in everything]

    def serves(self, name: str) -> bool:
        """Return whether the bucket serves exactly what this configuration renders of the permission set."""
        expected = (self._documents[name], self.roles[name], self.organizations[name])
        try:
            return all(self.bucket.published(template) is Published.YES for template in expected)
        except Unavailable as error:
            logger.warning("permission_set.unread", permission_set=name, error=str(error))
            return False

    def _ensure_raised(self) -> None:
        if refusals := list(self._refusals()):
            raise ConflictError("\n".join(refusals))

    def _refusals(self) -> Iterator[str]:
        for name, chosen in self._sets.items():
            if sentence := refusal(chosen, self.bucket.documents(name)):
                yield sentence
