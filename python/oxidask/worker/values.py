"""Values as header and frames, in the formats of ``distributed.protocol``.

The frequent kinds (plain pickles, NumPy arrays) are written and read here, byte-compatible with stock, so that a
worker that only sees those never imports ``distributed``. Everything else goes through its own functions.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import sys
from collections.abc import Sequence
from typing import Any

import cloudpickle
import msgpack

INLINE = 4096
"""Results up to this size of plain types travel with the message that reports them. Unit: bytes."""

_ALIGN = 64
"""Frames in a memory file start at multiples of this: NumPy's and Arrow's vector code wants it. Unit: bytes."""

_POPULATE = 1 << 20
"""Memory files from this size on are mapped with all their pages at once. Unit: bytes."""

_MADV_POPULATE_READ = 22
"""``linux/mman.h``; Python has no name for it."""

_PLAIN = (int, float, complex, bool, type(None))
_SHARD = 64 << 20
"""Frames above this are cut for the wire: ``distributed.comm.shard``. Unit: bytes."""


class Unserialisable(TypeError):
    """The value stays where it is: it can be neither sent nor spilled."""


def inline(value: Any) -> bytes | None:
    """The pickle of a small value of a plain type; None for everything else."""
    kind = type(value)
    if kind in _PLAIN:
        return pickle.dumps(value, protocol=5)
    if kind is str or kind is bytes:
        return pickle.dumps(value, protocol=5) if len(value) <= INLINE else None
    if (kind is tuple or kind is list) and len(value) <= 16:
        for item in value:
            item_kind = type(item)
            if item_kind not in _PLAIN and not (item_kind in (str, bytes) and len(item) <= 128):
                return None
        return pickle.dumps(value, protocol=5)
    return None


def serialise(value: Any) -> tuple[dict[str, Any], list[Any]]:
    """Header and frames of a value.

    Raises `Unserialisable` where stock would send an error in its place.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray:
        simple = _serialise_array(numpy, value)
        if simple is not None:
            return simple
    if _pickles_well(value):
        return _serialise_pickle(value)
    return _serialise_stock(value)


_STOCK_ONLY = frozenset(
    (
        "h5py",
        "netCDF4",
        "scipy",
        "keras",
        "tensorflow",
        "torch",
        "cupy",
        "cudf",
        "rmm",
        "numba",
        "sparse",
        "pyarrow",
        "array",
    )
)
"""Packages whose types stock serialises by functions of its own, registered when it is imported."""


def _pickles_well(value: Any) -> bool:
    """True for values that stock pickles too, as far as that can be told without importing it."""
    kind = type(value)
    if kind in _PLAIN or kind in (str, bytes, bytearray):
        return True
    if kind in (list, tuple, set, dict):
        # Stock looks at the first element; containers of plain ones are pickled whole.
        if not value:
            return True
        value = next(iter(value.values() if kind is dict else value))
        kind = type(value)
        if kind in _PLAIN or kind is str:
            return True
    root = kind.__module__.partition(".")[0]
    if root == "pandas" or kind.__module__ == "numpy":
        return True
    # Until it is imported, nobody can have registered a serialiser with it.
    return "distributed" not in sys.modules and root not in _STOCK_ONLY


def _serialise_pickle(value: Any) -> tuple[dict[str, Any], list[Any]]:
    buffers: list[Any] = []
    writeable = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:
            return True  # not contiguous: inside the pickle
        buffers.append(view)
        writeable.append(not view.readonly)
        return False

    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=keep)
        if b"__main__" in data:
            raise pickle.PicklingError
    except Exception:
        buffers.clear()
        writeable.clear()
        try:
            data = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
        except Exception as error:
            raise Unserialisable(f"Could not serialize object of type {type(value).__name__}: {error}") from error
    return {"serializer": "pickle", "writeable": tuple(writeable)}, [data, *buffers]


_PICKLED_NDARRAY: bytes | None = None


