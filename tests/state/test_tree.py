"""What the processes of a tree have in common."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Target
from tests.state.reading import numbers, still_well
from vcsimg.capture.state import TreeState
from vcsimg.image.region import RegionMap
from vcsimg.image.sections.family import Child, SharedFile, SharedTable, Zombie
from vcsimg.image.sections.item import select
from vcsimg.image.snapshot import Process
from vcsimg.process import hold_tree


def read_tree(pid: int) -> dict[int, Process]:
    tree = TreeState()
    with hold_tree(pid) as helds:
        tree.read_held(helds)
    processes = [Process(held.pid, 0, "", RegionMap(()), ()) for held in helds]
    return {process.pid: process for process in tree.finish(processes)}


def test_children_and_zombies(start: Callable[..., Target]) -> None:
    target = start("state_tree")
    child, dead, killed, sharing, *_ = numbers(target)
    family = read_tree(target.pid)[target.pid].section("family")

    assert select(family, Child) == [Child(child), Child(sharing)]
    ended = {zombie.pid: zombie for zombie in select(family, Zombie)}
    assert set(ended) == {dead, killed}
    assert ended[dead].exit_status == 42 << 8
    assert ended[killed].exit_status == 15
    assert ended[dead].exit_signal == 17
    still_well(target)


def test_shared_open_files_and_tables(start: Callable[..., Target]) -> None:
    target = start("state_tree")
    child, _, _, sharing, file, other, pipe = numbers(target)
    processes = read_tree(target.pid)

    shared = select(processes[child].section("shared"), SharedFile)
    assert SharedFile(file, target.pid, file) in shared
    assert SharedFile(pipe, target.pid, pipe) in shared
    assert other not in {item.fd for item in shared}, "opened again by the child"
    tables = {item.table: item.process for item in select(processes[sharing].section("shared"), SharedTable)}
    assert (tables["files"], tables["fs"]) == (target.pid, target.pid)
    assert "memory" not in tables
    assert processes[target.pid].section("shared") == ()
    still_well(target)
