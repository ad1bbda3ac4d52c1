"""A fixture's name has one meaning: where files define it again, it is of the same type, and so
usable in the same way. A folder or a file may so replace `world` by one on its own database.
"""

import ast
import re
from collections import defaultdict
from pathlib import Path


def ambiguous(*sources):
    types = defaultdict(list)
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if any(ast.unparse(one).startswith("pytest.fixture") for one in decorators):
            returned = ast.unparse(node.returns) if node.returns else "no type"
            returned = re.sub(r"\b\w+\.(?=\w)", "", returned)  # a module
            types[node.name].append(re.sub(r"^Iterator\[(.*)\]$", r"\1", returned))
    return [
        f"{name}: {kinds}"
        for name, kinds in types.items()
        if len(kinds) > 1 and ("no type" in kinds or len({*kinds}) > 1)
    ]


def test_a_fixtures_name_has_one_meaning():
    fixture = "@pytest.fixture\ndef case(){}: ..."
    number, text, untyped = map(fixture.format, (" -> Iterator[int]", " -> str", ""))
    assert ambiguous(number, fixture.format(" -> int"), text.replace("case", "other")) == []
    assert len(ambiguous(number, text)) == len(ambiguous(untyped, untyped)) == 1
    sources = (path.read_text("utf-8") for path in Path(__file__).parent.rglob("*.py"))
    fixtures = [source for source in sources if "pytest.fixture" in source]
    assert len(fixtures) > 50
    assert ambiguous(*fixtures) == []
