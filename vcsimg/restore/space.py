"""Where restored processes live: pid and mount namespaces of their own (and a user namespace, without root), with a small init.

The init is a fork of us. It makes the root process with the pid that is asked for, and later reaps what nobody else does, passes signals on to the
root process, and tells us how that ended. When it dies, so does everything in its pid namespace.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from vcsimg.errors import RestoreError
from vcsimg.image.sections.places import HostName
from vcsimg.kernel import prctl_set
from vcsimg.kernel.calls import call
from vcsimg.kernel.clone import CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, CLONE_PARENT, clone
from vcsimg.kernel.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SLAVE, mount
from vcsimg.kernel.syscalls import NR
from vcsimg.restore import leader

_FORWARDED = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGWINCH,
)  # fmt: skip
_REPLY = 65536
_MOST_FDS = 250


class Space:
    """`init`: the init's pid as we see it. `user_namespace`: the processes have one of their own."""

    def __init__(
        self, *, host_pids: bool, uid: int, gid: int, ipc: bool = False, terminals: bool = False, name: HostName | None = None
    ) -> None:
        """`uid`, `gid`: whom the user is inside a user namespace; `ipc`, `terminals`: with an IPC namespace, and a devpts file system, of its
        own; `name`: what the machine is called, in a UTS namespace of its own. Raises RestoreError."""
        if name is not None and host_pids:
            raise RestoreError("host name", f"the machine is called {name.node} only in namespaces of their own")
        self.host_pids = host_pids
        self.user_namespace = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        self.transport, self._transport_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.transport_inode = os.fstat(self._transport_end.fileno()).st_ino
        flags = 0 if host_pids else CLONE_NEWPID | CLONE_NEWNS | (CLONE_NEWIPC if ipc else 0) | (CLONE_NEWUTS if name else 0)
        try:
            self.init = self._clone(flags, theirs)
            theirs.close()
            if self.user_namespace:
                self._map_ids(uid, gid)
            called = [name.node, name.domain] if name is not None else None
            self._ask({"begin": not host_pids, "terminals": terminals, "ipc": ipc, "name": called})
        except BaseException:
            self.close()
            raise

    def _clone(self, flags: int, theirs: socket.socket) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        wanted = [flags, flags | CLONE_NEWUSER] if os.geteuid() == 0 or not flags else [flags | CLONE_NEWUSER]
        for chosen in wanted:
            try:
                pid = _fork(chosen)
            except OSError as error:
                if error.errno == errno.EPERM and chosen != wanted[-1]:
                    continue
                raise RestoreError(
                    "process ids", f"no namespace for them can be made: {error.strerror}", option="--host-pids"
                ) from None
            if pid == 0:
                _run(theirs, self._transport_end)
            self.user_namespace = bool(chosen & CLONE_NEWUSER)
            return pid
        raise AssertionError

    def _map_ids(self, uid: int, gid: int) -> None:
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {os.geteuid()} 1"),
            ("gid_map", f"{gid} {os.getegid()} 1"),
        ):
            try:
                with open(f"/proc/{self.init}/{name}", "w") as file:
                    file.write(content)
            except OSError as error:
                raise RestoreError("user namespace", f"{name} cannot be written: {error.strerror}") from None

    def make_root(self, pid: int, leader: int | None = None, path: str | None = None) -> tuple[int, bool]:
        """A skeleton with this pid inside; returns its pid as we see it. It is a child of the init; with `leader`, of a session leader with that pid
        (0: any), which has the terminal at `path`. Also whether that pid could be had. Raises RestoreError."""
        reply = self._ask({"fork": pid, "leader": leader, "path": path})
        if "errno" in reply:
            taken = reply["errno"] == errno.EEXIST
            reason = "the pid is in use" if taken else f"it cannot be made with this pid: {os.strerror(reply['errno'])}"
            raise RestoreError(f"process {pid}", reason)
        parent = self.init
        if leader is not None:
            parent = self._last_child(parent)
        return self._last_child(parent), not leader or reply["leader"] == leader

    @staticmethod
    def _last_child(pid: int) -> int:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return int(file.read().split()[-1])

    @property
    def root(self) -> str:
        """The folder that is the root of the processes, as we see it."""
        return f"/proc/{self.init}/root"

    def open(self, path: str, flags: int) -> int:
        """open(2) of a path as we see it. Where that is not permitted, and there is a user namespace, the init does it: there it may do with the
        files of our user and group what that may by changing their modes (capabilities(7), CAP_DAC_OVERRIDE). Raises OSError."""
        try:
            return os.open(path, flags)
        except PermissionError:
            if not self.user_namespace or not path.startswith(self.root + "/"):
                raise
        return self._ask_for_file({"open": path.removeprefix(self.root), "flags": flags})

    def send(self, through: int, data: bytes, fds: Sequence[int], sender: tuple[int, int, int], to: bytes | str | None) -> int:
        """sendmsg(2) by the init, which in a user namespace may name each of its processes as the sender. `sender`: pid, uid and gid there. Returns
        how much was sent. Raises OSError."""
        content = os.memfd_create("message", os.MFD_CLOEXEC)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.write(content, data)
            name = os.fsencode(to).hex() if to is not None else None
            reply = self._ask({"send": sender, "to": name}, [through, content, here, *fds])
        finally:
            os.close(here)
            os.close(content)
        _raise(reply)
        return int(reply["sent"])

    def _ask_for_file(self, request: dict[str, Any]) -> int:
        reply, fds = self._exchange(request)
        _raise(reply)
        return fds[0]

    def _ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        return self._exchange(request, fds)[0]

    def _exchange(self, request: dict[str, Any], fds: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        received: list[int] = []
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], fds)
            data, received, _, _ = socket.recv_fds(self._control, _REPLY, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data = b""
        if not data:
            raise RestoreError("process ids", "the init of their namespace has ended")
        reply: dict[str, Any] = json.loads(data)
        if "fatal" in reply:
            raise RestoreError("namespaces", reply["fatal"])
        return reply, received

    def settle(self, pid: int, terminals: Sequence[int] = ()) -> None:
        """Everything is restored: the init outlives us from now on. `terminals`: masters and slaves of ptys of which it shall throw away what is
        written to them."""
        self._ask({"settle": pid}, terminals)
        self.transport.close()
        self._transport_end.close()

    def fileno(self) -> int:
        """Readable when the root process has ended."""
        return self._control.fileno()

    def event(self) -> tuple[str, int]:
        """What happens next to the root process: `stopped` with a signal (told only if its session was founded outside of the image), or `status`
        with what wait(2) gives when it has ended."""
        try:
            data = self._control.recv(_REPLY)
        except OSError:
            data = b""
        if not data:
            return "status", int(signal.SIGKILL)
        ((name, value),) = json.loads(data).items()
        return str(name), int(value)

    def wait(self) -> int:
        """The status of the root process, as wait(2) gives it, when it has ended."""
        while True:
            name, value = self.event()
            if name == "status":
                return value

    def ended(self) -> bool:
        """Whether wait() would return at once."""
        return bool(select.select([self._control], [], [], 0)[0])

    def close(self) -> None:
        """End everything that lives here."""
        init = getattr(self, "init", None)
        if init is not None:
            with suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(init, 0)
            self.init = None  # type: ignore[assignment]
        self.leave()

    def leave(self) -> None:
        """Let it live on without us."""
        for end in (self._control, self.transport, self._transport_end):
            end.close()


def _raise(reply: dict[str, Any]) -> None:
    if "errno" in reply:
        raise OSError(reply["errno"], os.strerror(reply["errno"]))


def _fork(flags: int) -> int:
    """fork(2) with flags of clone(2): 0 in the child, else its id. Raises OSError.

    Between os.fork(), which leaves the memory allocator usable in the child though other threads were in it, and the child that we want is one
    that has a single thread, and makes that child our own.
    """
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            pid = clone(flags | CLONE_PARENT, 0)
        except OSError as error:
            pid = -(error.errno or errno.EINVAL)
        if pid == 0:
            os.close(reading)
            os.close(writing)
            return 0
        try:
            os.write(writing, b"%d" % pid)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        result = int(file.read() or -errno.ENOMEM)
    os.waitpid(between, 0)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


# What follows runs in the init.


def _run(control: socket.socket, transport: socket.socket) -> NoReturn:
    try:
        _Init(control, transport).run()
    except BaseException as error:
        with suppress(OSError):
            control.send(json.dumps({"fatal": f"{type(error).__name__}: {error}"}).encode())
    os._exit(1)


class _Init:
    def __init__(self, control: socket.socket, transport: socket.socket) -> None:
        self._control = control
        self._transport = transport
        self._root = self._first = 0
        self._apart = False
        self._terminals: Sequence[int] = ()

    def run(self) -> NoReturn:
        for number in range(1, signal.NSIG):
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, signal.SIGKILL)
        while True:
            data, fds, _, _ = socket.recv_fds(self._control, _REPLY, _MOST_FDS)
            if not data:
                os._exit(1)
            request = json.loads(data)
            reply: dict[str, Any] = {}
            opened: list[int] = []
            if "begin" in request:
                self._begin(request["begin"], request["terminals"], request["ipc"], request["name"])
            elif "fork" in request:
                reply = self._fork(request["fork"], request["leader"], request["path"])
            elif "settle" in request:
                self._settle(request["settle"], fds)
            elif "open" in request:
                reply = _open(request["open"], request["flags"], opened)
            elif "send" in request:
                reply = _send(fds, request["send"], request["to"])
            socket.send_fds(self._control, [json.dumps(reply).encode()], opened)
            for fd in opened:
                os.close(fd)
            if self._root:
                self._reap()

    def _begin(self, own_namespaces: bool, terminals: bool, ipc: bool, name: list[str] | None) -> None:
        # In a user namespace this undoes the effect of what the mapping of ids did to it.
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, signal.SIGKILL)
        self._apart = own_namespaces
        if not own_namespaces:
            call(NR["prctl"], prctl_set.SET_CHILD_SUBREAPER, 1)
            return
        for number, text in zip(("sethostname", "setdomainname"), name or (), strict=False):
            data = ctypes.create_string_buffer(text.encode(errors="surrogateescape"))
            call(NR[number], ctypes.addressof(data), len(data) - 1)
        mount("none", "/", "", MS_REC | MS_SLAVE)
        with suppress(OSError):
            # Not permitted where parts of /proc are hidden: then the processes see the pids of the host there.
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        with suppress(OSError):
            if terminals:
                mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
        with suppress(OSError):
            if ipc:
                mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)

    def _fork(self, pid: int, session: int | None, path: str | None) -> dict[str, Any]:
        if session is not None:
            return leader.make(self._control, pid, session, path)
        # The first of a pid namespace is so in another one, inside of ours, with its own view of /proc.
        first = pid == 1 and self._apart
        ready, done = os.pipe()
        try:
            child = clone(CLONE_NEWPID | CLONE_NEWNS, signal.SIGCHLD) if first else clone(0, signal.SIGCHLD, [pid])
        except OSError as error:
            os.close(ready)
            os.close(done)
            return {"errno": error.errno}
        if child == 0:
            if first:
                with suppress(OSError):
                    mount("none", "/", "", MS_REC | MS_SLAVE)
                    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            os.close(done)
            while True:
                signal.pause()
        os.close(done)
        os.read(ready, 1)  # nothing, when the child has come so far
        os.close(ready)
        self._first = child if first else 0
        return {}

    def _settle(self, root: int, terminals: Sequence[int]) -> None:
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, 0)
        self._root = self._first or root
        self._terminals = terminals[::2]
        leader.close_all_but(self._control.fileno(), *terminals)
        with suppress(OSError):
            os.setpgid(0, 0)  # what the user's terminal sends to our group is passed on by vcsimg
        with suppress(OSError):
            os.chdir("/")
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def _forward(self, number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._root, number)

    def _reap(self) -> NoReturn:
        """Until no process is left; the root's end is told at once."""
        if self._terminals:
            threading.Thread(target=_throw_away, args=(self._terminals,), daemon=True).start()
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                os._exit(0)
            if pid == self._root:
                with suppress(OSError):
                    self._control.send(json.dumps({"status": status}).encode())


def _open(path: str, flags: int, opened: list[int]) -> dict[str, Any]:
    try:
        opened.append(os.open(path, flags))
    except OSError as error:
        return {"errno": error.errno}
    return {}


def _send(fds: Sequence[int], sender: Sequence[int], to: str | None) -> dict[str, Any]:
    through, content, folder, *passed = fds
    ancillary = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("<3i", *sender))]
    if passed:
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"<{len(passed)}i", *passed)))
    with socket.socket(fileno=through) as handle:
        try:
            data = os.pread(content, os.fstat(content).st_size, 0)
            os.fchdir(folder)
            arguments = () if to is None else (bytes.fromhex(to),)
            return {"sent": handle.sendmsg([data], ancillary, socket.MSG_DONTWAIT, *arguments)}
        except OSError as error:
            return {"errno": error.errno}
        finally:
            for fd in (content, folder, *passed):
                os.close(fd)


def _throw_away(terminals: Sequence[int]) -> NoReturn:
    """What is written to terminals at which nobody sits. (Their slaves are open here too, so they never hang up.)"""
    poll = select.poll()
    for master in terminals:
        poll.register(master, select.POLLIN)
    while True:
        for master, _ in poll.poll():
            with suppress(OSError):
                os.read(master, 1 << 16)
