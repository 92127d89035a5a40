"""Read what mmengine saves beside the weights without building its objects."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Opaque:
    """Stand-in for an object that is neither a weight nor plain data."""

    args: tuple = ()
    state: Any = None

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType(Opaque):
    pass


class _Scalar(Opaque):
    pass


class _Array(Opaque):
    pass


class _History(Opaque):
    pass


def _no_bytes(*args: Any) -> bytes | Opaque:
    """``bytes()``, as pickle writes the content of an empty array."""
    return Opaque(*args) if args else b''


# Keys of the plain data of a curve (mmengine's HistoryBuffer) in a checkpoint.
CURVE = ('log_history', 'count_history', 'max_length')
# Types that mmengine puts in a checkpoint beside the weights: the message hub's curves
# and numpy values. The real HistoryBuffer would not be harmless: its __setstate__
# writes functions from the file into a table that all buffers share, and its pickle
# needs getattr, which reaches anything.
_STAND_INS: dict[str, Callable[..., Any]] = {
    'builtins.bytes': _no_bytes,
    'builtins.getattr': Opaque,
    'builtins.slice': Opaque,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'numpy.dtype': _DType,
    'numpy.ndarray': Opaque,
    'numpy._core.multiarray._reconstruct': _Array,
    'numpy._core.multiarray.scalar': _Scalar,
    'numpy.core.multiarray._reconstruct': _Array,
    'numpy.core.multiarray.scalar': _Scalar,
}
_NUMPY_TYPES = {
    'f8': torch.float64,
    'f4': torch.float32,
    'f2': torch.float16,
    'i8': torch.int64,
    'i4': torch.int32,
    'i2': torch.int16,
    'i1': torch.int8,
    'u1': torch.uint8,
    'b1': torch.bool,
}
_MAX_VALUES = 1 << 26
ALLOWED = {*_STAND_INS, 'argparse.Namespace'}


@contextmanager
def allowed_globals() -> Iterator[None]:
    """Allow our names, and the user's unless they are among ours."""
    theirs: list[Any] = torch.serialization.get_safe_globals()
    ours: list[Any] = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
    ours.append((argparse.Namespace, 'argparse.Namespace'))
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(
        [item for item in theirs if _global_name(item) not in ALLOWED] + ours
    )
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(theirs)


def _global_name(item: Any) -> str:
    if isinstance(item, tuple):
        return item[1]
    return f'{item.__module__}.{item.__qualname__}'


class UnusableContentError(ValueError):
    """The file is readable, but its contents are unusable."""


def replace_stand_ins(value: Any) -> Any:
    """Replace stand-ins by plain data; dicts and lists are changed in place.

    Raises:
        UnusableContentError: if the structure is cyclic or expands to more than
            ``_MAX_VALUES`` values, or a tensor's storage is smaller than its shape
            needs.
    """
    return _replaced(value, {})[0]


def _replaced(value: Any, seen: dict[int, tuple[Any, Any]]) -> tuple[Any, int]:
    """Return the value without stand-ins, and the number of values in it.

    Args:
        value: any.
        seen: id -> the value, held so that its id stays unique, and the result; None
            while its parts are being replaced.
    """
    if not isinstance(value, (dict, list, tuple, Opaque, Tensor)):
        return value, 1
    if id(value) not in seen:
        seen[id(value)] = value, None
        counts = [1]

        def part(old: Any) -> Any:
            new, count = _replaced(old, seen)
            counts.append(count)
            return new

        new = _new(value, part)
        if sum(counts) > _MAX_VALUES:
            raise UnusableContentError(
                f'a part of it stands in it more than {_MAX_VALUES:,} times'
            )
        seen[id(value)] = value, (new, sum(counts))
    result = seen[id(value)][1]
    if result is None:
        raise UnusableContentError('a part of it holds itself')
    return result


def _new(value: Any, part: Callable[[Any], Any]) -> Any:
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, old in list(items):
            if (new := part(old)) is not old:
                value[key] = new
    elif type(value) is tuple:
        return tuple(map(part, value))
    elif type(value) in (Tensor, torch.nn.Parameter):
        _check_memory(value)
    elif isinstance(value, _Scalar):
        array = _tensor(value.args[0], (), False, value.args[1])
        return value if array is None else array.item()
    elif isinstance(value, _Array) and isinstance(value.state, tuple):
        _, shape, dtype, is_fortran, data = value.state
        array = _tensor(dtype, shape, is_fortran, data)
        return value if array is None else array
    elif isinstance(value, _History) and isinstance(value.state, dict):
        log, count = (part(value.state.get(f'_{key}')) for key in CURVE[:2])
        if isinstance(log, Tensor) and isinstance(count, Tensor):
            length = value.state.get('max_length')
            return dict(zip(CURVE, (log, count, length), strict=True))
    return value


def _check_memory(value: Tensor) -> None:
    """Refuse an expanded view, whose few bytes could claim any size."""
    if value.layout != torch.strided:
        return
    needed = value.numel() * value.element_size()
    held = value.untyped_storage().nbytes()
    if needed > held:
        raise UnusableContentError(
            f'a tensor of shape {tuple(value.shape)} in it needs {needed:,} bytes and '
            f'has {held:,}. If it is an expanded view, save its .contiguous()'
        )


def _tensor(dtype: Any, shape: Any, is_fortran: Any, data: Any) -> Tensor | None:
    """Return an array of numpy's pickle as a tensor; None if it has no simple type."""
    if not isinstance(dtype, _DType) or not dtype.args or not isinstance(data, bytes):
        return None
    kind, order = _NUMPY_TYPES.get(dtype.args[0]), (dtype.state or ('', '<'))[1]
    if kind is None or order not in ('<', '=', '|'):
        return None
    flat = torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0)
    if is_fortran:
        return flat.to(kind).reshape(shape[::-1]).permute(*range(len(shape))[::-1])
    return flat.to(kind).reshape(shape)
