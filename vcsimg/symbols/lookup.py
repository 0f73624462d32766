"""Which of several variables of one name is meant: the program's own first, then what libraries share, then what they keep to themselves.

drgn takes any variable of the name. Which there are, and where, is in the symbol tables; of what type, in the debugging information.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from vcsimg.errors import SymbolError
from vcsimg.symbols.program import load_drgn

if TYPE_CHECKING:
    import drgn

_NAMED = 8
"""At most so many files are named when several have a variable."""


class _Rank(IntEnum):
    """What is taken first."""

    OWN = 0
    """Global in the program."""
    OWN_STATIC = 1
    SHARED = 2
    """Global in a library."""
    STATIC = 3


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """Where a symbol table has a variable; `module` as a number in the order in which they were loaded."""

    rank: _Rank
    module: int
    address: int


_Candidate = tuple[int, str, Any]
"""Module, source file, variable."""


class Lookup:
    """Finds the variables of a program by name."""

    def __init__(self, program: drgn.Program) -> None:
        self._drgn = load_drgn()
        self._program = program
        modules = [module for module, _ in program.loaded_modules()]
        self._modules = [module.name for module in modules]
        self._ranges = sorted((*each, number) for number, module in enumerate(modules) for each in module.address_ranges or ())

    def variable(self, text: str, name: str) -> Any:
        """The variable or constant of a name. Raises LookupError; SymbolError for expression `text` if several fit equally well."""
        found = self._object(name, None)
        own = {place for place in self._places(self._symbols(name)) if place.rank <= _Rank.OWN_STATIC}
        if len(own) == 1 and found.address_ == own.pop().address:
            return found
        places, candidates = self._all(name)
        return self._choose(text, name, found, places, candidates)

    def variable_of(self, name: str, file: str) -> Any:
        """The variable or constant of a name in a source file. Raises LookupError."""
        found = self._object(name, file)
        places, candidates = self._all(name)
        shared = any(place.rank == _Rank.SHARED and place.address == found.address_ for place in places)
        defined = {each.address_ for _, _, each in candidates}
        return self._at_copy(found, places) if shared and places[0].address not in defined else found

    def _all(self, name: str) -> tuple[list[_Place], list[_Candidate]]:
        """All places of a name, the best first, and all variables at them that can be told by their files."""
        symbols, names = self._program.symbols(), _in_symbol_tables(name)
        places = sorted(self._places(symbol for symbol in symbols if symbol.name.partition("@")[0] in names))
        return places, self._candidates(name, symbols, {0, *(place.module for place in places)})

    def thread_local(self, name: str) -> bool:
        """Whether a symbol table has it as a variable of which each thread has its own."""
        return any(symbol.kind == self._drgn.SymbolKind.TLS for symbol in self._symbols(name))

    def modules_with(self, name: str) -> set[str]:
        """Names of the program and libraries whose symbol tables have a variable or function of the name."""
        numbers = (self._module(symbol.address) for symbol in self._symbols(name))
        return {self._modules[number] for number in numbers if number is not None}

    def _choose(self, text: str, name: str, found: Any, places: list[_Place], candidates: list[_Candidate]) -> Any:
        # `hidden`: modules with a file of the same name as one that drgn found first, in another module.
        typed = {each.address_: each for _, _, each in candidates} | {found.address_: found}
        files = {each.address_: file for _, file, each in candidates}
        hidden = {module for module, _, each in candidates if each.address_ is not None and self._module(each.address_) != module}
        if not places or places[0].rank > _Rank.OWN_STATIC:
            placeless = [each for module, _, each in candidates if module == 0 and each.address_ is None]
            if placeless:
                return placeless[0]  # a constant, or a variable of the program that it has no place for
        for rank in _Rank:
            of_rank = [place.address for place in places if place.rank == rank and place.address in typed]
            if of_rank and rank == _Rank.STATIC and places[0].rank < rank:
                raise LookupError(name)  # there is one that comes first, and nothing is known of its type
            behind = [place for place in places if place.rank == rank and place.address not in typed and place.module in hidden]
            if of_rank and len(of_rank) + len(behind) > 1 and rank in (_Rank.OWN_STATIC, _Rank.STATIC):
                raise _several(text, name, [files[address] for address in of_rank if address in files], folders=bool(behind))
            if of_rank:
                return self._at_copy(typed[of_rank[0]], places) if rank == _Rank.SHARED else typed[of_rank[0]]
        return self._at_copy(found, places) if found.absent_ else found

    def _at_copy(self, found: Any, places: list[_Place]) -> Any:
        """A library's variable is where the program has a symbol of the name: it got a copy there, which all use (a copy relocation).
        One that is only declared is where the first symbol is."""
        place = next((place for place in places if place.rank in (_Rank.OWN, _Rank.SHARED)), None)
        if place is None or (place.rank == _Rank.SHARED and not found.absent_):
            return found
        return self._drgn.Object(self._program, found.type_, address=place.address)

    def _places(self, symbols: Iterable[drgn.Symbol]) -> set[_Place]:
        kinds, bindings = self._drgn.SymbolKind, self._drgn.SymbolBinding
        places = set()
        for symbol in symbols:
            module = self._module(symbol.address)
            if module is None or symbol.kind not in (kinds.OBJECT, kinds.COMMON):
                continue
            static = symbol.binding == bindings.LOCAL
            rank = (_Rank.OWN_STATIC if static else _Rank.OWN) if module == 0 else (_Rank.STATIC if static else _Rank.SHARED)
            places.add(_Place(rank, module, symbol.address))
        return places

    def _symbols(self, name: str) -> list[drgn.Symbol]:
        return [symbol for each in _in_symbol_tables(name) for symbol in self._program.symbols(each)]

    def _candidates(self, name: str, symbols: list[drgn.Symbol], modules: set[int]) -> list[_Candidate]:
        """All variables of the name that can be told by the source files of some modules."""
        file = self._drgn.SymbolKind.FILE
        sources = {(self._module(symbol.address) or 0, symbol.name) for symbol in symbols if symbol.kind == file and symbol.name}
        out = []
        for module, source in sorted(sources):
            if module in modules:
                try:
                    out.append((module, source, self._object(name, source)))
                except (LookupError, NotImplementedError, self._drgn.BadDataError):
                    continue  # not in this file, or of a type that drgn cannot read
        return out

    def _object(self, name: str, file: str | None) -> Any:
        flags = self._drgn.FindObjectFlags
        return self._program.object(name, flags.VARIABLE | flags.CONSTANT, file)

    def _module(self, address: int) -> int | None:
        at = bisect(self._ranges, address, key=lambda each: each[0]) - 1
        return self._ranges[at][2] if at >= 0 and address < self._ranges[at][1] else None


def _several(text: str, name: str, files: list[str], *, folders: bool) -> SymbolError:
    """`folders`: files of equal names are among them."""
    named = ", ".join(files[:_NAMED]) + (f" and {len(files) - _NAMED} more" if len(files) > _NAMED else "")
    example = f"'{'FOLDER/' if folders else ''}{files[0] if files else 'FILE'}'::{name}"
    return SymbolError(text, f"several files have a static variable {name}: {named}", remedy=f"Name the file: {example}")


def _in_symbol_tables(name: str) -> set[str]:
    """What symbol tables call a variable: C as it is; C++ with its namespaces, and marked if it is static."""
    *spaces, last = name.split("::")
    if not spaces:
        return {name, f"_ZL{len(name)}{name}"}
    prefix = "_ZN" + "".join(f"{len(space)}{space}" for space in spaces)
    return {f"{prefix}{len(last)}{last}E", f"{prefix}L{len(last)}{last}E"}
