"""Instructions on registers of codes, many rows abreast, for the compiled loops of `mixer.walk`.

Written in LLVM's own vectors: whatever the processor, they mean the same, and one with narrower registers uses several
for one of ours. Nothing here touches a float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

VECTOR_BYTES = 64
"""Of a register."""

_instruction: Callable[[Callable[..., Any]], Any] = numba.extending.intrinsic


class _Lanes(types.Type):
    """A register of codes."""

    def __init__(self, lane: Any) -> None:
        super().__init__(f"Lanes({lane})")
        self.lane = lane


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: _Lanes) -> None:
        bits = lanes.lane.bitwidth
        vector = ir.VectorType(ir.IntType(bits), 8 * VECTOR_BYTES // bits)
        super().__init__(manager, lanes, vector)  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    """One value in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, nothing, zeros)


@_instruction
def zeros(_typing: Any, codes: Any) -> Any:
    """A register of zeros, of the lanes of these codes: every row at its first leaf, no row marked."""
    lanes = _Lanes(codes.dtype)

    def generate(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return ir.Constant(context.get_value_type(lanes), None)

    return lanes(codes), generate


@_instruction
def ask(_typing: Any, at: Any, codes: Any, offset: Any, cut: Any, low: Any, middle: Any) -> Any:
    """One node asked of the rows whose codes stand at `offset`: those at `low` and over the cut go to `middle`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at, codes, offset, cut, low, middle = args
        source = _pointer(context, builder, signature.args[1], codes, offset, at.type)
        over = builder.icmp_unsigned(">", builder.load(source, align=1), _spread(builder, cut, at.type))
        here = builder.icmp_unsigned("==", at, _spread(builder, low, at.type))
        return builder.select(builder.and_(over, here), _spread(builder, middle, at.type), at)

    return at(at, codes, types.intp, codes.dtype, codes.dtype, codes.dtype), generate


@_instruction
def mark(_typing: Any, marks: Any, bits: Any, offset: Any, byte: Any) -> Any:
    """Marks kept, and set where the bits that stand at `offset` and the byte have one in common."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        marks, bits, offset, byte = args
        source = _pointer(context, builder, signature.args[1], bits, offset, marks.type)
        wide = _spread(builder, builder.zext(byte, marks.type.element), marks.type)
        return builder.or_(marks, builder.and_(builder.load(source, align=1), wide))

    return marks(marks, bits, types.intp, types.uint8), generate


@_instruction
def unmarked(_typing: Any, marks: Any) -> Any:
    """1 where there is no mark, else 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        (marks,) = args
        none = builder.icmp_unsigned("==", marks, ir.Constant(marks.type, None))
        return builder.zext(none, marks.type)

    return marks(marks), generate


@_instruction
def keep(_typing: Any, register: Any, target: Any, offset: Any) -> Any:
    """Store a register."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        register, target, offset = args
        place = _pointer(context, builder, signature.args[1], target, offset, register.type)
        builder.store(register, place, align=1)
        return context.get_dummy_value()

    return types.void(register, target, types.intp), generate
