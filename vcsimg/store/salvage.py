"""What is whole of a damaged repository, into a new one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pygit2

from vcsimg.store import gitcommand
from vcsimg.store.gc import repack
from vcsimg.store.objects import Objects
from vcsimg.store.pack import PackWriter
from vcsimg.store.refs import PREFIX
from vcsimg.store.rewrite import rewrite, tips_of


def salvage(source: Path, repo: pygit2.Repository, target: Path, damaged: Collection[str]) -> int:
    """Fill the new repository `target` with all captures of `source` but the damaged ones. Returns how many.

    Objects are read from the source as an alternate, and only those that a whole capture needs.
    """
    shallow = source / "shallow"
    if shallow.exists():
        (target / "shallow").write_bytes(shallow.read_bytes())
    alternates = target / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_text(f"{source / 'objects'}\n")
    writer = PackWriter(target / "objects" / "pack", target / "vcsimg", sync=False)
    updates = rewrite(repo, Objects(repo), lambda name: name not in damaged, lambda kind, data: writer.add(kind, data))
    keep = writer.finish()
    moved = {update.name: update.new for update in updates}
    lines = []
    for name, tip in tips_of(repo):
        new = moved.get(name, tip)
        if new is not None:
            lines.append(f"create {name} {new}\n")
    gitcommand.run(target, "update-ref", "--stdin", text="".join(lines))
    if keep is not None:
        keep.unlink()
    repack(target)
    alternates.unlink()
    head = repo.references.get("HEAD")
    if head is not None and isinstance(head.target, str) and head.target.startswith(PREFIX):
        gitcommand.run(target, "symbolic-ref", "HEAD", head.target)
    return int(gitcommand.run(target, "rev-list", "--all", "--count"))
