"""Snapshot → ELF core files and plain files."""

from vcsimg.export.core import core_name, save_core, write_core
from vcsimg.export.open_files import write_open_files
from vcsimg.export.raw import write_raw
from vcsimg.export.sink import check_replaceable

__all__ = ["check_replaceable", "core_name", "save_core", "write_core", "write_open_files", "write_raw"]