def _serialise_array(numpy: Any, array: Any) -> tuple[dict[str, Any], list[Any]] | None:
    """As stock for contiguous arrays of plain types; None for those that need its special cases."""
    global _PICKLED_NDARRAY
    dtype = array.dtype
    if dtype.hasobject or dtype.kind in "VOM" or dtype.kind == "m" or (array.size and 0 in array.strides):
        return None
    if array.flags.c_contiguous:
        flat = array.ravel(order="C")
        strides = array.strides
    elif array.flags.f_contiguous:
        flat = array.ravel(order="F")
        strides = array.strides
    else:
        array = numpy.ascontiguousarray(array)
        flat, strides = array.ravel(), array.strides
    if _PICKLED_NDARRAY is None:
        _PICKLED_NDARRAY = pickle.dumps(numpy.ndarray, protocol=4)
    header = {
        "serializer": "dask",
        "type": "numpy.ndarray",
        "type-serialized": _PICKLED_NDARRAY,
        "sub-header": {
            "dtype": (0, dtype.str),
            "shape": array.shape,
            "strides": strides,
            "writeable": [bool(array.flags.writeable)],
        },
    }
    return header, [memoryview(flat.view("u1")) if array.size else b""]


def _serialise_stock(value: Any) -> tuple[dict[str, Any], list[Any]]:
    from distributed.protocol import serialize

    try:
        header, frames = serialize(value, on_error="raise")
    except Exception as error:
        raise Unserialisable(f"Could not serialize object of type {type(value).__name__}: {error}") from error
    return header, list(frames)


def finish(header: dict[str, Any], frames: Sequence[Any]) -> tuple[bytes, list[Any]]:
    """Header as it goes on the wire, and the frames cut to the size that it allows."""
    parts: list[Any] = []
    counts, offsets = [], []
    for frame in frames:
        view = memoryview(frame)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        offsets.append(len(parts))
        pieces = [view[at : at + _SHARD] for at in range(0, len(view), _SHARD)] or [view]
        counts.append(len(pieces))
        parts.extend(pieces)
    header = {
        **header,
        "split-num-sub-frames": counts,
        "split-offsets": offsets,
        "compression": [None] * len(parts),
        "num-sub-frames": len(parts),
    }
    if "compression" in header and header.get("is-collection"):
        # The elements' own entries were written by stock and none is compressed.
        header["compression"] = [None] * len(parts)
    return msgpack.packb(header, use_bin_type=True), parts


def inline_header() -> bytes:
    """The header of a value that `inline` gave."""
    return finish({"serializer": "pickle", "writeable": ()}, [b""])[0]


def deserialise(header: bytes, frames: list[Any]) -> Any:
    """The value of a header and frames as they came over the wire."""
    fields = msgpack.unpackb(header, use_list=False, strict_map_key=False)
    compression = fields.get("compression") or ()
    if any(compression) or fields.get("is-collection"):
        return _deserialise_stock(fields, frames)
    frames = _merged(fields, frames)
    serializer = fields.get("serializer")
    if serializer == "pickle":
        writeable = fields.get("writeable", ())
        buffers = [
            frame if wanted is None or wanted != memoryview(frame).readonly else _with_access(frame, wanted)
            for frame, wanted in zip(frames[1:], writeable, strict=False)
        ]
        buffers.extend(frames[1 + len(buffers) :])
        return pickle.loads(frames[0], buffers=buffers)
    if serializer == "dask" and fields.get("type") == "numpy.ndarray":
        sub = fields["sub-header"]
        if "dtype" in sub and sub["dtype"][0] == 0 and "broadcast_to" not in sub and "matrix" not in sub:
            return _deserialise_array(sub, frames[0])
    return _deserialise_stock(fields, frames, merged=True)


def _with_access(frame: Any, writeable: bool) -> Any:
    return bytearray(frame) if writeable else memoryview(frame).toreadonly()


def _merged(fields: dict[str, Any], frames: list[Any]) -> list[Any]:
    counts = fields.get("split-num-sub-frames")
    if counts is None or all(count == 1 for count in counts):
        return frames
    whole = []
    for count, offset in zip(counts, fields["split-offsets"], strict=True):
        pieces = frames[offset : offset + count]
        if count == 1:
            whole.append(pieces[0])
        else:
            adjacent = _adjacent(pieces)
            whole.append(bytearray().join(pieces) if adjacent is None else adjacent)
    return whole


