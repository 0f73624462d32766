"""What is other than it was is said when a process is restored."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import compile_target
from tests.restore.reviving import Captured, capture
from vcsimg.image.sections.item import Item, records, select
from vcsimg.image.sections.places import Cgroup
from vcsimg.image.sections.program import ResourceLimit
from vcsimg.image.sections.sockets import Options
from vcsimg.image.sections.status import Identity, SessionKeyring
from vcsimg.image.sections.timers import ProcessorTime
from vcsimg.image.sections.unsaved import Unsaved
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


def test_a_session_keyring_that_is_gone(captured: Captured) -> None:
    def keep(process: Process) -> Process:
        ring = SessionKeyring(-1, "of old", 3)
        return replace(process, state={**process.state, "status": (*process.section("status"), ring.record())})

    (note,) = [note for note in notes(captured, keep) if "keyring" in note]
    assert "of old" in note


def test_used_processor_time(captured: Captured) -> None:
    def use(process: Process) -> Process:
        limits = [replace(one, soft=100, hard=200) if one.resource == "cpu" else one for one in limits_of(process)]
        process = replace(process, state={**process.state, "limits": records(limits)})
        return replace(process, state={**process.state, "timers": records([ProcessorTime(30, 5)])})

    said = notes(captured, use)
    assert [note for note in said if f"process {captured.pid} had used 30 s" in note and "5 s" in note], said
    assert [note for note in said if "RLIMIT_CPU" in note and "30 s lower" in note], said


def test_the_signal_that_stopped_a_process(captured: Captured) -> None:
    def stop(process: Process) -> Process:
        status = [
            replace(select([record], Identity)[0], stopped=True).record() if record.kind == Identity.kind else record
            for record in process.section("status")
        ]
        return replace(process, state={**process.state, "status": tuple(status)})

    assert not [note for note in notes(captured) if "SIGSTOP" in note]
    assert [note for note in notes(captured, stop) if f"process {captured.pid} is stopped" in note and "SIGSTOP" in note]


def test_options_of_a_socket_that_this_kernel_does_not_know(tmp_path: Path) -> None:
    found = capture([sys.executable, "-c", f"import socket\nlistening = socket.create_server(('127.0.0.1', 0))\n{ECHO}"], tmp_path)
    found.kill()

    def change(process: Process) -> Process:
        known = select(process.section("sockets"), Options)
        changed = [replace(one, values=(*one.values, ("tcp_ulp", b"unheard of".hex()))).record() for one in known]
        others = [record for record in process.section("sockets") if record.kind != Options.kind]
        return replace(process, state={**process.state, "sockets": (*others, *changed)})

    try:
        (note,) = [note for note in notes(found, change) if "(socket)" in note]
        assert "TCP_ULP could not be set to what it was" in note
    finally:
        found.repository.close()


def test_the_folder_of_a_socket_went_with_its_program(tmp_path: Path) -> None:
    """As Python's multiprocessing takes its temporary folder away at its end."""
    folder = tmp_path / "of its own" / "inner"
    folder.mkdir(parents=True)
    found = capture(
        [
            sys.executable,
            "-c",
            f"import socket\nl = socket.socket(socket.AF_UNIX)\nl.bind({str(folder / 's')!r})\nl.listen()\n{ECHO}",
        ],
        tmp_path,
    )
    found.kill()
    (folder / "s").unlink()
    shutil.rmtree(folder.parent)
    try:
        (note,) = [note for note in notes(found) if "made anew" in note]
        assert str(folder) in note
        assert (folder / "s").is_socket()
    finally:
        found.repository.close()


def limits_of(process: Process) -> list[ResourceLimit]:
    return select(process.section("limits"), ResourceLimit)


NAMED = {
    "named_session_keyring": ("session keyring mine", "has 1 in it"),
    "named_timer_of_a_thread": ("POSIX timer 0 clock", "the thread that made it"),
    "named_write_cut_short": ("write to fd", "returned 65536 of 1048576 bytes"),
    "named_receive_cut_short": ("recv with MSG_WAITALL from fd", "returned 1 of 2 bytes"),
    "named_messages_cut_short": ("recvmmsg from fd", "returned 1 of 2 messages"),
    "named_urgent_data_unix": ("fd ", "urgent data"),
    "named_socket_error": ("fd ", "error that was not fetched"),
    "named_inotify_events": ("fd ", "inotify events that were not read"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_does_not_come_back_is_named_at_capture_and_at_restore(name: str, tmp_path: Path) -> None:
    found = capture([compile_target("restore_named"), name], tmp_path)
    found.kill()
    try:
        if found.ready != "ready":
            pytest.skip("not on this kernel")
        resource, reason = NAMED[name]
        snapshot = found.repository.load(found.commit)
        lost = [one for process in snapshot.processes for one in select(process.section("unsaved"), Unsaved)]
        assert [one for one in lost if resource in one.resource and reason in one.reason], lost
        said = notes(found)
        assert [note for note in said if resource in note and reason in note], said
    finally:
        found.repository.close()
