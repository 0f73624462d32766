"""Asking a running recorder for a capture: one line of JSON each way over a unix socket in the repository.

{"message": "before the migration"}  ──▶  {"commit": "9ad1…"} or {"error": "…"}
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vcsimg.errors import VcsimgError

_LIMIT = 1 << 16
_ANSWER_SECONDS = 600.0


def _folder(repository: Path) -> Path:
    return repository / "vcsimg" / "recorders"


def _short(folder_fd: int, pid: int) -> str:
    """The socket's path through our own descriptor of its folder: sun_path holds only 108 bytes, and a repository may lie deep."""
    return f"/proc/self/fd/{folder_fd}/{pid}"


class Control:
    """The recorder's side. Raises OSError if the socket cannot be made."""

    def __init__(self, repository: Path, pid: int) -> None:
        folder = _folder(repository)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / str(pid)
        self._path.unlink(missing_ok=True)  # of a recorder that was killed: the branch's lock says that none lives
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket.bind(_short(folder_fd, pid))
        finally:
            os.close(folder_fd)
        self._path.chmod(0o600)
        self._socket.listen(16)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()

    def serve(self, capture: Callable[[str | None], str]) -> None:
        """Answer all requests that wait. `capture(message)` makes the capture and returns its commit; a VcsimgError that it raises is
        told to the one who asked, and does not end the recording."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            with connection, suppress(OSError):
                connection.settimeout(2.0)
                request = _receive(connection)
                answer: dict[str, str]
                try:
                    message = json.loads(request).get("message")
                    answer = {"commit": capture(message if isinstance(message, str) else None)}
                except VcsimgError as error:
                    answer = {"error": str(error), "remedy": error.remedy or ""}
                except (ValueError, AttributeError):
                    answer = {"error": "not a request", "remedy": ""}
                connection.sendall(json.dumps(answer).encode() + b"\n")


def request_capture(repository: Path, pid: int, message: str | None) -> str | None:
    """Ask the recorder of a process for a capture; returns its commit, or None if no recorder follows the process in this
    repository. Raises VcsimgError with what the recorder answered if it could not."""
    try:
        folder_fd = os.open(_folder(repository), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(_short(folder_fd, pid))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        finally:
            os.close(folder_fd)
        connection.settimeout(_ANSWER_SECONDS)
        connection.sendall(json.dumps({"message": message}).encode() + b"\n")
        try:
            answer = json.loads(_receive(connection))
        except (ValueError, OSError):
            raise VcsimgError(f"the recorder of process {pid} ended before it answered") from None
    if "error" in answer:
        raise VcsimgError(answer["error"], remedy=answer.get("remedy") or None)
    return str(answer["commit"])


def recorders(repository: Path, folder: Path | None = None) -> list[int]:
    """Pids of the processes that have recorders in a repository; with `folder`, only those whose current folder is that one or one
    below it. A recorder that was killed may still be among them; request_capture() tells."""
    try:
        pids = sorted(int(name) for name in os.listdir(_folder(repository)) if name.isdigit())
    except FileNotFoundError:
        return []
    return pids if folder is None else [pid for pid in pids if _works_in(pid, folder.resolve())]


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def _receive(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _LIMIT:
        part = connection.recv(4096)
        if not part:
            break
        data += part
    return data
