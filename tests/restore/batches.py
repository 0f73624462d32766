"""Programs that verify themselves, run in batches as several users by tests/restore/cases.py: each as root and as an ordinary user, killed and beside."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import home_of_nobody
from tests.restore.cases import WAYS, Outcome

ROOT = Path(__file__).parent.parent.parent
USERS = ("root", "nobody") if os.getuid() == 0 else ("ordinary",)
AT_ONCE = 3
_PATIENCE = 100.0
"""Seconds for one program; then those after it are not run."""

Found = Callable[[str, str, str], Outcome]
"""What has become of a program, by user, name and way."""


class Batches:
    """Runs programs, AT_ONCE at a time, as one user after the other, and reads what becomes of them. `commands` and `ways` by user and name."""

    def __init__(
        self,
        folder: Path,
        commands: Mapping[str, Mapping[str, Sequence[str | Path]]],
        ways: Mapping[str, Mapping[str, Collection[str]]],
    ) -> None:
        self._folder = folder
        self._commands = commands
        self._ways = ways
        self._running: dict[str, list[tuple[subprocess.Popen[str], Path]]] = {}
        self._found: dict[tuple[str, str], dict[str, Outcome]] = {}

    def outcome(self, user: str, name: str, way: str) -> Outcome:
        if user not in self._running:
            self._start(user)
        process, errors = self._running[user][list(self._commands[user]).index(name) % AT_ONCE]
        assert process.stdout is not None
        while (user, name) not in self._found:
            timer = threading.Timer(_PATIENCE, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                pytest.fail(f"they were not run to their end: {errors.read_text()}")
            done, ways = json.loads(line)
            self._found[user, done] = {key: Outcome(**value) for key, value in ways.items()}
        return self._found[user, name][way]

    def _start(self, user: str) -> None:
        home = self._folder / user
        home.mkdir()
        command = [sys.executable, "-m", "tests.restore.cases"]
        if user == "nobody":
            home = home_of_nobody(home)
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *command]
        ways = self._ways[user]
        words = [
            f"{name}:{','.join(way for way in WAYS if way in ways[name])}={shlex.join(map(str, words))}"
            for name, words in self._commands[user].items()
        ]
        environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        self._running[user] = []
        for worker in range(AT_ONCE):
            path = self._folder / f"{user}.{worker}"
            with path.open("w") as errors:
                process = subprocess.Popen(
                    [*command, str(home), *words[worker::AT_ONCE]],
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    cwd=ROOT,
                    env=environment,
                )
            self._running[user].append((process, path))

    def close(self) -> None:
        for process, _ in (one for running in self._running.values() for one in running):
            process.kill()
            process.communicate()


def batches(
    request: pytest.FixtureRequest, factory: pytest.TempPathFactory, command: Callable[[str], Sequence[str | Path]]
) -> Iterator[Found]:
    """A fixture of a module whose tests have the parameters `user`, `name` and `way`, or the first two for both ways: those that were selected run
    beside one another."""
    commands: dict[str, dict[str, Sequence[str | Path]]] = {user: {} for user in USERS}
    ways: dict[str, dict[str, set[str]]] = {user: {} for user in USERS}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec"):
            parameters = item.callspec.params
            if {"user", "name"} <= parameters.keys():
                user, name = str(parameters["user"]), str(parameters["name"])
                commands[user][name] = command(name)
                ways[user].setdefault(name, set()).update([str(parameters["way"])] if "way" in parameters else WAYS)
    running = Batches(factory.mktemp("batches"), commands, ways)
    yield running.outcome
    running.close()
