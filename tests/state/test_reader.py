"""Reading a process as a whole: by whom, and what happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Target, wait_for
from tests.state.reading import capture, every, numbers, one, read_state, still_well
from vcsimg.capture.state import StateReader, host_records
from vcsimg.errors import NoSuchProcess, ProcessChanged
from vcsimg.image.records import format_records, parse_records
from vcsimg.image.sections import HOST
from vcsimg.image.sections.files import Duplicate, File
from vcsimg.image.sections.places import Mount
from vcsimg.image.sections.signals import Handler
from vcsimg.image.sections.status import Identity
from vcsimg.process import hold

ROOT = Path(__file__).parents[2]


def test_a_stopped_process_says_so(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_status", tmp_path)
    numbers(target)
    target.stop()
    assert one(read_state(target.pid), Identity).stopped


def test_nothing_is_left_in_the_process(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_unix", tmp_path)
    numbers(target)
    before = sorted(os.listdir(f"/proc/{target.pid}/fd")), Path(f"/proc/{target.pid}/maps").read_text()
    own = sorted(os.listdir("/proc/self/fd"))
    read_state(target.pid)
    assert (sorted(os.listdir(f"/proc/{target.pid}/fd")), Path(f"/proc/{target.pid}/maps").read_text()) == before
    assert len(os.listdir("/proc/self/fd")) <= len(own) + 1, "one netlink socket may stay open"


def test_no_such_process() -> None:
    with pytest.raises(NoSuchProcess):
        StateReader(2**22 + 1)


def test_a_process_that_is_killed_while_it_is_held(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_status", tmp_path)
    numbers(target)
    reader = StateReader(target.pid)
    with hold(target.pid) as held:
        os.kill(target.pid, signal.SIGKILL)  # Popen.kill() would wait, and take the stop for the end
        wait_for(lambda: Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        with pytest.raises(ProcessChanged):
            reader.read_held(held)


def test_an_ordinary_user_reads_their_own_process(as_nobody: list[str]) -> None:
    script = (
        "import subprocess, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.state.reading import read_state, unsaved\n"
        "target = subprocess.Popen(['sh', '-c', 'echo; read x'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "target.stdout.readline()\n"
        "try:\n"
        "    state = read_state(target.pid)\n"
        "finally:\n"
        "    target.kill(); target.wait()\n"
        "print(state.name, sorted(state.state), unsaved(state))\n"
    )
    ran = subprocess.run([*as_nobody, sys.executable, "-c", script, str(ROOT)], capture_output=True, text=True, cwd="/", timeout=60)
    if "Permission denied" in ran.stderr or "No module named" in ran.stderr:
        pytest.skip("an ordinary user cannot run this Python")
    assert ran.returncode == 0, ran.stderr
    name, _, rest = ran.stdout.partition(" ")
    assert name == "sh"
    assert "'files'" in rest
    assert rest.endswith("] {}\n"), rest


def test_the_host() -> None:
    records = host_records()
    by_kind = {kind.kind: kind for kind in HOST}
    for record in records:
        assert by_kind[record.kind].parse(record).record() == record
    assert parse_records(format_records(records), "host") == records
    found = {record.kind: record for record in records}
    assert found["kernel"]["release"] == os.uname().release
    assert found["machine"].int("page_size") == 4096
    if "xsave" in found["cpu_features"].flags("names"):
        assert found["xsave"].int("size") >= 576
    assert host_records() is records


def test_hundreds_of_descriptors_that_look_alike_are_told_apart(start: Callable[..., Target], tmp_path: Path) -> None:
    first = os.open("/dev/null", os.O_RDONLY)
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    copies = [os.dup(first) for _ in range(50)]
    try:
        target = start("state_status", tmp_path, pass_fds=[first, *fds, *copies])
        numbers(target)
        state = read_state(target.pid)
    finally:
        for fd in (first, *fds, *copies):
            os.close(fd)
    assert {item.fd for item in every(state, Duplicate)} == set(copies)
    assert {item.of for item in every(state, Duplicate)} == {first}
    assert {*fds, first} <= {item.fd for item in every(state, File)}


def test_a_process_whose_main_thread_has_ended(start: Callable[..., Target]) -> None:
    target = start("state_orphaned")
    (tid,) = numbers(target)
    wait_for(lambda: Path(f"/proc/{target.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    reader = StateReader(target.pid)
    state = capture(reader)
    assert [thread.tid for thread in state.threads] == [tid]
    assert (one(state, Identity).pid, one(state, Identity).umask) == (target.pid, 0o11)
    assert {item.fd for item in every(state, File)} == {0, 1, 2}
    assert one(state, Handler, signal=int(signal.SIGUSR1)).action == 1
    assert every(state, Mount)
    still_well(target)
