"""The commit of the code that runs."""

import subprocess

from engine.common import source_tree


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_of_the_source_tree(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    module = root / "engine/common/source_tree.py"
    module.parent.mkdir(parents=True)
    module.write_text("one")
    monkeypatch.setattr(source_tree, "__file__", str(module))
    assert source_tree.find_commit() is None  # No repository.
    git(root, "init")
    assert source_tree.find_commit() is None  # No commit yet.
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    commit = git(root, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert source_tree.find_commit() == commit
    module.write_text("two")
    assert source_tree.find_commit() == commit + "+changes"
    # Inside another repository, but not the root of it: not ours.
    monkeypatch.setattr(source_tree, "__file__", str(root / "deeper/engine/common/source_tree.py"))
    assert source_tree.find_commit() is None


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert source_tree.find_commit() is None
