"""The rules for a permission set's next version, each with the message for what breaks it."""

from collections.abc import Mapping

from app.permissions.permission_sets import PermissionSet
from app.permissions.set_rules import VERSION_MAX


def version_refusal(
    chosen: PermissionSet, versions: Mapping[int, PermissionSet], place: str
) -> str | None:
    """Return why the set can't be published under its version; None if it can.

    `versions`: the published ones. `place`: where these versions are, as the subject of a sentence.
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
