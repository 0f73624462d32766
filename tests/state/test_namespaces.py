"""Processes in namespaces of their own, as in a container."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Target, compile_target
from tests.state.reading import every, one, read_state, still_well, unsaved
from vcsimg.image.sections.places import IdMap, Namespace
from vcsimg.image.sections.sockets import Socket
from vcsimg.image.sections.status import Identity

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--net", "--fork", "--kill-child"]


@pytest.fixture
def contained(start: Callable[..., Target], tmp_path: Path) -> tuple[Target, int]:
    """A program in user, pid and network namespaces of its own: what talks to it, and its pid as seen from here."""
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here")
    target = start("/usr/bin/env", *UNSHARE, compile_target("state_unix"), tmp_path)
    target.first = target.line()  # type: ignore[attr-defined]
    (child,) = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
    return target, int(child)


def test_ids_in_namespaces(contained: tuple[Target, int]) -> None:
    target, pid = contained
    state = read_state(pid)

    assert one(state, Identity).namespace_pids == (pid, 1)
    own = {item.type for item in every(state, Namespace) if item.own}
    assert {"user", "pid", "net"} <= own
    assert one(state, IdMap, which="uid") == IdMap("uid", 0, os.geteuid(), 1)
    still_well(target)


def test_peers_of_unix_sockets_in_another_network_namespace(contained: tuple[Target, int]) -> None:
    target, pid = contained
    state = read_state(pid)

    first, second = (int(word) for word in target.first.split()[:2])  # type: ignore[attr-defined]
    assert one(state, Socket, fd=first).peer_inode == one(state, Socket, fd=second).inode
    assert unsaved(state) == {}
    still_well(target)
