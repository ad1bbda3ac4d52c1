"""The vendor's name: unchanged for people, and in plain ASCII for AWS.

CloudFormation and IAM accept only some letters in descriptions and tags, and not the same ones. A
form of letters, digits, spaces and `.+-` is valid everywhere, and has no meaning in YAML.
"""

import re
import unicodedata

NAME_MAX = 64
ASCII_PATTERN = r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,63}"


def ascii_form(name: str) -> str:
    """Return the name without diacritics (NFKD) and other characters; empty if none are left."""
    kept = re.sub(r"[^A-Za-z0-9 .+-]", "", unicodedata.normalize("NFKD", name))
    return " ".join(kept.split()).lstrip(" .+-")


def identifies_vendor(form: str) -> bool:
    """Return whether the form still identifies the vendor.

    It must have at least two letters, and at most the length of a name.
    """
    return len(form) <= NAME_MAX and len(re.findall("[A-Za-z]", form)) >= 2
