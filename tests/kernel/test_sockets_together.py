"""What is asked of many sockets at once is what each of them says alone."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vcsimg.kernel import pidfd
from vcsimg.kernel.sockdiag import UnixDiag
from vcsimg.kernel.sockets import options_of
from vcsimg.kernel.sockets_together import Asked, ask


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """Of several families, in several states."""
    with ExitStack() as stack:

        def made(family: int, kind: int, protocol: int = 0) -> socket.socket:
            return stack.enter_context(socket.socket(family, kind, protocol))

        found = {"unconnected": made(socket.AF_UNIX, socket.SOCK_DGRAM), "netlink": made(socket.AF_NETLINK, socket.SOCK_RAW)}
        left, right = socket.socketpair()
        found |= {"left": stack.enter_context(left), "right": stack.enter_context(right)}
        left.send(b"waits")
        right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, (7).to_bytes(8, "little") + bytes(8))
        for name, family, address in (("unix", socket.AF_UNIX, str(tmp_path / "s")), ("tcp", socket.AF_INET6, ("::1", 0))):
            listener, client = made(family, socket.SOCK_STREAM), made(family, socket.SOCK_STREAM)
            listener.bind(address)
            listener.listen(3)
            client.connect(listener.getsockname())
            found |= {
                f"{name} listener": listener,
                f"{name} client": client,
                f"{name} server": stack.enter_context(listener.accept()[0]),
            }
        datagrams = made(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", 0))
        found["udp"] = datagrams
        yield found


def test_many_sockets_say_what_each_says_alone(sockets: dict[str, socket.socket]) -> None:
    found = dict(zip(sockets, ask([one.fileno() for one in sockets.values()]), strict=True))
    for name, one in sockets.items():
        said = found[name]
        assert isinstance(said, Asked)
        assert (said.family, said.kind, said.protocol) == (
            one.family,
            one.type,
            one.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL),
        ), name
        assert said.listening == name.endswith("listener")
        assert (said.peer is not None) == (name in ("left", "right", "netlink") or name.endswith(("client", "server"))), name
        assert said.local[:2] == int(one.family).to_bytes(2, "little")
        if one.family in (socket.AF_INET, socket.AF_INET6):
            assert int.from_bytes(said.local[2:4], "big") == one.getsockname()[1]
        assert not said.filtered
        assert bool(said.ready & select.POLLIN) == (name == "right"), name
        options = dict(said.options)
        assert options["so_rcvbuf"] == one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        for option in options_of(one.family, said.protocol):
            if option.name in options and not option.size:
                assert options[option.name] == one.getsockopt(option.level, option.number), (name, option.name)
    assert found["unix client"].local != found["unix server"].local
    assert found["left"].peer_pid == os.getpid()
    assert found["unconnected"].peer_pid is None
    assert dict(found["right"].options)["so_rcvtimeo"] == (7).to_bytes(8, "little") + bytes(8)


def test_what_is_no_socket_says_so_among_others(sockets: dict[str, socket.socket]) -> None:
    with open(os.devnull) as other:
        first, error, last = ask([sockets["left"].fileno(), other.fileno(), sockets["udp"].fileno()])
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOTSOCK
    assert isinstance(first, Asked)
    assert isinstance(last, Asked)
    assert list(ask([])) == []


@pytest.mark.parametrize("all_sockets", [0, 1])
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_unix_sockets_are_all_told_by_a_list_and_one_by_one(all_sockets: int, room: int) -> None:
    """Also where the answers do not all have room in the netlink socket."""
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(150)]
        for pair in pairs:
            for one in pair:
                stack.enter_context(one)
        inodes = [os.fstat(one.fileno()).st_ino for pair in pairs for one in pair]
        diag = UnixDiag()
        diag._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        found = diag.ask_all([*inodes, 1], all_sockets)
        peers = [inode for left, right in zip(inodes[::2], inodes[1::2], strict=True) for inode in (right, left)]
        assert [one.peer for one in found[:-1] if not isinstance(one, OSError)] == peers
        assert isinstance(found[-1], OSError)
        assert found[-1].errno == errno.ENOENT
        assert found[:-1] == [diag.ask(inode) for inode in inodes]
        assert diag.ask_all(inodes, 1) == found[:-1], "also after answers were lost"


def test_descriptors_are_had_together(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with open(tmp_path / "file") as file:
        process = os.pidfd_open(os.getpid())
        found = pidfd.getfds(process, [file.fileno(), 1 << 20, file.fileno()])
        os.close(process)
    first, error, second = found
    assert isinstance(error, OSError)
    assert error.errno == errno.EBADF
    for own in (first, second):
        assert isinstance(own, int)
        assert not os.get_inheritable(own)
        assert os.pread(own, 10, 0) == b"content"
        os.close(own)
