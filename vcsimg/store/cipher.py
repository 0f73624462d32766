"""Encryption of blobs at rest: chosen when a repository is made, so that whoever hosts a copy cannot read it.

Every blob is sealed with AES-256-SIV (RFC 5297), a deterministic authenticated cipher: equal contents become equal blobs, so
sharing goes on working, and a blob that was changed, or made without the key, is refused. Names stay readable:
addresses, pids, sizes, times and the messages of commits. Layout: docs/image-format.md, "Sealed blobs".
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pygit2

from vcsimg.errors import DamagedImage, HostileImage, KeyMissing, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

MAGIC = b"VXE\x01"
_KEY_SIZE = 64
_ID_SIZE = 8
CONFIG = "vcsimg.cipher"
NAME = "aes-siv"
KEY_FILE = "vcsimg.keyFile"
KEY_COMMAND = "vcsimg.keyCommand"
ENVIRONMENT = "VCSIMG_KEY_FILE"


class Cipher:
    """Seals and opens blobs with one key of 64 bytes."""

    def __init__(self, key: bytes) -> None:
        self._siv = _siv(key)
        self.id = hashlib.sha256(b"vcsimg key id\0" + key).digest()[:_ID_SIZE]

    def seal(self, data: bytes) -> bytes:
        """A blob for the repository. Equal data give equal blobs."""
        return MAGIC + self.id + self._siv.encrypt(data, [MAGIC])

    def unseal(self, blob: bytes, where: str) -> bytes:
        """What was sealed. Raises DamagedImage when the blob is not what was written, KeyMissing for another key."""
        from cryptography.exceptions import InvalidTag

        head = len(MAGIC) + _ID_SIZE
        if blob[len(MAGIC) : head] != self.id:
            raise KeyMissing(where, "it is encrypted with another key")
        try:
            return self._siv.decrypt(blob[head:], [MAGIC])
        except (InvalidTag, ValueError):
            raise DamagedImage(where, "it cannot be decrypted: it was changed, or made without the key") from None


def unsealed(blob: bytes, cipher: Cipher | None, where: str, *, sealed_only: bool) -> bytes:
    """The content of a blob that may be sealed. `sealed_only`: refuse one that is not.

    Raises KeyMissing, DamagedImage, HostileImage.
    """
    if blob[: len(MAGIC)] == MAGIC:
        if cipher is None:
            raise KeyMissing(where, "it is encrypted")
        return cipher.unseal(blob, where)
    if sealed_only:
        raise HostileImage(where, "it is not encrypted, and everything in this repository should be")
    return blob


def required(repo: pygit2.Repository) -> bool:
    """Whether a repository is one whose blobs are sealed. Raises StoreError for a cipher that is not known."""
    try:
        name = str(repo.config[CONFIG])
    except KeyError:
        return False
    if name != NAME:
        raise StoreError(repo.path, f"encrypted by {name!r}, which this vcsimg does not know", remedy="Install a newer vcsimg.")
    return True


def find(repo: pygit2.Repository) -> Cipher | None:
    """The cipher with the key that is at hand: from the file that VCSIMG_KEY_FILE names, or as the repository's configuration says.

    None when it is not there, or the command fails. Raises StoreError when what is there cannot be read, or is no key.
    """
    file = os.environ.get(ENVIRONMENT) or _config(repo, KEY_FILE)
    command = _config(repo, KEY_COMMAND)
    if file:
        try:
            text = Path(file).expanduser().read_text("ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(repo.path, f"the key cannot be read: {error}", remedy="Check the file and its permissions.") from None
    elif command:
        done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            return None  # as where there is no file: what needs no key goes on. The command itself says what is wrong
        text = done.stdout
    else:
        return None
    try:
        return Cipher(bytes.fromhex(text.strip()))
    except ValueError as error:
        raise StoreError(repo.path, f"not a key: {error}", remedy="A key is 128 hexadecimal digits.") from None


def make_key(file: Path) -> None:
    """Write a new key to a file for its owner alone, unless the file is there already. Raises OSError."""
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(fd, "w") as stream:
        stream.write(os.urandom(_KEY_SIZE).hex() + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def adopt(repo: pygit2.Repository) -> None:
    """Have everything sealed in a copy of a repository in which it is: without a key, nothing can be written there."""
    repo.config[CONFIG] = NAME


def configure(repo: pygit2.Repository, *, key_file: Path | None, key_command: str | None) -> None:
    """Have everything in an empty repository sealed from now on."""
    if key_file is not None:
        make_key(key_file)
    remember(repo, key_file=key_file, key_command=key_command)
    adopt(repo)


def remember(repo: pygit2.Repository, *, key_file: Path | None, key_command: str | None) -> None:
    """Note where the key of a repository is. Raises KeyMissing when it is not there, StoreError when it cannot be read."""
    note_places(repo, str(key_file.absolute()) if key_file is not None else None, key_command)
    if find(repo) is None:
        raise KeyMissing(repo.path, f"no key from {key_command!r}" if key_command is not None else "no key")


def places(repo: pygit2.Repository) -> tuple[str | None, str | None]:
    """The file and the command that are noted."""
    return _config(repo, KEY_FILE) or None, _config(repo, KEY_COMMAND) or None


def note_places(repo: pygit2.Repository, key_file: str | None, key_command: str | None) -> None:
    """Note these, and no others."""
    for name, value in ((KEY_FILE, key_file), (KEY_COMMAND, key_command)):
        if value is not None:
            repo.config[name] = value
        elif name in repo.config:
            del repo.config[name]


def _config(repo: pygit2.Repository, name: str) -> str:
    try:
        return str(repo.config[name])
    except KeyError:
        return ""


def _siv(key: bytes) -> AESSIV:
    if len(key) != _KEY_SIZE:
        raise ValueError(f"{len(key)} bytes, not {_KEY_SIZE}")
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    except ImportError:
        raise StoreError(
            "encryption", "the Python package cryptography is not installed", remedy="pip install 'vcsimg[encryption]'"
        ) from None
    return AESSIV(key)
