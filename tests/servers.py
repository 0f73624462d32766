"""Real git servers on loopback: smart HTTP (git http-backend), git's own protocol (git daemon), ssh (a server of our own)."""

from __future__ import annotations

import http.server
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import wait_for


class _Backend(http.server.BaseHTTPRequestHandler):
    """git http-backend(1) as CGI."""

    root = ""

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "tester",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _serve

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_server(repository: Path) -> Iterator[str]:
    """Serves the folder of a repository over smart HTTP, for pushes too. Gives the repository's URL."""
    subprocess.run(["git", "-C", repository, "config", "http.receivepack", "true"], check=True)
    handler = type("Handler", (_Backend,), {"root": str(repository.parent)})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{repository.name}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def git_daemon(repository: Path) -> Iterator[str]:
    """Serves the folder of a repository by git daemon, for reading. Gives the repository's URL."""
    folder = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())
    program = folder / "git-daemon"
    if not program.exists():
        pytest.skip("git daemon is not installed")
    port = _free_port()
    options = ["--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", f"--base-path={repository.parent}"]
    daemon = subprocess.Popen([program, *options], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port))
        yield f"git://127.0.0.1:{port}/{repository.name}"
    finally:
        daemon.terminate()
        daemon.wait()


@contextmanager
def ssh_server(name: str, repository: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """An ssh server with keys and settings of its own, for whoever runs the tests: "sshd" (OpenSSH's) or "dropbear".

    Gives the repository's URL, and a folder with a client's key `id` and `known_hosts`: see `ssh_command`.
    """
    if not shutil.which("ssh"):
        pytest.skip("ssh (openssh-client) is not installed")
    scratch.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / "id"], check=True)
    port = _free_port()
    user = pwd.getpwuid(os.getuid())
    command, environment, public = {"sshd": _sshd, "dropbear": _dropbear}[name](scratch, port, user)
    (scratch / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    with (scratch / "log").open("w") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=environment)
    try:
        wait_for(lambda: _answers(port) or server.poll() is not None)
        if server.poll() is not None:
            pytest.skip(f"{command[0]} does not start here: {(scratch / 'log').read_text()[-200:]}")
        yield f"ssh://{user.pw_name}@127.0.0.1:{port}{repository}", scratch
    finally:
        server.terminate()
        server.wait()


Server = tuple[list[str | Path], dict[str, str], str]
"""The command line of an ssh server, its environment, and the public key of the host."""


def _sshd(scratch: Path, port: int, user: pwd.struct_passwd) -> Server:
    if Path(user.pw_shell).name in ("nologin", "false"):
        pytest.skip(f"user {user.pw_name} cannot log in")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd(8): its empty folder for privilege separation
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", scratch / "host"], check=True)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": scratch / "host",
        "AuthorizedKeysFile": scratch / "id.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "SetEnv": f"GIT_CONFIG_GLOBAL={os.devnull}",
    }
    config = scratch / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return [_server("sshd"), "-D", "-e", "-f", config], dict(os.environ), (scratch / "host.pub").read_text()


def _dropbear(scratch: Path, port: int, user: pwd.struct_passwd) -> Server:
    """dropbear reads ~/.ssh/authorized_keys and nothing else, so nss_wrapper(1) tells it of another home."""
    wrapper = next(iter(Path("/usr/lib").glob("*/libnss_wrapper.so")), None)
    if not _server("dropbear") or wrapper is None:
        pytest.skip("dropbear-bin and libnss-wrapper are not installed")
    home = scratch / "home"
    home.mkdir(mode=0o700)
    (home / ".ssh").mkdir(mode=0o700)
    keys = home / ".ssh" / "authorized_keys"
    shutil.copyfile(scratch / "id.pub", keys)
    keys.chmod(0o600)
    (scratch / "passwd").write_text(f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::{home}:/bin/sh\n")
    (scratch / "group").write_text(f"{user.pw_name}:x:{user.pw_gid}:\n")
    made = subprocess.run(["dropbearkey", "-t", "ed25519", "-f", scratch / "host"], check=True, capture_output=True, text=True)
    public = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519 "))
    told = {"LD_PRELOAD": wrapper, "NSS_WRAPPER_PASSWD": scratch / "passwd", "NSS_WRAPPER_GROUP": scratch / "group"}
    command = [_server("dropbear"), "-F", "-E", "-s", "-j", "-k", "-p", f"127.0.0.1:{port}", "-r", scratch / "host"]
    return [*command, "-P", scratch / "pid"], {**os.environ, **{name: str(path) for name, path in told.items()}}, public + "\n"


def _server(name: str) -> str:
    """A server's program; empty if it is not installed. It lies where ordinary users do not look."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin") or ""


def ssh_command(folder: Path) -> str:
    """GIT_SSH_COMMAND for the client whose `id` and `known_hosts` are in a folder."""
    options = ("-F", os.devnull, "-i", folder / "id", "-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "BatchMode=yes")
    return shlex.join(map(str, ("ssh", *options)))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


SSH_SERVERS = [name for name in ("sshd", "dropbear") if _server(name)] or ["dropbear"]
"""Those that are installed. The set-up installs dropbear, which comes without a service, and leaves it to others to want an sshd."""
