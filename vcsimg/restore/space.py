"""Where restored processes live: pid and mount namespaces of their own (and a user namespace, without root), with a small init.

The init is a fork of us. It makes the root process with the pid that is asked for, and later reaps what nobody else does, passes signals on to the
root process, and tells us how that ended. When it dies, so does everything in its pid namespace.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

from vcsimg.errors import RestoreError
from vcsimg.kernel import prctl_set
from vcsimg.kernel.calls import call
from vcsimg.kernel.clone import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, clone
from vcsimg.kernel.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SLAVE, mount
from vcsimg.kernel.syscalls import NR

_FORWARDED = (
    signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGWINCH,
)  # fmt: skip
_REPLY = 65536


class Space:
    """`init`: the init's pid as we see it. `user_namespace`: the processes have one of their own."""

    def __init__(self, *, host_pids: bool, uid: int, gid: int) -> None:
        """`uid`, `gid`: whom the user is inside a user namespace. Raises RestoreError."""
        self.host_pids = host_pids
        self.user_namespace = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        self.transport, self._transport_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.transport_inode = os.fstat(self._transport_end.fileno()).st_ino
        flags = 0 if host_pids else CLONE_NEWPID | CLONE_NEWNS
        try:
            self.init = self._clone(flags, theirs)
            theirs.close()
            if self.user_namespace:
                self._map_ids(uid, gid)
            self._ask({"begin": not host_pids})
        except BaseException:
            self.close()
            raise

    def _clone(self, flags: int, theirs: socket.socket) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        wanted = [flags, flags | CLONE_NEWUSER] if os.geteuid() == 0 or not flags else [flags | CLONE_NEWUSER]
        for chosen in wanted:
            try:
                pid = clone(chosen, signal.SIGCHLD)
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

    def make_root(self, pid: int, group: int | None) -> int:
        """A skeleton with this pid inside, a child of the init; returns its pid as we see it. Raises RestoreError."""
        reply = self._ask({"fork": pid})
        if "errno" in reply:
            taken = reply["errno"] == errno.EEXIST
            reason = "the pid is in use" if taken else f"it cannot be made with this pid: {os.strerror(reply['errno'])}"
            raise RestoreError(f"process {pid}", reason)
        with open(f"/proc/{self.init}/task/{self.init}/children") as file:
            return int(file.read().split()[-1])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._control.send(json.dumps(request).encode())
            data = self._control.recv(_REPLY)
        except OSError:
            data = b""
        if not data:
            raise RestoreError("process ids", "the init of their namespace has ended")
        reply: dict[str, Any] = json.loads(data)
        if "fatal" in reply:
            raise RestoreError("namespaces", reply["fatal"])
        return reply

    def settle(self, pid: int) -> None:
        """Everything is restored: the init outlives us from now on."""
        self._ask({"settle": pid})
        self.transport.close()
        self._transport_end.close()

    def fileno(self) -> int:
        """Readable when the root process has ended."""
        return self._control.fileno()

    def wait(self) -> int:
        """The status of the root process, as wait(2) gives it, when it has ended."""
        while True:
            try:
                data = self._control.recv(_REPLY)
            except InterruptedError:
                continue
            except OSError:
                data = b""
            if not data:
                return int(signal.SIGKILL)
            status = json.loads(data).get("status")
            if status is not None:
                return int(status)

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
        self._root = 0

    def run(self) -> NoReturn:
        for number in range(1, signal.NSIG):
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, signal.SIGKILL)
        while True:
            data = self._control.recv(_REPLY)
            if not data:
                os._exit(1)
            request = json.loads(data)
            reply: dict[str, Any] = {}
            if "begin" in request:
                self._begin(request["begin"])
            elif "fork" in request:
                reply = self._fork(request["fork"])
            elif "settle" in request:
                self._settle(request["settle"])
            self._control.send(json.dumps(reply).encode())
            if self._root:
                self._reap()

    def _begin(self, own_namespaces: bool) -> None:
        # In a user namespace this undoes the effect of what the mapping of ids did to it.
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, signal.SIGKILL)
        if not own_namespaces:
            call(NR["prctl"], prctl_set.SET_CHILD_SUBREAPER, 1)
            return
        mount("none", "/", "", MS_REC | MS_SLAVE)
        with suppress(OSError):
            # Not permitted where parts of /proc are hidden: then the processes see the pids of the host there.
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)

    def _fork(self, pid: int) -> dict[str, Any]:
        try:
            child = clone(0, signal.SIGCHLD, [pid])
        except OSError as error:
            return {"errno": error.errno}
        if child == 0:
            while True:
                signal.pause()
        return {}

    def _settle(self, root: int) -> None:
        call(NR["prctl"], prctl_set.SET_PDEATHSIG, 0)
        self._root = root
        self._transport.close()
        keep = self._control.fileno()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            if fd != keep:
                os.dup2(nowhere, fd)
        os.closerange(3, keep)
        os.closerange(keep + 1, 1 << 20)
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
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                os._exit(0)
            if pid == self._root:
                with suppress(OSError):
                    self._control.send(json.dumps({"status": status}).encode())
