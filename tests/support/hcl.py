"""As much of Terraform's language as our files use, evaluated: python-hcl2 parses, this works out
what comes of it.

And formatted as `terraform fmt` does it, which no package for Python has.
"""

import itertools
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


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def formatted(text):
    """What `terraform fmt` makes of a file that has a bracket or an assignment on each line, and no
    heredoc.

    After Format of HashiCorp's hclwrite: two blanks for each line that left brackets open, and
    neighbours whose value is whole on its line have their = in one column.
    """
    lines = []  # what comes before the =, and from it on, if that is to be aligned
    opened = []
    for line in text.splitlines():
        bare = line.strip()
        code = (
            _STRING.sub(lambda found: "s" * len(found[0]), bare)
            .partition("#")[0]
            .replace("=>", "->")
        )
        net = _net(code)
        while net < 0 and opened:
            closed = min(-net, opened[-1])
            opened[-1], net = opened[-1] - closed, net + closed
            if not opened[-1]:
                opened.pop()
        indent, at = "  " * len(opened) if bare else "", code.find("=")
        if at > 0:
            lead, value = bare[:at].rstrip(), bare[at + 1 :].strip()
            whole = not _net(code[at:])
            lines.append(
                (indent + lead, f"= {value}") if whole else (f"{indent}{lead} = {value}", None)
            )
        else:
            lines.append((indent + bare, None))
        if net > 0:
            opened.append(net)
    return "".join(f"{line}\n" for line in _in_columns(lines))


def _net(code):
    return sum(code.count(mark) for mark in "([{") - sum(code.count(mark) for mark in ")]}")


def _in_columns(lines):
    for alone, run in itertools.groupby(lines, key=lambda line: line[1] is None):
        neighbours = list(run)
        width = max(len(lead) for lead, _ in neighbours)
        yield from (lead if alone else f"{lead:{width}} {value}" for lead, value in neighbours)
