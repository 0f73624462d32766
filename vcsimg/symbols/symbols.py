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

_NO_PLACE = "Name a variable, or something that a pointer points to."
_NOT_SEARCHED = "Locals, and statics inside functions, are not searched."
_BY_GDB = "gdb shows it: `vcsimg checkout` makes a core for it."


@dataclass(frozen=True, slots=True)
class Variable:
    """The value of an expression in one image.

    `address` and `size` (bytes) of where it lies; None for a value that lies nowhere (a constant, an address), and for a bit field, which
    is `bits` (address of its first byte, number of bits).
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
    bits: tuple[int, int] | None = None

    def place(self) -> tuple[int, int]:
        """Address and size. Raises SymbolError if it lies nowhere, or does not fill its bytes."""
        if self.bits is not None:
            address, number = self.bits
            remedy = f"Its first byte is at {address:#x}: name its bytes by their address, or the struct that it is in."
            raise SymbolError(self.expression, f"it is a bit field of {number} bits, not whole bytes", remedy=remedy)
        if self.address is None or not self.size:
            raise SymbolError(self.expression, "it lies nowhere in memory", remedy=_NO_PLACE)
        return self.address, self.size


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
            bits = found.bit_field_size_
            in_memory = found.address_ is not None and bits is None
            sized = in_memory and found.type_.kind != self._drgn.TypeKind.FUNCTION
            value = Variable(
                expression,
                found.type_.type_name(),
                found.address_ if in_memory else None,
                self._drgn.sizeof(found) if sized else None,
                text(found),
                plain(found),
                without_bases(found.type_),
                (found.address_, bits) if found.address_ is not None and bits is not None else None,
            )
            return value, found
        except self._drgn.FaultError as error:
            raise AccessError(self.pid, error.address, 1, 0) from None
        except self._drgn.ObjectAbsentError:
            raise SymbolError(expression, "the compiler kept no place for it") from None
        except self._drgn.BadDataError as error:
            reason = f"drgn cannot read it, as references of C++: {error}"
            raise SymbolError(expression, reason, remedy=_BY_GDB) from None
        except NotImplementedError as error:
            raise SymbolError(expression, f"drgn cannot read it: {error}", remedy=_BY_GDB) from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SymbolError(expression, str(error)) from None

    def encode(self, expression: str, value: str) -> tuple[int, bytes]:
        """Where a variable lies, and the bytes of it with another value: a number, the name of an enumerator, or hex:BYTES for its beginning.
        Raises SymbolError, AccessError."""
        variable, found = self._variable(expression)
        address, size = variable.place()
        try:
            digits = value.removeprefix("hex:")
            data = bytes.fromhex(digits) if digits != value else self._bytes_of(found.type_, value, size)
        except (ValueError, OverflowError) as error:
            raise SymbolError(expression, f"{value} is no value for {variable.type}: {error}") from None
        if len(data) > size:
            raise SymbolError(expression, f"it has {size} bytes, not {len(data)}")
        return address, data

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
        signed = self._is_signed(type_)
        least = -(1 << 8 * size - 1) if signed else 0
        most = 1 if type_.kind == kinds.BOOL else (1 << 8 * size - signed) - 1
        if not least <= number <= most:
            raise ValueError(f"it takes {least} to {most}")
        return number.to_bytes(size, "little", signed=signed)

    def _is_signed(self, type_: Any) -> bool:
        """Of a number, an enum (as the integer that it is kept as), a pointer."""
        kinds = self._drgn.TypeKind
        if type_.kind == kinds.ENUM:
            type_ = type_.type
            while type_.kind == kinds.TYPEDEF:
                type_ = type_.type
        return bool(type_.kind == kinds.INT and type_.is_signed)

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
        try:
            found = self._find(text, name)
        except LookupError:
            raise self._unknown(text, name) from None
        if found.absent_ and self._names.thread_local(name.name):
            reason = f"{name.name} is thread-local: each thread has its own, which is not looked up here"
            raise SymbolError(text, reason, remedy=_BY_GDB)
        return found

    def _find(self, text: str, name: syntax.Name) -> Any:
        """The variable, constant or function of a name. Raises LookupError, SymbolError."""
        # A library may have a static function of the variable's name.
        with contextlib.suppress(LookupError):
            if name.file is None:
                return self._names.variable(text, name.name)
            return self._names.variable_of(name.name, name.file)
        return self.program.object(name.name, self._drgn.FindObjectFlags.FUNCTION, name.file)

    def _unknown(self, text: str, name: syntax.Name) -> SymbolError:
        """A module without debugging information may be the reason: one that has a symbol of the name, else any."""
        where = f" in {name.file}" if name.file else ""
        having = self._names.modules_with(name.name)
        lacking = ", ".join([each for each in self.missing if each in having] or self.missing)
        remedy = f"There is no debugging information for {lacking}. {_NOT_SEARCHED}" if lacking else _NOT_SEARCHED
        return SymbolError(text, f"no variable {name.name}{where}", remedy=remedy)


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