def _adjacent(pieces: list[Any]) -> memoryview | None:
    """One view of all pieces if they follow each other in one writable mapping; they were one frame before."""
    first = pieces[0]
    if not all(type(piece) is memoryview and not piece.readonly and piece.obj is first.obj for piece in pieces):
        return None
    import ctypes

    def address(view: Any) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(view))

    base = memoryview(first.obj)
    start = end = address(first) - address(base)
    for piece in pieces:
        if address(piece) - address(base) != end:
            return None
        end += len(piece)
    return base[start:end]


def _deserialise_array(sub: dict[str, Any], frame: Any) -> Any:
    import numpy

    dtype = numpy.dtype(sub["dtype"][1])
    writeable = bool(sub["writeable"][0]) if sub.get("writeable") else False
    if writeable and memoryview(frame).readonly:
        frame = bytearray(frame)
    array = numpy.ndarray(sub["shape"], dtype=dtype, buffer=frame or b"", strides=sub["strides"])
    if array.flags.writeable and not writeable:
        array.flags.writeable = False
    return array


def _deserialise_stock(fields: dict[str, Any], frames: list[Any], merged: bool = False) -> Any:
    from distributed.protocol.serialize import deserialize, merge_and_deserialize

    if any(fields.get("compression") or ()):
        from distributed.protocol.compression import decompress

        frames = decompress(fields, frames)
    if merged:
        fields = {key: value for key, value in fields.items() if not key.startswith("split-")}
        return deserialize(fields, frames)
    return merge_and_deserialize(dict(fields), frames)


def write_memory_file(frames: Sequence[Any]) -> tuple[int, list[tuple[int, int]]]:
    """A sealed memory file with the frames, and where each is: (offset, length).

    Raises OSError when memory is short; nothing is left over then.
    """
    fd = os.memfd_create("oxidask-value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        places = []
        offset = 0
        for frame in frames:
            view = memoryview(frame)
            view = view.cast("B") if view.nbytes else memoryview(b"")
            places.append((offset, len(view)))
            written = 0
            while written < len(view):
                written += os.pwrite(fd, view[written:], offset + written)
            offset = -(-(offset + len(view)) // _ALIGN) * _ALIGN
        os.ftruncate(fd, max(offset, 1))
        _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, places


def _seal(fd: int) -> None:
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


def map_memory_file(path: str, places: Sequence[tuple[int, int]]) -> list[Any]:
    """The frames of a memory file of the parent, as private writable memory: a write copies its page."""
    view = memoryview(_map(path))
    return [view[offset : offset + length] for offset, length in places]


class _Mapping(mmap.mmap):
    """A mapping that keeps what lent its memory."""

    lease: Any = None


def map_segments(places: Sequence[tuple[str, int, int, Any] | None], sent: Sequence[Any]) -> list[Any]:
    """As `map_memory_file`, for frames in several files: (path, offset, length, lease), or None for the next one of
    `sent`. Each lease lives as long as the memory of its file is used."""
    rest = iter(sent)
    views: dict[str, memoryview] = {}
    frames = []
    for place in places:
        if place is None:
            frames.append(next(rest))
            continue
        path, offset, length, lease = place
        if path not in views:
            mapping = _map(path)
            mapping.lease = lease
            views[path] = memoryview(mapping)
        frames.append(views[path][offset : offset + length])
    return frames


def _map(path: str) -> _Mapping:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        mapping = _Mapping(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)
    if size >= _POPULATE:
        # MAP_POPULATE would copy all pages of a private writable mapping. Kernels before 5.14 do not know this.
        with contextlib.suppress(OSError):
            mapping.madvise(_MADV_POPULATE_READ)
    return mapping


def error_payload(text: str) -> tuple[bytes, list[Any]]:
    """What stock sends in place of a value that cannot be serialised: raises TypeError at the receiver."""
    return finish({"serializer": "error"}, [text.encode()])


def pickled_type(kind: type) -> bytes:
    """The class of a result for ``task-finished``; its name if it cannot be pickled by reference."""
    try:
        data = pickle.dumps(kind, protocol=5)
    except Exception:
        if kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__:
            return pickle.dumps(f"{kind.__module__}.{kind.__qualname__}")
        data = b"__main__"
    if b"__main__" not in data:
        return data
    try:
        return cloudpickle.dumps(kind)
    except Exception:
        return pickle.dumps(f"{kind.__module__}.{kind.__qualname__}")
