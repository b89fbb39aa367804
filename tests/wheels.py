"""Packages of the lock in folders of their own, for child processes that find them first."""

import subprocess
import sys
from pathlib import Path

from terminal import ROOT


def install(folder: Path, *names: str) -> Path:
    """Install packages in the versions of the lock, and nothing that they need. Returns the folder."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    uv = str(Path(sys.executable).parent / "uv")
    for name in names:
        (requirement,) = [line for line in lines if line.startswith(f"{name}==")]
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(folder)]
        subprocess.run([*command, requirement], check=True)
    return folder
