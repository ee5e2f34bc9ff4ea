"""A run card names the commit of this code, and never that of a repository around it."""

import subprocess

from mscl.stages.runcard import commit_of


def git(folder, *arguments):
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder):
    (folder / "mscl").mkdir(parents=True)
    (folder / "mscl" / "code.py").write_text("a = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "code")
    return folder


def test_the_commit_is_the_checkouts_and_marks_local_changes_of_the_code(tmp_path):
    folder = repository(tmp_path / "mine")
    head = git(folder, "rev-parse", "HEAD")
    (folder / "notes.txt").write_text("not code")
    assert commit_of(folder) == (head, "")
    (folder / "mscl" / "code.py").write_text("a = 2\n")
    assert commit_of(folder) == (head + "+", "")


def test_the_commit_of_a_repository_around_the_checkout_is_not_taken(tmp_path):
    around = repository(tmp_path / "around")
    (around / "vendor" / "mscl-1.0" / "mscl").mkdir(parents=True)
    commit, why = commit_of(around / "vendor" / "mscl-1.0")
    assert commit == "" and "lies in another one" in why


def test_without_a_repository_or_without_git_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    commit, why = commit_of(tmp_path)
    assert (commit, why) == ("", "the code is not in a git repository")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path) == ("", "git is not installed")
