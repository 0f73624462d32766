"""The rooms of docs/architecture.md: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vcsimg"
MAY_IMPORT = {
    "errors": set(),
    "kernel": {"errors", "image"},
    "process": {"errors", "kernel", "image"},
    "memory": {"errors", "kernel", "process", "image"},
    "image": {"errors"},
    "delta": {"errors", "image"},
    "capture": {"errors", "kernel", "process", "memory", "image"},
    "store": {"errors", "image", "delta"},
    "history": {"errors", "image"},
    "symbols": {"errors", "image", "export"},
    "export": {"errors", "image"},
    "restore": {"errors", "kernel", "process", "memory", "image"},
    "pot": {"errors", "kernel", "image", "restore"},
    "source": {"errors", "image"},
    "recording": {"errors", "kernel", "process", "image", "capture", "restore", "store", "source"},
    "doctor": {"errors", "kernel", "process"},
}


def rooms() -> list[str]:
    return sorted(path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed"))


@pytest.mark.parametrize("room", [room for room in rooms() if room not in ("__init__", "__main__", "cli")])
def test_room_imports_only_what_the_table_allows(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = (name or "").split(".")
                if parts[0] != "vcsimg" or len(parts) == 1:
                    continue
                assert parts[1] == room or parts[1] in MAY_IMPORT[room], f"{file}:{node.lineno} imports {name}"
