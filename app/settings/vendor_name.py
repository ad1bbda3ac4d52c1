"""The vendor's name: as it is for people, and as plain ASCII for what AWS keeps.

CloudFormation and IAM take only some letters in descriptions and tags, and others in each of them.
One form of letters, digits, spaces and `.+-` passes everywhere, and means nothing in YAML.
"""

import re
import unicodedata

NAME_MAX = 64
ASCII_PATTERN = r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,63}"


def ascii_form(name: str) -> str:
    """The name without marks (NFKD) and without every other character; empty when nothing is
    left.
    """
    kept = re.sub(r"[^A-Za-z0-9 .+-]", "", unicodedata.normalize("NFKD", name))
    return " ".join(kept.split()).lstrip(" .+-")


def identifies_vendor(form: str) -> bool:
    """Whether that form still identifies the vendor: at least two letters, and within the length
    of a name.
    """
    return len(form) <= NAME_MAX and len(re.findall("[A-Za-z]", form)) >= 2
