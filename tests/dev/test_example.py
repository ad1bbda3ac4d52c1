"""`make example`, and docs/integrate.md: the whole of it, as a customer and as the vendor."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from dev.ports import free_port
from dev.stack import ROOT
from tests.conftest import in_a_browser
from tests.dev.make_run import LAST_LINE, PATIENCE, Run
from tests.dev.test_click_through import launch
from tests.support.waiting import until

PAGE = (ROOT / "docs" / "integrate.md").read_text()
PRODUCT = (ROOT / "examples" / "vendor" / "product.py").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Iterator[Run]:
    product = f"http://localhost:{free_port()}"
    data = tmp_path_factory.mktemp("example") / "data"
    with Run("example", data, DEPUTY_RETURN_URLS=f"{product}/", DEPUTY_VENDOR_URL=product) as run:
        run.product = product
        yield run.ready()
        assert run.interrupt() == 0
        assert "Traceback" not in run.output


@in_a_browser
def test_a_customer_signs_up_connects_comes_back_and_leaves(example, chromium):
    with chromium.new_context() as browser:
        page = browser.new_page()
        page.goto(example.product)
        page.get_by_label("Your company").fill("Acme")
        page.get_by_role("button", name="Sign up").click()
        external_id = page.locator("code").inner_text()
        page.get_by_role("button", name="Connect your AWS account").click()
        expect(page.get_by_role("img", name="Bucketwise")).to_be_visible()
        expect(page.locator("#external-id")).to_have_text(external_id)
        launch(page, browser, "444455556666").get_by_role("button", name="Create stack").click()
        page.get_by_role("link", name="Back to Bucketwise").click(timeout=60_000)
        assert re.fullmatch(
            rf"{example.product}/connected\?deputy_link=[0-9a-f-]{{36}}&status=connected", page.url
        )
        expect(page.get_by_text("AWS account 444455556666")).to_contain_text("verified")
        page.get_by_role("button", name="List my buckets").click()
        expect(page.get_by_text("deputy-shared-acme")).to_be_visible()
        page.get_by_role("button", name="Leave").click()
        expect(page.get_by_role("status")).to_contain_text("Acme has left.")
        assert "Traceback" not in (example.data / "product.log").read_text()


def test_the_product_refuses_anybody_else_and_every_block_of_the_page_runs(example):
    """Strangers are webhooks that are not Deputy's, and forms without a customer."""
    url = example.product
    assert requests.post(f"{url}/webhooks/deputy", json={}, timeout=30).status_code == 400
    for form in ("connect", "job", "leave"):
        answer = requests.post(f"{url}/{form}", allow_redirects=False, timeout=30)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    kinds = [kind for kind, _ in BLOCKS]
    assert (kinds.count("sh"), kinds.count("python"), len(kinds)) == (4, 5, 9)
    assert BLOCKS[0] == ("sh", "make example\n")
    assert "-m dev.example" in (ROOT / "Makefile").read_text()
    for kind, block in BLOCKS[1:]:
        if kind == "python":
            assert block in PRODUCT
            continue
        block = block.replace(".data/env", str(example.data / "env"))  # noqa: PLW2901
        done = subprocess.run(
            ["sh", "-eu", "-c", block],
            cwd=ROOT,
            env={name: os.environ[name] for name in ("PATH", "DEPUTY_OPERATOR")}
            | {"HOME": str(example.data)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"


def test_the_demo_says_that_it_needs_make_run(example):
    with Run("demo", example.data) as demo:
        assert demo.ended() == 1
        assert "in use by `make example`, and the demo needs `make run`" in demo.output


def test_the_product_starts_beside_make_run(run):
    product = f"http://localhost:{free_port()}"
    with Run("example", run.data, DEPUTY_RETURN_URLS=f"{product}/") as example:
        until(lambda: LAST_LINE in example.output, "the product is up", PATIENCE)
        assert "Sign up" in requests.get(product, timeout=30).text
        signed_up = requests.Session()
        signed_up.get(product, timeout=30)
        page = signed_up.post(f"{product}/sign-up", data={"name": "Beside"}, timeout=30)
        assert page.ok
        assert "Your External ID" in page.text
        assert example.interrupt() == 0
    assert requests.get(f"{run.url}/readyz", timeout=30).json()["status"] == "ok"
    assert (run.data / "run.json").exists()


def test_the_product_is_as_short_as_the_page_says():
    assert len(PRODUCT.splitlines()) <= 155
    others = {path.name for path in Path(ROOT / "examples" / "vendor").iterdir()}
    others -= {"__pycache__"}
    assert others == {"product.py", "templates", "permission-sets", "logo.png", "deputy.env"}
