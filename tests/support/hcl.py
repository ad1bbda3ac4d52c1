"""As much of Terraform's language as our files use, evaluated: python-hcl2 parses, this works out
what comes of it.
"""

import json
import re

import hcl2

_OPTIONS = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_TOKEN = re.compile(
    r"\$\$\{|%%\{|\$\{(?P<expression>[^}]*)\}|\\u(?P<code>[0-9a-f]{4})|\\(?P<escape>.)|%\{",
    re.DOTALL,
)


def parse(text):
    """The file's blocks by type, as lists; names without their quotes."""
    return _unquoted_keys(hcl2.loads(text, serialization_options=_OPTIONS))


def _unquoted_keys(value):
    if isinstance(value, dict):
        return {
            (text_of(key, {}) if key.startswith('"') else key): _unquoted_keys(item)
            for key, item in value.items()
        }
    return [_unquoted_keys(item) for item in value] if isinstance(value, list) else value


def evaluate(value, names):
    """A parsed value, with `names` for what it refers to: {"var.x": …}. Raises ValueError for
    what isn't known here.
    """
    if isinstance(value, dict):
        return {key: evaluate(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [evaluate(item, names) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith('"'):
        return text_of(value, names)
    return _expression(value.removeprefix("${").removesuffix("}"), names)


def _expression(text, names):
    if text in names:
        return names[text]
    if found := re.fullmatch(r"([\w.]+)\[(\d+)\]", text):
        return names[found[1]][int(found[2])]
    if found := re.fullmatch(r'split\("(.)", ([\w.]+)\)', text):
        return names[found[2]].split(found[1])
    if found := re.fullmatch(r"compact\(\[([\w., ]+)\]\)", text):
        return [value for name in found[1].split(", ") if (value := names[name])]
    if found := re.fullmatch(r"(one|length)\((.*)\)", text):
        values = _expression(found[2], names)
        return len(values) if found[1] == "length" else (values or [None])[0]
    return _of_objects(text, names)


def _of_objects(text, names):
    if found := re.fullmatch(
        r'merge\((.*), \{for (\w+) in (.*) : "(\w+)" => (.*)\}\)', text, re.DOTALL
    ):
        first, name, values, key, item = found.groups()
        more = [{key: _written(item, names | {name: one})} for one in _expression(values, names)]
        return _written(first, names) | (more[0] if more else {})
    if found := re.fullmatch(r"jsonencode\((.*)\)", text, re.DOTALL):
        return json.dumps(_written(found[1], names))
    raise ValueError(f"{text} is not known here")


def _written(text, names):
    return evaluate(parse(f"x = {text}\n")["x"], names)


def text_of(quoted, names):
    """A quoted string's value: escapes undone, and what stands in ${…} put in."""

    def one(found):
        if found["expression"] is not None:
            return str(_expression(found["expression"], names))
        if found["code"]:
            return chr(int(found["code"], 16))
        if found["escape"]:
            return _ESCAPES[found["escape"]]
        if found[0] == "%{":
            raise ValueError("a directive of a template")
        return found[0][1:]

    return _TOKEN.sub(one, quoted[1:-1])
