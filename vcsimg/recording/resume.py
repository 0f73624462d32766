"""Running a capture again: what is captured from then on continues its history on a branch of its own."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from vcsimg.kernel import procfs
from vcsimg.restore import Restored, RestoreOptions, restore
from vcsimg.store import Repository, branch_name

_FORWARDED = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT,
)  # fmt: skip


def resume(repository: Repository, revision: str, options: RestoreOptions) -> tuple[Restored, str]:
    """Restore a capture and begin a branch at it, on which recorders of the new process continue. Returns the branch too.

    Raises UnknownRevision, ImageError, RestoreError, StoreError; then nothing runs.
    """
    commit = repository.resolve(revision)
    snapshot = repository.load(commit)
    restored = restore(snapshot, options)
    try:
        name = snapshot.processes[0].name
        branch = branch_name(name, restored.pid, procfs.start_time(restored.pid))
        repository.start_branch(branch, commit)
    except (OSError, ProcessLookupError):
        return restored, ""  # it has ended already
    except BaseException:
        restored.space.close()
        raise
    return restored, branch


def attend(restored: Restored) -> int:
    """Wait for the root process, and pass on to it what is sent to us. Its status, as subprocess says it: negative for a signal."""

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(restored.pid, number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    with suppress(OSError, ValueError):
        before[signal.SIGTTOU] = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    foreground = _give_terminal(restored.pid)
    try:
        return os.waitstatus_to_exitcode(restored.space.wait())
    finally:
        if foreground is not None:
            with suppress(OSError):
                os.tcsetpgrp(foreground, os.getpgrp())
        for number, handler in before.items():
            signal.signal(number, handler)
        restored.space.leave()


def _give_terminal(pid: int) -> int | None:
    """Make the group of a process the foreground group of our terminal, if that is ours to give. Returns the terminal."""
    for fd in (0, 1, 2):
        try:
            if os.tcgetpgrp(fd) != os.getpgrp():
                continue
            os.tcsetpgrp(fd, os.getpgid(pid))
            return fd
        except OSError:
            continue
    return None
