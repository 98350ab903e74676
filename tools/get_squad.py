"""Fetch SQuAD v1.1 (Rajpurkar et al., 2016; CC BY-SA 4.0) from its official home.

    python tools/get_squad.py [FOLDER]

Writes train-v1.1.json (30 MB) and dev-v1.1.json (5 MB), checked against the SHA-256 of the published files. A file
that is there already and right is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import urllib.request
from pathlib import Path

HOME = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"
SHA256 = {
    "train-v1.1.json": "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
    "dev-v1.1.json": "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
}
TIMEOUT_SECONDS = 60


class DownloadError(Exception):
    """A file could not be fetched, or is not the published one."""


def fetch(name: str, folder: Path) -> str:
    """Put one file into the folder, whole or not at all, and say what happened to it.

    :raises DownloadError: without a network, on a full disk, or if other bytes arrived than were published.
    """
    target = folder / name
    try:
        if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == SHA256[name]:
            return f"{target}: already there"
        with urllib.request.urlopen(HOME + name, timeout=TIMEOUT_SECONDS) as response:
            content = response.read()
    except OSError as error:  # urllib's own errors are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"{HOME + name} cannot be fetched ({reason}); check the network, or put the file into {folder} by hand"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise DownloadError(
            f"{HOME + name} has SHA-256 {found[:12]}, expected {SHA256[name][:12]}; nothing was written: try again"
        )
    temporary = target.with_name(f".{name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(target)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror or error}; name another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return f"{target}: {len(content) / 1e6:.1f} MB"


def main() -> int:
    """Fetch both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/squad"), help="default: data/squad")
    folder: Path = parser.parse_args().folder
    try:
        for name in SHA256:
            sys.stdout.write(fetch(name, folder) + "\n")
    except DownloadError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
