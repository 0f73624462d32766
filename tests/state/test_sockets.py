"""Sockets."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Target
from tests.state.reading import capture, every, numbers, one, read_state, still_well, unsaved
from vcsimg.capture.state import StateReader
from vcsimg.image.sections.sockets import Message, Options, Passed, Socket, Tcp, WaitingConnection

ESTABLISHED, CLOSE, LISTEN = 1, 7, 10


def test_unix_sockets(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_unix", tmp_path)
    s0, s1, d0, d1, p1, h0, h1, listener, client, abstract = numbers(target)
    state = read_state(target.pid)
    by_fd = {item.fd: item for item in every(state, Socket)}

    assert (by_fd[s0].family, by_fd[s0].type, by_fd[s0].state) == (socket.AF_UNIX, socket.SOCK_STREAM, ESTABLISHED)
    assert by_fd[s0].peer_inode == by_fd[s1].inode
    assert by_fd[d1].peer_inode == by_fd[d0].inode
    assert by_fd[p1].type == socket.SOCK_SEQPACKET
    assert by_fd[h0].shutdown == 2
    assert by_fd[h1].shutdown == 1
    assert (by_fd[listener].state, by_fd[listener].backlog, by_fd[listener].local) == (LISTEN, 7, f"{tmp_path}/listening")
    assert by_fd[listener].bound_inode == (tmp_path / "listening").stat().st_ino
    assert by_fd[client].peer == f"{tmp_path}/listening"
    assert every(state, WaitingConnection) == [WaitingConnection(listener, by_fd[client].inode)]
    assert by_fd[abstract].local == f"@vcsimg test {target.pid}"
    assert dict(one(state, Options, fd=s0).values)["so_sndbuf"] == "200000"
    assert dict(one(state, Options, fd=s1).values)["so_passcred"] == "1"
    assert unsaved(state) == {}
    still_well(target)


def test_what_waits_in_unix_sockets_is_read_and_left_there(start: Callable[..., Target], tmp_path: Path) -> None:
    target = start("state_unix", tmp_path)
    s0, s1, d0, d1, p1, *_ = numbers(target)
    state = read_state(target.pid)

    stretches = every(state, Message, fd=s1)
    assert b"".join(item.data for item in stretches) == b"first secondwith a descriptorlast"
    assert [item.descriptors for item in stretches if item.descriptors] == [1]
    passed = one(state, Passed, fd=s1)
    assert stretches[passed.message].data.endswith(b"with a descriptor")
    assert (passed.same, passed.type) == (d1, "socket")
    assert [item.data for item in every(state, Message, fd=d1)] == [b"message", b"another one"]
    assert [item.data for item in every(state, Message, fd=p1)] == [b"packet", b"p2"]
    assert every(state, Message, fd=d0) == []
    assert every(state, Message, fd=s0) == []
    still_well(target)


def test_inet_sockets(start: Callable[..., Target]) -> None:
    target = start("state_inet")
    listener, client, server, udp, _sender, udp_port, sender_port = numbers(target)
    state = read_state(target.pid)
    by_fd = {item.fd: item for item in every(state, Socket)}

    assert (by_fd[listener].state, by_fd[listener].backlog) == (LISTEN, 5)
    assert (by_fd[client].state, by_fd[client].peer) == (ESTABLISHED, by_fd[listener].local)
    assert (by_fd[server].peer, by_fd[server].local) == (by_fd[client].local, by_fd[client].peer)
    options = dict(one(state, Options, fd=client).values)
    assert (options["tcp_nodelay"], options["tcp_keepidle"]) == ("1", "77")
    assert dict(one(state, Options, fd=listener).values)["so_reuseaddr"] == "1"
    assert one(state, Message, fd=server).data == b"over the wire"
    assert [item.data for item in every(state, Message, fd=udp)] == [b"one", b"three"]
    source = every(state, Message, fd=udp)[0].source
    assert source is not None
    assert int.from_bytes(source[2:4], "big") == sender_port
    assert by_fd[udp].local == f"127.0.0.1:{udp_port}"
    assert by_fd[udp].state == CLOSE
    still_well(target)


def test_sequence_numbers_of_tcp_for_the_privileged(start: Callable[..., Target]) -> None:
    target = start("state_inet")
    _, client, server, *_ = numbers(target)
    state = read_state(target.pid)

    if os.geteuid() != 0:
        assert every(state, Tcp) == []
        still_well(target)
        return
    here, there = one(state, Tcp, fd=client), one(state, Tcp, fd=server)
    assert here.send_sequence == there.receive_sequence
    assert there.send_sequence == here.receive_sequence
    assert here.sending == b""
    still_well(target)


OTHER_HOST = """
import socket
listener = socket.create_server(("127.0.0.2", 0))
client = socket.create_connection(listener.getsockname(), source_address=("127.0.0.1", 0))
server = listener.accept()[0]
print(client.fileno(), flush=True)
input()
"""


@pytest.mark.parametrize("leaving", [False, True])
def test_connections_to_other_hosts_are_put_into_repair_mode_only_when_the_process_ends(leaving: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", OTHER_HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        client = int(process.stdout.readline())
        state = capture(StateReader(process.pid, leaving=leaving))
        process.stdin.write(b"\n")
    found = [item.fd for item in every(state, Tcp)]
    assert (client in found) == (leaving and os.geteuid() == 0)


def test_many_sockets_with_few_descriptors_of_ours() -> None:
    """Each is read all the same, with what waits in it."""
    program = "import socket\nkept=[socket.socketpair() for _ in range(150)]\nfor one,_ in kept: one.send(b'waits')\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        assert target.stdout is not None
        assert target.stdout.readline()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, before[1]))
        try:
            state = read_state(target.pid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            target.kill()
    assert unsaved(state) == {}
    assert len(every(state, Socket)) == 300
    assert [item.data for item in every(state, Message)] == [b"waits"] * 150
