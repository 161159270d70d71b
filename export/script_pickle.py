"""The pickles of TorchScript archives, interpreted instead of unpickled.

A pickle is a program for a stack machine that can name any function and call it. This machine knows the two
dozen operations torch writes and has nothing callable at hand: a class is a name, an instance a dictionary
of its attributes; what may be "called" is a tensor over a storage of the archive and a few containers, all
of them made here. Everything else is refused.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
_TENSOR, _ORDERED = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_FIRST_ARGUMENT = {
    f"torch.jit._pickle {name}"
    for name in (
        "build_intlist",
        "build_doublelist",
        "build_boollist",
        "build_tensorlist",
        "restore_type_tag",
    )
}
_SCRIPTED = ("__torch__.", "__torch__ ")
"""How the names of the archive's own classes begin, which are the only ones objects may be of."""

Storage = Callable[[str, torch.dtype, int], Tensor]
"""Key, element type and number of elements to a flat tensor; refuses with `RefusedError`."""


class RefusedError(Exception):
    """What an archive holds that it must not, in words."""


@dataclass
class Instance:
    """An object of the archive's program: its attributes."""

    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Global:
    """Something the pickle names, module and name with a space between; never looked up."""

    name: str


@dataclass(frozen=True)
class _StorageReference:
    key: str
    dtype: torch.dtype
    count: int


class Machine:
    """Runs the operations of one pickle over plain values; `run` once.

    Args:
        pickled: the pickle.
        storage: gives the storages its tensors lie in.
    """

    def __init__(self, pickled: bytes, storage: Storage) -> None:
        self._pickled = pickled
        self._storage = storage
        self._stack: list[Any] = []
        self._below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The pickled value: containers, numbers, text, tensors and `Instance`s; may hold itself.

        Raises:
            RefusedError: an operation, name or call that torch does not write.
            Exception: of nearly any kind, for a damaged pickle.
        """
        for opcode, argument, _ in pickletools.genops(io.BytesIO(self._pickled)):
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _LITERALS:
                self._stack.append(argument)
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name != "PROTO":
                raise RefusedError(f"pickle operation {opcode.name}, which torch does not write")
        raise RefusedError("its structure ends early")

    def mark(self, _: Any) -> None:
        self._below_marks.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        taken, self._stack = self._stack, self._below_marks.pop()
        return taken

    def pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise RefusedError("an operation without its values")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def name(self, text: str) -> None:
        known = text in _DTYPES or text in (_TENSOR, _ORDERED) or text in _FIRST_ARGUMENT
        if not known and not text.startswith(_SCRIPTED):
            raise RefusedError(f"it holds a {_dotted(text)}, expected modules of tensors")
        self._stack.append(_Global(text))

    def make_tuple(self, values: list[Any]) -> None:
        self._stack.append(tuple(values))

    def append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise RefusedError("items for something that is no list")
        target.extend(values)

    def set_items(self, values: list[Any]) -> None:
        target, keys = self._stack[-1], values[::2]
        if not isinstance(target, dict) or len(values) % 2:
            raise RefusedError("items for something that is no dictionary")
        # Only plain keys: hashing a deeply nested tuple overflows the interpreter's stack.
        if not all(isinstance(key, (str, int, float)) for key in keys):
            raise RefusedError("a dictionary key that is neither text nor number")
        target.update(zip(keys, values[1::2], strict=True))

    def instance(self, _: Any) -> None:
        of, arguments = self.pop(2)
        if not isinstance(of, _Global) or not of.name.startswith(_SCRIPTED) or arguments != ():
            raise RefusedError("an object of a class that is not the archive's own")
        self._stack.append(Instance())

    def build(self, _: Any) -> None:
        target, attributes = self.pop(2)
        named = isinstance(attributes, dict) and all(isinstance(key, str) for key in attributes)
        if not isinstance(target, Instance) or not named:
            raise RefusedError("an object whose state is not its attributes")
        target.attributes = dict(attributes)
        self._stack.append(target)

    def call(self, _: Any) -> None:
        what, arguments = self.pop(2)
        if not isinstance(what, _Global) or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that has no name")
        if what.name == _TENSOR:
            self._stack.append(self._tensor(*arguments[:4]))
        elif what.name == _ORDERED and not arguments:
            self._stack.append({})
        elif what.name in _FIRST_ARGUMENT:
            self._stack.append(arguments[0])
        else:
            raise RefusedError(f"a call of {_dotted(what.name)}")

    def refer(self, _: Any) -> None:
        word, of, key, _device, count = self._stack.pop()
        if word != "storage" or not isinstance(of, _Global) or of.name not in _DTYPES:
            raise RefusedError("a reference to something that is no storage")
        if type(key) is not str or type(count) is not int or count < 0:
            raise RefusedError("a storage without key or size")
        self._stack.append(_StorageReference(key, _DTYPES[of.name], count))

    def _tensor(self, reference: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
        if not isinstance(reference, _StorageReference):
            raise RefusedError("a tensor without a storage")
        _check_view(reference.count, offset, shape, strides)
        flat = self._storage(reference.key, reference.dtype, reference.count)
        return flat.as_strided(shape, strides, offset)


def _check_view(count: int, offset: Any, shape: Any, strides: Any) -> None:
    """Refuse a view of a storage of `count` elements that leaves it, or shows more elements than it has."""
    paired = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not paired or any(type(number) is not int or number < 0 for number in (offset, *shape, *strides)):
        raise RefusedError("a tensor whose shape is not made of whole numbers")
    elements = 1
    for length in shape:
        elements *= length
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if elements > count or (elements and last >= count):
        raise RefusedError("a tensor larger than its storage")


def _dotted(name: str) -> str:
    return name.replace(" ", ".")[:80]


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "BINGET": Machine.get,
    "LONG_BINGET": Machine.get,
    "GLOBAL": Machine.name,
    "TUPLE": lambda machine, _: machine.make_tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.make_tuple(machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.make_tuple(machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.make_tuple(machine.pop(3)),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "NEWOBJ": Machine.instance,
    "BUILD": Machine.build,
    "REDUCE": Machine.call,
    "BINPERSID": Machine.refer,
}
