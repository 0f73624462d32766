"""System V IPC and POSIX message queues."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import compile_target
from tests.restore.reviving import capture, capture_and_revive
from tests.restore.test_restore_programs import as_user
from vcsimg.kernel import sysvipc

_PREFIXES = (0x5643, 0x5644)
"""Upper halves of the keys that restore_ipc.c uses."""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """A captured program that was killed leaves its objects to the system."""
    yield
    libc = ctypes.CDLL(None)
    for which, remove in (
        ("shm", lambda number: libc.shmctl(number, 0, None)),
        ("sem", lambda number: libc.semctl(number, 0, 0)),
        ("msg", lambda number: libc.msgctl(number, 0, None)),
    ):
        for one in sysvipc.objects(which):
            if one.key >> 16 in _PREFIXES:
                remove(one.id)
    for user in (os.getuid(), 65534):
        ctypes.CDLL("librt.so.1").mq_unlink(f"/vcsimg-test-{user}".encode())


def test_system_v_objects_have_their_ids_keys_and_content(tmp_path: Path) -> None:
    assert capture_and_revive([compile_target("restore_ipc")], tmp_path) == ("verified\n", 42)


def test_system_v_objects_as_an_ordinary_user(tmp_path: Path, as_nobody: list[str]) -> None:
    done = as_user(as_nobody, tmp_path, [compile_target("restore_ipc")])
    assert (done.stdout, done.returncode) == ("verified\n\n42\n", 0), done.stderr


def test_message_queues(tmp_path: Path) -> None:
    assert capture_and_revive([compile_target("restore_mqueue")], tmp_path) == ("verified\n", 42)


def test_message_queues_as_an_ordinary_user(tmp_path: Path, as_nobody: list[str]) -> None:
    done = as_user(as_nobody, tmp_path, [compile_target("restore_mqueue")])
    assert (done.stdout, done.returncode) == ("verified\n\n42\n", 0), done.stderr


def test_adjustments_of_semaphores_are_named_as_not_saved(tmp_path: Path) -> None:
    captured = capture([compile_target("restore_ipc"), "undo"], tmp_path)
    captured.kill()
    process = captured.repository.load(captured.commit).processes[0]
    assert "semaphore adjustments" in [record["resource"] for record in process.section("unsaved")]
    captured.repository.close()
