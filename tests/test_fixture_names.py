"""A fixture's name has one meaning: where files define it again, it is of the same type, and so
usable in the same way.

A folder or a file may so replace `world` by one on its own database. Files that do not see each
other's fixtures may also have classes of their own that bear the fixture's name, as `case` is a
`Case`.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

TESTS = Path(__file__).parent
Trees = dict[str, ast.Module]
NO_TYPE = "no type"


def fixtures(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if any(ast.unparse(one).startswith("pytest.fixture") for one in decorators):
            yield node


class _Resolved(ast.NodeTransformer):
    """Names become those that they were imported or defined by; an Iterator of a type becomes
    that type.
    """

    def __init__(self, module: str, tree: ast.Module) -> None:
        self._known: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                self._known |= {
                    one.asname or one.name: f"{node.module}.{one.name}" for one in node.names
                }
            elif isinstance(node, ast.ClassDef):
                self._known[node.name] = f"{module}.{node.name}"

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._known.get(node.id, node.id))

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if ast.unparse(node.value) == "Iterator":
            return self.visit(node.slice)
        return self.generic_visit(node)


def types(trees: Trees) -> dict[str, dict[str, str]]:
    """Of each fixture, by the file that defines it."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file, tree in trees.items():
        module = file.removesuffix(".py").replace("/", ".")
        for node in fixtures(tree):
            returned = node.returns or ast.Name(NO_TYPE)
            found[node.name][file] = ast.unparse(_Resolved(module, tree).visit(returned))
    return found


def is_above(one: str, other: str) -> bool:
    """Whether the fixtures of one file are there in the other."""
    path = PurePosixPath(one)
    return path.parent.name == "support" or (
        path.name == "conftest.py" and path.parent in PurePosixPath(other).parents
    )


def ambiguous(trees: Trees) -> list[str]:
    found = []
    for name, by_file in types(trees).items():
        different, files = set(by_file.values()), [*by_file]
        bear_its_name = all(
            one.rpartition(".")[2].lower() == name.replace("_", "") for one in different
        )
        overrides = any(is_above(one, other) for one in files for other in files if one != other)
        if len(files) > 1 and (
            NO_TYPE in different or (len(different) > 1 and (overrides or not bear_its_name))
        ):
            found.append(f"{name}: {by_file}")
    return found


def of(*sources: str, names: tuple[str, ...] = ("a/test_a.py", "b/test_b.py")) -> Trees:
    return {name: ast.parse(source) for name, source in zip(names, sources, strict=True)}


FIXTURE = "@pytest.fixture\ndef case() -> {}: ..."
CASE = f"class Case: ...\n{FIXTURE.format('Case')}"


@pytest.mark.parametrize(
    ("trees", "count"),
    [
        (of(FIXTURE.format("int"), FIXTURE.format("Iterator[int]")), 0),
        (of(FIXTURE.format("int"), FIXTURE.format("str")), 1),
        (
            of(
                f"from x import A\n{FIXTURE.format('A')}", f"from y import A\n{FIXTURE.format('A')}"
            ),
            1,
        ),
        (
            of(
                f"from x import B as A\n{FIXTURE.format('A')}",
                f"from x import B\n{FIXTURE.format('B')}",
            ),
            0,
        ),
        (of(CASE, CASE), 0),
        (of(CASE, CASE, names=("a/conftest.py", "b/test_b.py")), 0),
        (of(CASE, CASE, names=("a/conftest.py", "a/test_a.py")), 1),
        (of(CASE, CASE, names=("tests/support/fixtures.py", "a/test_a.py")), 1),
    ],
)
def test_the_rule_finds_what_it_forbids(trees, count):
    assert len(ambiguous(trees)) == count


def test_a_fixtures_name_has_one_meaning():
    sources = {
        path.relative_to(TESTS.parent).as_posix(): path.read_text("utf-8")
        for path in TESTS.rglob("*.py")
    }
    trees = {
        name: ast.parse(source) for name, source in sources.items() if "pytest.fixture" in source
    }
    assert len(trees) > 50
    assert ambiguous(trees) == []
