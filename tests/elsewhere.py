"""Another service's Python: an environment of its own, which has our wheel and nothing else of ours."""

import os
import subprocess
import sys
from pathlib import Path

from compose.local.stack import ROOT

INSTALL_SECONDS = 300


def build_wheel(folder: Path) -> Path:
    """The wheel as `make wheel` builds it."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT / "schemas", check=True, capture_output=True, timeout=INSTALL_SECONDS)
    (wheel,) = folder.glob("*.whl")
    return wheel


class Elsewhere:
    """A folder with a virtual environment, and programs that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv/bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)

    def install(self, *packages: str) -> None:
        """By pip from its index, as any service would."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", *packages],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def run(self, program: str, *, seconds: float = 60, **environment: str) -> str:
        """What the program prints. Nothing of this repository is on its path."""
        done = subprocess.run(
            [self.python, "-I", "-c", program],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
