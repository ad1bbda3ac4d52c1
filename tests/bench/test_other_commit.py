"""`python -m bench --against COMMIT`: another commit's files and libraries, beside this one's."""

import subprocess

import pytest

from bench import other_commit
from bench.client import BenchError
from bench.servers import HERE


@pytest.fixture
def history(tmp_path, monkeypatch):
    """A repository of two commits, and where the bench keeps what it builds."""

    def git(*words):
        who = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
        return subprocess.run(
            ("git", *who, *words), cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    root = tmp_path / "project"
    root.mkdir()
    git("init", "-q")
    for text in ("first", "second"):
        (root / "wsgi.py").write_text(text)
        (root / "requirements.txt").write_text("nothing==1\n")
        git("add", ".")
        git("commit", "-q", "-m", text)
    monkeypatch.setattr(other_commit, "ROOT", root)
    monkeypatch.setattr(other_commit, "HOME", tmp_path / "bench")
    return git


def test_a_commits_files_are_beside_ours_with_our_python_where_it_pins_the_same(history):
    checkout = other_commit.build("HEAD~1")
    assert (checkout.root / "wsgi.py").read_text() == "first"
    assert checkout.python == HERE.python
    assert other_commit.build(history("rev-parse", "HEAD~1")) == checkout, "built once"


def test_a_commit_that_pins_other_libraries_gets_a_python_of_its_own(history, monkeypatch):
    monkeypatch.setattr(other_commit, "_environment", lambda root: f"{root}/its-own")
    (other_commit.ROOT / "requirements.txt").write_text("nothing==2\n")
    assert other_commit.build("HEAD").python.endswith("/its-own")


@pytest.mark.parametrize("commit", ["no-such-branch", "--upload-pack=x", ""])
def test_what_git_does_not_know_is_said(history, commit):
    with pytest.raises(BenchError, match="git knows no commit"):
        other_commit.build(commit)
