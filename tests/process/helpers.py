"""What the tests of held processes share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.conftest import Target, wait_for
from vcsimg.kernel import procfs, ptrace

Start = Callable[..., Target]


def ready(target: Target) -> Target:
    """The target, when it has said that it is ready."""
    assert target.line().split()[0] == "ready"
    return target


def asleep(target: Target) -> Target:
    """The target, when it is ready and all its threads sleep."""
    ready(target)
    wait_for(lambda: {state(target.pid, int(tid)) for tid in os.listdir(f"/proc/{target.pid}/task")} == {"S"})
    return target


def state(pid: int, tid: int | None = None) -> str:
    """The letter of a process's, or thread's, state."""
    return Path(f"/proc/{pid}/task/{tid or pid}/stat").read_text().rpartition(")")[2].split()[0]


def tracers(pid: int) -> set[int]:
    """The tracers of all threads of a process; {0} if there is none."""
    found = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
        except OSError:
            continue
        found.add(next(int(line.split()[1]) for line in lines if line.startswith("TracerPid")))
    return found


def possessions(pid: int) -> tuple[object, ...]:
    """What a process has that borrowing could leave changed: mappings, descriptors, children, masks and handlers of each thread."""
    tasks = Path(f"/proc/{pid}/task")
    signals = {
        task.name: [
            line
            for line in (task / "status").read_text().splitlines()
            if line.startswith(("SigPnd", "SigBlk", "SigIgn", "SigCgt", "ShdPnd", "Threads"))
        ]
        for task in tasks.iterdir()
    }
    children = sorted((task / "children").read_text() for task in tasks.iterdir())
    return Path(f"/proc/{pid}/maps").read_text(), sorted(os.listdir(f"/proc/{pid}/fd")), children, signals


def held_by_us() -> list[str]:
    """/proc/PID/stat of processes that this process traces, but for those that have ended: our own children are left to who started them."""
    found = []
    for pid in procfs.processes():
        with suppress(OSError):
            if int(procfs.status(pid)["TracerPid"]) == os.getpid() and procfs.stat(pid).state != "Z":
                found.append(Path(f"/proc/{pid}/stat").read_text())
    return found


class KilledBefore:
    """While it is entered, a target is killed just before a ptrace request that this process makes: the `step`-th, counted from 1, of
    whatever thread; `reached` says whether there were so many. Waits until the kernel has ended it, as far as a traced process can."""

    def __init__(self, pid: int, step: int) -> None:
        self._pid, self._left = pid, step
        self._request = ptrace.request

    @property
    def reached(self) -> bool:
        return self._left <= 0

    def __enter__(self) -> KilledBefore:
        ptrace.request = self._counted  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        ptrace.request = self._request

    def _counted(self, *arguments: object) -> int:
        self._left -= 1
        if self._left == 0:
            os.kill(self._pid, signal.SIGKILL)
            wait_for(lambda: procfs.stat(self._pid).state in "ZXx")
        return int(self._request(*arguments))
