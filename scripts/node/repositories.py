"""The sources of builds: bare repositories in the folder that the node's Git server serves."""

import subprocess
from pathlib import Path

_AUTHOR = "-c", "user.name=e2e", "-c", "user.email=e2e@example.com"


def commit(repository: Path, tree: Path, *, branch: str = "main") -> str:
    """Make the files below ``tree`` the next commit of a branch, in a repository that is made if need be; its hash."""
    if not repository.exists():
        _git("init", "--quiet", "--bare", "--initial-branch=main", str(repository))
    there = f"--git-dir={repository}", f"--work-tree={tree}"
    _git(*there, "symbolic-ref", "HEAD", f"refs/heads/{branch}")
    _git(*there, "add", "--all")
    _git(*there, *_AUTHOR, "commit", "--quiet", "--allow-empty", "--message=sources")
    made = _git(*there, "rev-parse", "HEAD").strip()
    _git(*there, "symbolic-ref", "HEAD", "refs/heads/main")
    return made


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout
