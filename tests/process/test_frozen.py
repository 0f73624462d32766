"""Frozen children of held processes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from tests.conftest import compile_target, wait_for
from tests.process.helpers import KilledBefore, Start, asleep, held_by_us
from vcsimg.errors import ProcessError
from vcsimg.kernel import procfs
from vcsimg.process import fork_frozen, hold


def test_frozen_child_is_gone_when_closed(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    with hold(target.pid) as held:
        frozen = fork_frozen(held)
    assert procfs.children(target.pid) == [frozen.pid]
    frozen.close()
    assert procfs.children(target.pid) == []


def test_frozen_child_of_a_killed_vcsimg_ends_and_is_collected_by_the_next(start: Start) -> None:
    target = asleep(start("proc_sleep"))
    tracer = os.fork()
    if tracer == 0:
        try:
            with hold(target.pid) as held:
                fork_frozen(held)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(tracer, 0)
    (left,) = procfs.children(target.pid)
    wait_for(lambda: procfs.stat(left).state == "Z")
    assert procfs.stat(left).comm == "vcsimg-frozen"
    with hold(target.pid) as held:
        frozen = fork_frozen(held)
    frozen.close()
    assert procfs.children(target.pid) == []


def test_no_frozen_child_is_left_when_its_parent_is_killed_at_any_step(start: Start) -> None:
    """And no other one is taken for it, though it was made at the same addresses."""
    program = str(compile_target("proc_sleep"))
    with hold(asleep(start("/usr/bin/setarch", "-R", program)).pid) as held:
        other = fork_frozen(held)
    reached, step = True, 1
    while reached:
        target = asleep(start("/usr/bin/setarch", "-R", program))
        killed = KilledBefore(target.pid, step)
        with suppress(ProcessError), hold(target.pid) as held, killed:
            fork_frozen(held).close()
        assert [int(stat.split()[0]) for stat in held_by_us()] == [other.pid]
        target.end()
        reached = killed.reached
        step += 1
    assert step > 20
    other.close()
