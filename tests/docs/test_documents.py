"""The documents for people: tables are tables, and no example sends a header twice."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")})
RULE = re.compile(r"\|[-| :]+\|")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_row_is_part_of_a_table(document):
    """Away from its table a row is shown as a line of text with bars in it."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    tables = re.findall(r"^\|.*(?:\n\|.*)*", text, re.MULTILINE)
    assert [table for table in tables if not RULE.fullmatch((table.splitlines() * 2)[1])] == []


def test_no_example_repeats_a_header_that_its_function_sends():
    """The server refuses a request in which Content-Type comes twice."""
    examples = [
        line
        for document in DOCUMENTS
        for line in document.read_text().splitlines()
        if re.match(r"\(?(KEY=\S+ )?api ", line)
    ]
    assert len(examples) > 10
    assert [line for line in examples if re.search(r" (-H|--header) ", line)] == []


def test_the_threat_model_names_tests_that_exist():
    text = (ROOT / "docs" / "threat-model.md").read_text()
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)(?:::(\w+))?`", text)
    assert len(named) > 40
    for file, test in named:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text(), f"{file}::{test}"
