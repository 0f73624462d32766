"""What is other than it was is said when a process is restored."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.restore.reviving import Captured, capture
from vcsimg.image.sections.item import Item, records, select
from vcsimg.image.sections.places import Cgroup
from vcsimg.image.snapshot import Process
from vcsimg.restore import RestoreOptions, restore

ECHO = 'print("ready", flush=True)\ninput()\n'


@pytest.fixture
def captured(tmp_path: Path) -> Iterator[Captured]:
    found = capture([sys.executable, "-c", ECHO], tmp_path)
    found.kill()
    yield found
    found.repository.close()


def notes(captured: Captured, change: Callable[[Process], Process] = lambda process: process) -> tuple[str, ...]:
    """What a restore says of an image that was changed so."""
    snapshot = captured.repository.load(captured.commit)
    snapshot = replace(snapshot, processes=tuple(change(process) for process in snapshot.processes))
    restored = restore(snapshot, RestoreOptions(standard=(None, None, None)))
    restored.space.close()
    return restored.notes


def with_section(process: Process, name: str, *items: Item) -> Process:
    return replace(process, state={**process.state, name: records(items)})


def test_the_same_cgroup_is_not_mentioned(captured: Captured) -> None:
    assert [note for note in notes(captured) if "cgroup" in note] == []


def test_another_cgroup(captured: Captured) -> None:
    def move(process: Process) -> Process:
        groups = select(process.section("cgroup"), Cgroup)
        if not groups:
            pytest.skip("no cgroups here")
        return with_section(process, "cgroup", *(replace(group, path=f"{group.path.rstrip('/')}/deeper") for group in groups))

    (note,) = [note for note in notes(captured, move) if "cgroup" in note]
    assert f"process {captured.pid} in " in note
    assert "/deeper" in note
