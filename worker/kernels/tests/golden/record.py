"""Records what NumPy makes of the kernels' cases: `python record.py` writes `numpy.msgpack` beside this file."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np

FLOATS = ("f4", "f8")
INTEGERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
NAMES = {"b1": "bool", "f4": "f32", "f8": "f64", **{t: f"{t[0]}{8 * int(t[1])}" for t in INTEGERS}}

rng = np.random.default_rng(20260811)
cases: list[dict] = []


def dtype_name(dtype: np.dtype) -> str:
    return NAMES[dtype.str[1:]]


def packed(array: np.ndarray) -> dict:
    """The array as its memory and strides, so that layouts other than C order are tried too."""
    order = np.argsort([-s for s in array.strides], kind="stable")
    base = np.array(array.transpose(order), order="C")
    strides = [0] * array.ndim
    for axis, stride in zip(order, base.strides, strict=True):
        strides[axis] = stride // array.itemsize
    return {"dtype": dtype_name(array.dtype), "shape": list(array.shape), "strides": strides, "data": base.tobytes()}


def case(kernel: object, inputs: list[np.ndarray], output: np.ndarray, tolerance: float = 0.0) -> None:
    """`tolerance`: relative, 0 for the same bits."""
    output = np.asarray(output)
    inputs = [np.asarray(i) for i in inputs]
    cases.append(
        {
            "kernel": msgpack.packb(kernel),
            "inputs": [packed(i) for i in inputs],
            "output": packed(np.array(output, order="C")),
            "tolerance": tolerance,
        }
    )


def array(dtype: str, *shape: int) -> np.ndarray:
    if dtype == "b1":
        return rng.random(shape) < 0.5
    if dtype in FLOATS:
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)


def elementwise() -> None:
    operations = {
        "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
        "minimum": np.minimum, "maximum": np.maximum, "equal": np.equal, "not-equal": np.not_equal,
        "less": np.less, "less-equal": np.less_equal, "greater": np.greater, "greater-equal": np.greater_equal,
    }  # fmt: skip
    with np.errstate(all="ignore"):
        for name, operation in operations.items():
            for left in ("b1", *INTEGERS, *FLOATS):
                for right in (left, "f8", "i4", "u8"):
                    # NumPy compares u8 with signed exactly and divides 8 and 16 bits in smaller floats; we in f64.
                    if name == "subtract" and left == right == "b1":
                        continue
                    a, b = array(left, 3, 4), array(right, 4)
                    mixed = {left[0], right[0]} == {"i", "u"} and "8" in (left[1], right[1])
                    if mixed and name not in ("add", "subtract", "multiply", "divide"):
                        continue
                    expected = operation(a, b)
                    if name == "divide" and expected.dtype.itemsize < 8 and not left == right == "f4":
                        expected = np.divide(a.astype("f8"), b.astype("f8"))
                    if expected.dtype.str[1:] not in NAMES:
                        continue
                    case({"binary": name}, [a, b], expected)
        for dtype in ("f4", "f8"):
            a = array(dtype, 5, 3)
            a[0, 0], a[1, 1] = np.nan, np.inf
            b = np.broadcast_to(array(dtype, 3), (5, 3))
            case({"binary": "minimum"}, [a, b], np.minimum(a, b))
            case({"binary": "maximum"}, [a.T, b.T], np.maximum(a, b).T)
            for name, operation in (("sqrt", np.sqrt), ("exp", np.exp), ("log", np.log)):
                case({"unary": name}, [np.abs(a)], operation(np.abs(a)), 1e-6 if dtype == "f4" else 1e-15)
        for dtype in (*INTEGERS, *FLOATS):
            a = array(dtype, 7)
            for name, operation in (("negative", np.negative), ("absolute", np.abs), ("square", np.square)):
                case({"unary": name}, [a], operation(a))
            case({"with-scalar": {"op": "multiply", "scalar": 3}}, [a], a * a.dtype.type(3))
            case({"with-scalar": {"op": "subtract", "scalar": 3, "reversed": True}}, [a], a.dtype.type(3) - a)
            half = a.dtype.type(0.5) if dtype in FLOATS else 0.5
            case({"with-scalar": {"op": "add", "scalar": 0.5}}, [a], a + half)


def structure() -> None:
    a = array("f8", 3, 4, 5)
    case({"transpose": []}, [a], a.T)
    case({"transpose": [1, 2, 0]}, [a], a.transpose(1, 2, 0))
    ranges = [{"start": 1, "stop": 3, "step": 1}, {"start": 0, "stop": 4, "step": 3}]
    case({"slice": ranges}, [a], a[1:3, 0:4:3])
    case({"concatenate": 1}, [a, a[:, :1], a[:, :0]], np.concatenate([a, a[:, :1]], axis=1))
    b = array("i4", 2, 3)
    case({"concatenate": 0}, [b, array("u2", 1, 3) * 0 + 7], np.concatenate([b, np.full((1, 3), 7, "u2")]))
    case({"cast": "i32"}, [np.array([1.9, -1.9, 3.0])], np.array([1, -1, 3], "i4"))
    case({"cast": "bool"}, [np.array([0, 2, -1], "i8")], np.array([False, True, True]))
    case({"full": {"shape": [2, 3], "dtype": "f32", "value": 1.5}}, [], np.full((2, 3), 1.5, "f4"))


def products() -> None:
    for dtype in ("b1", *INTEGERS, *FLOATS):
        a, b = array(dtype, 17, 33), array(dtype, 33, 9)
        tolerance = {"f4": 1e-4, "f8": 1e-12}.get(dtype, 0.0)
        case("matmul", [a, b], a @ b, tolerance)
    a, b, c, d = array("i2", 5, 130), array("i2", 130, 514), array("i2", 5, 3), array("i2", 3, 514)
    case("matmul", [a, b], a @ b)
    case("matmul", [a, b, c, d], a @ b + c @ d)
    x = array("f8", 20, 30)
    case("matmul", [x.T, x], x.T @ x, 1e-12)
    case("matmul", [array("i4", 0, 3), array("f8", 3, 2)], np.zeros((0, 2)))


def reductions() -> None:
    for dtype in ("b1", *INTEGERS, *FLOATS):
        a = array(dtype, 6, 5, 7)
        tolerance = {"f4": 2e-6, "f8": 1e-14}.get(dtype, 0.0)
        for axes in (None, [0], [1], [2], [0, 1], [0, 2], [1, 2]):
            axis = None if axes is None else tuple(axes)
            for keep in (False, True):
                parameters = {"axes": axes, "keep": keep}
                case({"reduce": {"op": "sum", **parameters}}, [a], a.sum(axis, keepdims=keep), max(tolerance, 0.0))
                if dtype != "b1":
                    case({"reduce": {"op": "min", **parameters}}, [a], a.min(axis, keepdims=keep))
                    case({"reduce": {"op": "max", **parameters}}, [a], a.max(axis, keepdims=keep))
        mean = a.mean(1)
        case({"reduce": {"op": "mean", "axes": [1]}}, [a], mean, 1e-5 if dtype == "f4" else 1e-13)
        case({"reduce": {"op": "sum", "axes": [1]}}, [a.transpose(2, 0, 1)], a.transpose(2, 0, 1).sum(1), tolerance)
    a, b = array("f8", 4, 6), array("f8", 4, 9)
    both = np.concatenate([a, b], axis=1)

    def moments(x: np.ndarray) -> np.ndarray:
        return np.stack([np.full(4, float(x.shape[1])), x.mean(1), ((x - x.mean(1, keepdims=True)) ** 2).sum(1)])

    case({"moments": {"axes": [1]}}, [a], moments(a), 1e-12)
    case("merge-moments", [moments(a), moments(b)], moments(both), 1e-12)
    case("mean", [moments(both)], both.mean(1), 1e-12)
    case({"var": {"ddof": 1}}, [moments(both)], both.var(1, ddof=1), 1e-12)
    case({"combine": "sum"}, [a, a * 2, a * 4], a + a * 2 + a * 4)
    case({"combine": "max"}, [a, a * 2], np.maximum(a, a * 2))


def splitmix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random() -> None:
    def generator(seed: int, chunk: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=np.array([seed, chunk], "u8")))

    for seed, chunk in ((0, 0), (1, 2), (2**63, 2**64 - 1)):
        common = {"seed": seed, "chunk": chunk, "shape": [5, 7], "low": 0.0, "high": 1.0}
        case({"uniform": {**common, "dtype": "f64"}}, [], generator(seed, chunk).random((5, 7)))
        case({"uniform": {**common, "dtype": "f32"}}, [], generator(seed, chunk).random((5, 7), dtype="f4"))
        start = np.random.Philox(key=np.array([seed, chunk], "u8")).random_raw(1)
        raw = splitmix(start + np.arange(1, 1004, dtype="u8") * np.uint64(0x9E3779B97F4A7C15))
        x, y = (raw & 0xFFFFFFFF).astype(object), (raw >> np.uint64(32)).astype(object)
        hits = sum(int(a) * int(a) + int(b) * int(b) < 2**64 for a, b in zip(x, y, strict=True))
        case({"pi": {"seed": seed, "chunk": chunk, "samples": 1003}}, [], np.int64(hits))


for part in (elementwise, structure, products, reductions, random):
    part()
path = Path(__file__).with_name("numpy.msgpack")
path.write_bytes(msgpack.packb({"numpy": np.__version__, "cases": cases}))
print(f"{len(cases)} cases, {path.stat().st_size} bytes")
