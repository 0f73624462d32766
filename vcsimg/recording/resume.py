"""Running a capture again: what is captured from then on continues its history on a branch of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from vcsimg.kernel import procfs
from vcsimg.recording.relay import Relay
from vcsimg.restore import Restored, RestoreOptions, restore
from vcsimg.store import Repository, branch_name

_FORWARDED = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCONT,
)  # fmt: skip
_FROM_TERMINALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT)
_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


def resume(repository: Repository, revision: str, options: RestoreOptions) -> tuple[Restored, str]:
    """Restore a capture and begin a branch at it, on which recorders of the new process continue. Returns the branch too.

    Raises UnknownRevision, ImageError, RestoreError, StoreError; then nothing runs.
    """
    commit = repository.resolve(revision)
    snapshot = repository.load(commit)
    branch = ""

    def begin(pid: int, start_ticks: int) -> None:
        nonlocal branch
        wanted = branch_name(snapshot.processes[0].name, pid, procfs.start_time(pid))
        branch = repository.start_branch(wanted, commit, pid, start_ticks, procfs.boot_id())

    return restore(snapshot, options, begin), branch


def attend(restored: Restored, standard: Sequence[int | None] = (0, 1, 2)) -> int:
    """Wait for the root process, pass on to it what is sent to us, and relay its terminal. Its status, as subprocess says it: negative for a signal.

    `standard`: as in the options with which it was restored.
    """

    def forward(number: int, _: FrameType | None) -> None:
        _send(restored.pid, number)

    def stop(number: int, _: FrameType | None) -> None:
        # Not relayed: Ctrl-Z at the terminal that its standard input leads to. It is in another session, so it is told.
        _send(restored.pid, signal.SIGTSTP)
        _stop(restored, None)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    relay = Relay(restored.terminal, standard) if restored.terminal is not None else None
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, forward if relay is not None else stop)
    try:
        if relay is not None:
            relay.begin()
        while True:
            name, value = relay.event(restored.space) if relay is not None else restored.space.event()
            if name == "status":
                return os.waitstatus_to_exitcode(value)
            if relay is not None and value in _STOPS:
                _stop(restored, relay)
    finally:
        if relay is not None:
            relay.end()
            relay.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        restored.space.leave()


def _send(pid: int, number: int) -> None:
    """To the process; what terminals send goes to its whole group."""
    with suppress(ProcessLookupError, PermissionError):
        if number in _FROM_TERMINALS and os.getpgid(pid) != os.getpgrp():
            os.killpg(os.getpgid(pid), number)
        else:
            os.kill(pid, number)


def _stop(restored: Restored, relay: Relay | None) -> None:
    """The restored process has stopped, and so do we, as the job of the user's shell that we are; then both go on."""
    if relay is not None:
        relay.end()
    os.kill(0, signal.SIGSTOP)
    if relay is not None:
        relay.begin()
    _send(restored.pid, signal.SIGCONT)
