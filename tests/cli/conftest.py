"""The command line as users have it: real processes, real repositories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
ENTRY = "import sys; sys.argv[0] = {name!r}; from vcsimg.cli.main import main; main()"


class Cli:
    """Calls of `vcsimg` with one repository, perhaps as another user. `bin` holds the commands as installed ones would be."""

    def __init__(self, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.repo = folder / "repo"
        self.prefix = prefix
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("vcsimg", "git-vcsimg"):
            script = self.bin / name
            script.write_text(f"#!{sys.executable}\n{ENTRY.format(name=str(script))}\n")
            script.chmod(0o755)

    def environment(self, **more: str | None) -> dict[str, str]:
        """Ours, without what would change the output; `more` replaces (None: takes away)."""
        values: dict[str, str | None] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("VCSIMG_", "GIT_"))},
            "PYTHONPATH": str(ROOT),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "VCSIMG_REPO": str(self.repo),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "HOME": str(self.folder),
            **dict.fromkeys(("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")),
            "TERM": "xterm-256color",
            "TZ": "UTC",
            **more,
        }
        return {name: value for name, value in values.items() if value is not None}

    def command(self, *arguments: object) -> list[str]:
        return [*self.prefix, str(self.bin / "vcsimg"), *map(str, arguments)]

    def __call__(self, *arguments: object, status: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and look at its exit status."""
        environment = self.environment(**options.pop("environment", {}))
        options.setdefault("cwd", self.folder)
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=environment, timeout=100, check=False, **options
        )
        assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: object, **options: Any) -> Any:
        """The JSON document that a command prints."""
        return json.loads(self(*arguments, "--json", **options).stdout)

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Start a command."""
        options.setdefault("cwd", self.folder)
        environment = self.environment(**options.pop("environment", {}))
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
        )

    def git(self, *arguments: object) -> str:
        """The output of the git command in the repository."""
        command = [*self.prefix, "git", "-C", str(self.repo), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self.environment()).stdout


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """vcsimg as the user that runs the tests, with an empty repository."""
    made = Cli(tmp_path)
    made("init", made.repo)
    return made


@pytest.fixture
def cli_of_nobody(as_nobody: list[str]) -> Iterator[Cli]:
    """vcsimg as an ordinary user, with an empty repository in a folder of that user's own."""
    folder = Path(tempfile.mkdtemp(prefix="vcsimg-nobody-"))
    try:
        made = Cli(folder, tuple(as_nobody))
        for path in (folder, made.bin):
            os.chown(path, 65534, 65534)
        made("init", made.repo)
        yield made
    finally:
        shutil.rmtree(folder)
