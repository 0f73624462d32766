"""The checks of `vcsimg doctor`."""

from __future__ import annotations

import enum
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from vcsimg.errors import VcsimgError
from vcsimg.kernel import features
from vcsimg.kernel.syscalls import NR
from vcsimg.process import hold

_GIT = (2, 39)
"""The oldest that the tests were run with."""

_UNUSED = frozenset(("soft_dirty",))
"""Features that no engine uses (yet): missing ones would only worry."""

_TOOLS = {
    "gdb": "debug a rebuilt core",
    "eu-readelf": "look into a rebuilt core",
}


class Result(enum.Enum):
    """`OK`: it is there. `LESS`: something works slower, or not at all, without it. `BAD`: no capture is possible."""

    OK = "ok"
    LESS = "less"
    BAD = "bad"


@dataclass(frozen=True)
class Check:
    """`text`: what was found; `remedy`: what would help, if anything would."""

    name: str
    result: Result
    text: str
    remedy: str | None = None


def examine() -> Iterator[Check]:
    """All checks, the one that matters most first."""
    yield _machine()
    yield _capture()
    yield from _engines()
    for feature in features.all_features():
        if feature.name in _UNUSED:
            continue
        result = Result.OK if feature.available else Result.LESS
        yield Check(feature.name, result, feature.explanation, None if feature.available else feature.remedy)
    for name in sorted(features.unknown_disabled()):
        yield Check(features.ENVIRONMENT, Result.LESS, f"{name!r} is no feature", "Correct the environment variable.")
    yield _git()
    yield _on_path()
    yield _symbols()
    for tool, purpose in _TOOLS.items():
        yield _tool(tool, purpose)


def _machine() -> Check:
    text = f"Linux {platform.release()} on {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return Check("machine", Result.BAD, f"{platform.system()} on {platform.machine()}", "vcsimg needs Linux on x86-64.")
    return Check("machine", Result.OK, text)


def _capture() -> Check:
    """Hold a process of our own, and borrow its thread: what every capture does."""
    try:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    except OSError as error:
        return Check("capture", Result.BAD, f"no program can be started: {error.strerror}")
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(b"x")
        child.stdout.read(1)  # now it is cat, and not on its way there
        with hold(child.pid) as held:
            reason = held.can_borrow
            if reason is None:
                with held.borrow() as borrowed:
                    borrowed.syscall(NR["getpid"])
        if reason is not None:
            return Check("capture", Result.LESS, f"processes can be stopped, but no system call can be borrowed: {reason}")
        return Check("capture", Result.OK, f"a process was stopped for {held.pause * 1e3:.2f} ms, and a system call borrowed")
    except VcsimgError as error:
        return Check("capture", Result.BAD, str(error), error.remedy)
    except OSError as error:
        return Check(
            "capture",
            Result.BAD,
            f"ptrace is refused: {error.strerror}",
            "In a container: a seccomp profile that allows ptrace (docker run --cap-add SYS_PTRACE).",
        )
    finally:
        child.kill()
        child.communicate()


def _engines() -> Iterator[Check]:
    usable = ["compare"]
    if features.available("exclusive_bit"):
        usable.insert(0, "cow")
    if features.available("uffd_wp_async") and features.available("pagemap_scan"):
        usable.insert(0, "wp")
    result = Result.OK if len(usable) == 3 else Result.LESS
    yield Check("engines", result, ", ".join(usable), None if result is Result.OK else "See what is missing below.")


def _git() -> Check:
    try:
        answer = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return Check("git", Result.LESS, "the git command is not there; captures work without it", "Install git.")
    found = re.search(r"(\d+)\.(\d+)", answer)
    if found is None or (int(found[1]), int(found[2])) < _GIT:
        return Check("git", Result.LESS, f"{answer.strip()} is older than {_GIT[0]}.{_GIT[1]}", "Install a newer git.")
    return Check("git", Result.OK, answer.strip())


def _on_path() -> Check:
    missing = [name for name in ("vcsimg", "git-vcsimg") if shutil.which(name) is None]
    if missing:
        return Check(
            "path",
            Result.LESS,
            f"{' and '.join(missing)} not found on PATH: `git log -p` cannot show memory, and there is no `git vcsimg`",
            "Put the folder that vcsimg was installed to on PATH.",
        )
    return Check("path", Result.OK, f"vcsimg is {shutil.which('vcsimg')}")


def _symbols() -> Check:
    if importlib.util.find_spec("drgn") is None:
        return Check("drgn", Result.LESS, "not installed: no variables by name", "pip install drgn")
    return Check("drgn", Result.OK, "read variables by name")


def _tool(name: str, purpose: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, Result.LESS, f"not found: would {purpose}", f"Install {'elfutils' if name == 'eu-readelf' else name}.")
    return Check(name, Result.OK, f"{purpose}: {os.path.realpath(path)}")
