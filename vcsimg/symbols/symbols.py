"""What the bytes of an image mean: variables, types and stacks of one process."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vcsimg.errors import AccessError, SymbolError
from vcsimg.image.pages import Memory
from vcsimg.image.snapshot import Process, Snapshot
from vcsimg.symbols import expression as syntax
from vcsimg.symbols.lookup import Lookup
from vcsimg.symbols.program import build, load_drgn, missing
from vcsimg.symbols.value import plain, text, without_bases

if TYPE_CHECKING:
    import drgn

_NOT_READABLE = "References of C++ are among what it cannot read; `vcsimg checkout` makes a core for gdb, which can."


@dataclass(frozen=True, slots=True)
class Variable:
    """The value of an expression in one image.

    `address` and `size` (bytes) of where it lies; None for a value that lies nowhere (a constant, an address, a bit field).
    `text`: as C initializers have it. `value`: plain data, as json.dumps takes it: numbers, text, lists and dictionaries; "<not supported>"
    for what drgn cannot read. `without_bases`: names of the C++ classes in it, of whose base classes the members are missing in both.
    """

    expression: str
    type: str
    address: int | None
    size: int | None
    text: str
    value: Any
    without_bases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One call. `name` None where no symbol is known; `source` as file:line; `inlined` into the frame below it."""

    pc: int
    name: str | None
    source: str | None
    inlined: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """The calls of a thread, innermost first."""

    tid: int
    frames: tuple[Frame, ...]


