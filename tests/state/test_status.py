"""Settings of the process as a whole, and what it was started with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target, compile_target
from tests.state.reading import every, numbers, one, read_state, still_well, unsaved
from vcsimg.image.sections.item import UNLIMITED
from vcsimg.image.sections.places import Cgroup, Mount, Namespace
from vcsimg.image.sections.program import Argument, AuxvEntry, ResourceLimit, Variable
from vcsimg.image.sections.status import Command, Credentials, Directory, Identity, MemoryBounds, Security, Settings

ADDR_NO_RANDOMIZE = 0x40000
AT_ENTRY, AT_EXECFN = 9, 31


def test_settings_of_the_process(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_status", tmp_path)
    (brk,) = numbers(target)
    state = read_state(target.pid)

    identity = one(state, Identity)
    assert (identity.pid, identity.parent, identity.umask, identity.stopped) == (target.pid, os.getpid(), 0o27, False)
    assert (identity.group, identity.session) == (os.getpgrp(), os.getsid(0))
    assert identity.namespace_pids[0] == target.pid
    program = compile_target("state_status")
    command = one(state, Command)
    assert (command.name, command.exe, command.inode) == ("a) name (b", str(program), program.stat().st_ino)
    assert state.name == "a) name (b"
    assert one(state, Directory, role="cwd").path == str(tmp_path)
    assert one(state, Directory, role="root").path == "/"
    credentials = one(state, Credentials)
    assert credentials.uid == (os.getuid(), os.geteuid(), os.geteuid(), os.geteuid())
    assert set(credentials.groups) == set(os.getgroups())
    assert credentials.no_new_privs
    assert one(state, Security).personality == ADDR_NO_RANDOMIZE
    settings = one(state, Settings)
    assert (settings.oom_score_adj, settings.subreaper, settings.thp_disable) == (345, True, 1)
    bounds = one(state, MemoryBounds)
    assert bounds.brk == brk + 100
    assert bounds.start_brk <= brk
    assert bounds.arg_start < bounds.arg_end <= bounds.env_start < bounds.env_end
    assert unsaved(state) == {}
    still_well(target)


def test_limits(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_status", tmp_path)
    numbers(target)
    state = read_state(target.pid)

    assert one(state, ResourceLimit, resource="nofile") == ResourceLimit("nofile", 123, 456)
    assert one(state, ResourceLimit, resource="cpu") == ResourceLimit("cpu", 7777, UNLIMITED)
    assert len(every(state, ResourceLimit)) == 16


def test_what_it_was_started_with(start: Callable[..., Target], tmp_path: Path) -> None:
    environment = {"PLAIN": "1", "ODD": "a=b\nc\\\"'", "BYTES": os.fsdecode(b"\xff\x80")}
    target = start("state_status", tmp_path, "", "a b", env=environment)
    numbers(target)
    state = read_state(target.pid)

    assert [item.value for item in every(state, Argument)][1:] == [str(tmp_path), "", "a b"]
    assert [item.value for item in every(state, Variable)] == [f"{name}={value}" for name, value in environment.items()]
    auxv = {item.key: item.value for item in every(state, AuxvEntry)}
    bounds = one(state, MemoryBounds)
    assert bounds.start_code <= auxv[AT_ENTRY] < bounds.end_code
    assert AT_EXECFN in auxv


def test_where_in_the_system_it_lives(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_status", tmp_path)
    numbers(target)
    state = read_state(target.pid)

    for item in every(state, Namespace):
        assert item.inode == os.stat(f"/proc/self/ns/{item.type}").st_ino
        assert not item.own
    assert {"pid", "mnt", "net", "user"} <= {item.type for item in every(state, Namespace)}
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    assert [f"{item.hierarchy}:{item.controllers}:{item.path}" for item in every(state, Cgroup)] == lines
    mount = one(state, Mount, id=one(state, Directory, role="root").mount)
    assert mount.point == "/"


def test_a_removed_current_directory_is_named(start: Callable[..., Target], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    target = start("state_status", tmp_path / "gone")
    numbers(target)
    (tmp_path / "gone").rmdir()
    state = read_state(target.pid)

    directory = one(state, Directory, role="cwd")
    assert (directory.path, directory.deleted) == (f"{tmp_path}/gone", True)
    assert unsaved(state) == {"directory cwd": "it was removed"}
