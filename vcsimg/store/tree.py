"""A tree that is edited in memory and written back only where it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vcsimg.store.objects import TREE, Entry, Oid, format_tree, object_id

ReadTree = Callable[[Oid], dict[str, Entry]]
AddTree = Callable[[bytes], Oid]
"""Makes an object of a tree's bytes, if there is none yet, and returns its id."""


class Node:
    """One directory. Subdirectories are loaded when they are first entered."""

    __slots__ = ("children", "dirty", "entries")

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = entries
        self.children: dict[str, Node] = {}
        self.dirty = False

    @property
    def empty(self) -> bool:
        return not self.entries and not self.children


class TreeEditor:
    """The tree of a commit, from that of its parent (None: empty)."""

    def __init__(self, root: Oid | None, read: ReadTree) -> None:
        self._read = read
        self._oid = root
        self.root = Node({} if root is None else dict(read(root)))

    def _enter(self, node: Node, name: str, create: bool) -> Node | None:
        child = node.children.get(name)
        if child is not None:
            return child
        entry = node.entries.get(name)
        if entry is not None and entry.is_tree:
            child = Node(dict(self._read(entry.oid)))
        elif create:
            child = Node({})
        else:
            return None
        node.children[name] = child
        return child

    def node(self, path: tuple[str, ...]) -> Node | None:
        """The directory at a path, or None."""
        node: Node | None = self.root
        for name in path:
            if node is None:
                return None
            node = self._enter(node, name, create=False)
        return node

    def get(self, path: tuple[str, ...]) -> Entry | None:
        """The entry at a path, as last written or set; None when there is none."""
        node = self.node(path[:-1])
        return node.entries.get(path[-1]) if node is not None else None

    def names(self, path: tuple[str, ...]) -> list[str]:
        """The names in a directory; none when it does not exist."""
        node = self.node(path)
        return [] if node is None else list(dict.fromkeys([*node.entries, *node.children]))

    def change(self, path: tuple[str, ...]) -> Node:
        """The directory at a path, whose entries are about to be changed, but not all taken out; directories on the way are made."""
        node = self.root
        node.dirty = True
        for name in path:
            child = self._enter(node, name, create=True)
            assert child is not None
            node = child
            node.dirty = True
        return node

    def set(self, path: tuple[str, ...], entry: Entry) -> None:
        """Put an entry; directories on the way are made."""
        node = self.change(path[:-1])
        node.entries[path[-1]] = entry
        node.children.pop(path[-1], None)

    def remove(self, path: tuple[str, ...]) -> None:
        """Take an entry out, if it is there; a directory that becomes empty goes too."""
        way: list[tuple[Node, str]] = []
        node = self.root
        for name in path[:-1]:
            way.append((node, name))
            child = self._enter(node, name, create=False)
            if child is None:
                return
            node = child
        if path[-1] not in node.entries and path[-1] not in node.children:
            return
        node.entries.pop(path[-1], None)
        node.children.pop(path[-1], None)
        node.dirty = True
        for parent, name in reversed(way):
            parent.dirty = True
            if node.empty:
                parent.entries.pop(name, None)
                parent.children.pop(name, None)
            node = parent

    def move(self, path: tuple[str, ...], to: tuple[str, ...]) -> None:
        """Have what is at `path` at `to` instead."""
        parent = self.node(path[:-1])
        entry = parent.entries.get(path[-1]) if parent is not None else None
        child = parent.children.get(path[-1]) if parent is not None else None
        self.remove(path)
        node = self.change(to[:-1])
        if entry is not None:
            node.entries[to[-1]] = entry
        if child is not None:
            node.children[to[-1]] = child

    def walk(self, path: tuple[str, ...], depth: int) -> Iterator[tuple[str, ...]]:
        """The paths, relative to `path`, of everything exactly `depth` levels below it."""
        for name in self.names(path):
            if depth == 1:
                yield (name,)
            else:
                for rest in self.walk((*path, name), depth - 1):
                    yield (name, *rest)

    def write(self, add: AddTree) -> Oid:
        """Write every changed directory, deepest first, with `add`. Returns the id of the root."""
        self._oid = self._write(self.root, self._oid, add)
        return self._oid

    def _write(self, node: Node, oid: Oid | None, add: AddTree) -> Oid:
        if oid is not None and not node.dirty:
            return oid
        for name, child in node.children.items():
            if child.dirty:
                old = node.entries.get(name)
                node.entries[name] = Entry(True, self._write(child, old.oid if old else None, add))
        node.dirty = False
        data = format_tree(node.entries)
        return oid if oid is not None and object_id(TREE, data) == oid else add(data)