class Symbols:
    """Variables and stacks of one process of an image. Making it reads the debugging information, which takes most of the time.

    `program`: the drgn Program beneath, for everything that is not here. `missing`: names of the program and libraries without
    debugging information. Raises MissingPackage, SymbolError, AccessError.
    """

    def __init__(self, snapshot: Snapshot, process: Process) -> None:
        if process.memory is None:
            raise AccessError(process.pid, 0, 0, 0)
        self._drgn = load_drgn()
        self._memory: Memory = process.memory
        self.pid = process.pid
        self.program: drgn.Program = build(snapshot, process, lambda: self._memory)
        self.missing = missing(self.program)
        self._names = Lookup(self.program)

    def look_at(self, process: Process) -> None:
        """Read variables in another capture of this process from now on (stacks stay those of the first).

        Right as long as it has the same program and libraries at the same addresses.
        """
        if process.memory is None:
            raise AccessError(process.pid, 0, 0, 0)
        self._memory = process.memory

    def variable(self, expression: str) -> Variable:
        """The value of an expression such as `counter`, `account.list->next`, `*table[3]`, `'main.c'::hidden` or
        `(struct node *)0x55fb5a79e150`. Raises SymbolError, and AccessError for addresses without content."""
        return self._variable(expression)[0]

    def _variable(self, expression: str) -> tuple[Variable, Any]:
        """The value of an expression, and drgn's object of it."""
        try:
            found = self._evaluate(expression, syntax.parse(expression))
            in_memory = found.address_ is not None and found.bit_field_size_ is None
            sized = in_memory and found.type_.kind != self._drgn.TypeKind.FUNCTION
            value = Variable(
                expression,
                found.type_.type_name(),
                found.address_ if in_memory else None,
                self._drgn.sizeof(found) if sized else None,
                text(found),
                plain(found),
                without_bases(found.type_),
            )
            return value, found
        except self._drgn.FaultError as error:
            raise AccessError(self.pid, error.address, 1, 0) from None
        except self._drgn.ObjectAbsentError:
            raise SymbolError(expression, "the compiler kept no place for it, or it is thread-local") from None
        except (NotImplementedError, self._drgn.BadDataError) as error:
            raise SymbolError(expression, f"drgn cannot read it: {error}", remedy=_NOT_READABLE) from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SymbolError(expression, str(error)) from None

    def encode(self, expression: str, value: str) -> tuple[int, bytes]:
        """Where a variable lies, and the bytes of it with another value: a number, the name of an enumerator, or hex:BYTES for its beginning.
        Raises SymbolError, AccessError."""
        place, found = self._variable(expression)
        if place.address is None or not place.size:
            raise SymbolError(expression, "it lies nowhere in memory")
        try:
            digits = value.removeprefix("hex:")
            data = bytes.fromhex(digits) if digits != value else self._bytes_of(found.type_, value, place.size)
        except (ValueError, OverflowError) as error:
            raise SymbolError(expression, f"{value} is no value for {place.type}: {error}") from None
        if len(data) > place.size:
            raise SymbolError(expression, f"it has {place.size} bytes, not {len(data)}")
        return place.address, data

    def _bytes_of(self, type_: Any, value: str, size: int) -> bytes:
        kinds = self._drgn.TypeKind
        while type_.kind == kinds.TYPEDEF:
            type_ = type_.type
        if type_.kind == kinds.FLOAT:
            if type_.size not in (4, 8):
                raise ValueError("only hex:BYTES can be written there")
            found: bytes = self._drgn.Object(self.program, type_, float(value)).to_bytes_()
            return found
        if type_.kind not in (kinds.INT, kinds.BOOL, kinds.POINTER, kinds.ENUM):
            raise ValueError("only hex:BYTES can be written there")
        names = {each.name: each.value for each in type_.enumerators or ()} if type_.kind == kinds.ENUM else {}
        number = names[value] if value in names else int(value, 0)
        return number.to_bytes(size, "little", signed=number < 0)

    def stacks(self) -> list[Stack]:
        """The calls of every thread, in order of tid. A stack that cannot be unwound further ends there."""
        threads = sorted(self.program.threads(), key=lambda thread: thread.tid)
        return [Stack(thread.tid, tuple(_frames(thread.stack_trace()))) for thread in threads]

    def _evaluate(self, text: str, tree: syntax.Expression) -> Any:
        drgn = self._drgn
        if isinstance(tree, syntax.Name):
            return self._lookup(text, tree)
        if isinstance(tree, syntax.Number):
            return drgn.Object(self.program, "unsigned long" if tree.value > 0x7FFFFFFFFFFFFFFF else "long", tree.value)
        of = self._evaluate(text, tree.of)
        if isinstance(tree, syntax.Dereference):
            return of[0]
        if isinstance(tree, syntax.AddressOf):
            return of.address_of_()
        if isinstance(tree, syntax.Cast):
            return drgn.cast(self.program.type(tree.type), of)
        if isinstance(tree, syntax.Item):
            return of[tree.index]
        return of.member_(tree.name)

    def _lookup(self, text: str, name: syntax.Name) -> Any:
        flags = self._drgn.FindObjectFlags
        try:
            # A library may have a static function of the variable's name.
            with contextlib.suppress(LookupError):
                if name.file is None:
                    return self._names.variable(text, name.name)
                return self.program.object(name.name, flags.VARIABLE | flags.CONSTANT, name.file)
            return self.program.object(name.name, flags.FUNCTION, name.file)
        except LookupError:
            where = f" in {name.file}" if name.file else ""
            lacking = ", ".join(self.missing)
            remedy = f"There is no debugging information for {lacking}." if lacking else None
            raise SymbolError(text, f"no variable {name.name}{where}", remedy=remedy) from None


def variable(snapshot: Snapshot, process: Process, expression: str) -> Variable:
    """The value of one expression: see Symbols.variable. For more than one, make a Symbols."""
    return Symbols(snapshot, process).variable(expression)


def _frames(trace: Any) -> list[Frame]:
    frames = []
    for frame in trace:
        try:
            pc = frame.pc
        except LookupError:
            break  # behind the outermost function
        try:
            file, line, _ = frame.source()
        except LookupError:
            source = None
        else:
            source = f"{file}:{line}"
        frames.append(Frame(pc, _name(frame), source, frame.is_inline))
    return frames


def _name(frame: Any) -> str | None:
    """The function's name from debugging information, else from the symbol table."""
    if frame.function_name is not None:
        return str(frame.function_name)
    try:
        return str(frame.symbol().name)
    except LookupError:
        return None
