"""Which revision of the sources a run was made by, where they are a git checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def git_revision() -> str | None:
    """The commit that is checked out, with a + where files of the packages differ from it; None without one."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    # A package that is installed inside somebody else's checkout is not of that checkout.
    if commit is None or _git("ls-files", "--error-unmatch", str(_PACKAGE / "__init__.py")) is None:
        return None
    top = _git("rev-parse", "--show-toplevel") or "."
    folders = [f"{top}/{name}" for name in ("qa_edge", "export", "runtime")]
    return f"{commit}{'+' if _git('status', '--porcelain', '--', *folders) else ''}"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
