"""The vendor's name: unchanged for people, and in plain ASCII for AWS.

CloudFormation and IAM each accept only some characters in descriptions and tags. Letters, digits,
spaces and `.+-` are accepted by both, and have no special meaning in YAML.
"""

import re
import unicodedata

NAME_MAX = 64
ASCII_PATTERN = r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,63}"


def ascii_form(name: str) -> str:
    """Return the name without diacritics (NFKD), and without characters that AWS may refuse.

    The result may be empty.
    """
    kept = re.sub(r"[^A-Za-z0-9 .+-]", "", unicodedata.normalize("NFKD", name))
    return " ".join(kept.split()).lstrip(" .+-")


def identifies_vendor(form: str) -> bool:
    """Return whether an ASCII form has at least two letters, and at most NAME_MAX characters."""
    return len(form) <= NAME_MAX and len(re.findall("[A-Za-z]", form)) >= 2
