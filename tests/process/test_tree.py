"""Holding a process and all that descend from it, at one instant."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.process.helpers import Start, ready, state, tracers
from vcsimg.errors import NoSuchProcess, UnsupportedProcess
from vcsimg.kernel import procfs
from vcsimg.kernel.syscalls import NR
from vcsimg.process import hold_tree


def test_tree_is_held_root_first_parents_before_children(start: Start) -> None:
    target = ready(start("proc_tree", 3, 2))
    with hold_tree(target.pid) as helds:
        pids = [held.pid for held in helds]
        assert pids[0] == target.pid
        assert len(set(pids)) == len(pids) == 15
        assert set(pids[1:]) == set(procfs.descendants(target.pid))
        for held in helds[1:]:
            assert pids.index(procfs.stat(held.pid).ppid) < pids.index(held.pid)
        assert {state(pid) for pid in pids} == {"t"}
        for held in helds:
            with held.borrow() as borrowed:
                assert borrowed.syscall(NR["getpid"]) == held.pid
    assert {tracer for pid in pids for tracer in tracers(pid)} == {0}
    for pid in pids[1:]:
        os.kill(pid, signal.SIGKILL)


def test_tree_that_grows_and_shrinks_all_the_time_is_held_whole(start: Start) -> None:
    target = ready(start("proc_forks"))
    for _ in range(40):
        with hold_tree(target.pid) as helds:
            pids = {held.pid for held in helds}
            alive = {pid for pid in procfs.descendants(target.pid) if state(pid) != "Z"}
            assert alive <= pids
            assert {state(pid) for pid in pids if Path(f"/proc/{pid}").exists()} <= {"t", "Z"}
    target.send("\n")
    assert target.line().startswith("done ")


def test_zombies_are_not_held(start: Start) -> None:
    target = start("/bin/sh", "-c", "sleep 0 & echo $!; exec sleep 1000")
    zombie = int(target.line())
    wait_for(lambda: state(zombie) == "Z")
    with hold_tree(target.pid) as helds:
        assert [held.pid for held in helds] == [target.pid]
        assert procfs.children(target.pid) == [zombie]


def test_tree_of_nothing(start: Start) -> None:
    with pytest.raises(NoSuchProcess), hold_tree(1 << 22):
        pass
    target = start("/bin/true")
    wait_for(lambda: state(target.pid) == "Z")
    with pytest.raises(UnsupportedProcess), hold_tree(target.pid):
        pass
