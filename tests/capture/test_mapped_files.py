"""Files that are mapped more than once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target
from vcsimg.capture import Options
from vcsimg.recording import Recorder
from vcsimg.store import Repository


def test_zeros_in_a_writable_mapping_are_zeros_though_the_file_is_mapped_to_be_read_too(
    start: Callable[..., Target], tmp_path: Path
) -> None:
    """Writing through a mapping need not change the times of the file, so its content may be known as it was before."""
    (tmp_path / "file").write_bytes(b"a" * 16384)
    target = start("capture_mapped_twice", tmp_path / "file")
    address = int(target.line().split()[0], 16)
    with Repository.init(tmp_path / "repository", sync="none") as repository:
        with Recorder(repository, target.pid, Options(scratch=tmp_path)) as recorder:
            first = recorder.capture().commit
            target.send("go\n")
            assert target.line() == "zeros"
            second = recorder.capture().commit
        for commit, content in ((first, b"ab" + bytes([97] * 4094)), (second, bytes(4096))):
            memory = repository.load(commit).processes[0].memory
            assert memory is not None
            assert memory.read(address, 4096) == content
