"""Sockets."""

from __future__ import annotations

from vcsimg.errors import RestoreError
from vcsimg.image.sections.files import File
from vcsimg.image.snapshot import Process
from vcsimg.restore.context import Context


def make_socket(context: Context, process: Process, file: File) -> int | None:
    raise RestoreError(f"process {process.pid} fd {file.fd}", "sockets cannot be restored yet")
