"""Records what Dask's own functions answer, for `tests/dask.rs`.

Run with an environment that has dask, distributed, lz4, python-snappy and zstandard:

    python protocol/tests/dask/record.py
"""

import json
import random
import zlib
from pathlib import Path

import lz4.block
import msgpack
import snappy
import zstandard
from dask.utils import key_split, parse_timedelta
from distributed.utils import key_split_group

HERE = Path(__file__).parent
rng = random.Random(20260500)


WORDS = """x|inc|add|sum|getitem|from|array|read|csv|Über|日本|é|😀|database|abcdefgh|balanced|
abcdefab|gathered|zzzzzzzz|00ff|1|2b|ae05086432ca935f6eba409a8ecd4896||_|a_b|a.b|<lambda>|<|<>|
0123456789abcdef0123456789abcdef|<module.sub.cls object at 0x1>|< a.b c|a b|(|)|()|('x'|'q'|"d"|
it's|say "it's"|,|x,y|\\""".replace("\n", "").split("|")
WORDS += ["tab\t", "nl\n", "\x00", "\x1c", "\x7f", "\xa0", "\xad", "\u200b"]

NUMBERS = [0, 1, -1, 31, 127, 128, -32, -33, -129, 2**15, 2**31, -(2**31) - 1, 2**63, 2**64 - 1]
NUMBERS += [-(2**63), 0.0, -0.0, 1.0, 1.5, 0.1, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5]
NUMBERS += [1.5e300, float("inf"), True, False]


def text() -> str:
    joined = "-".join(rng.choice(WORDS) for _ in range(rng.randint(1, 5)))
    block = f"('{joined}', {rng.randint(0, 9)})"
    return rng.choice([joined, joined, joined, block, f"_{joined}", f"{joined})"])


def number() -> int | float | bool:
    some = [rng.choice(NUMBERS), rng.randint(-(10**6), 10**6), rng.random()]
    return rng.choice([*some, rng.random() * 10.0 ** rng.randint(-20, 20)])


def key(depth: int = 0):
    kind = rng.random()
    if kind < 0.6:
        return text()
    if kind < 0.7:
        return text().encode()
    if kind < 0.75 or depth > 3:
        return number()
    first = key(depth + 1) if rng.random() < 0.3 else text()
    kinds = [number, text, lambda: key(depth + 1)]
    return (first, *(rng.choice(kinds)() for _ in range(rng.randint(0, 3))))


def write_lines(name: str, lines: list[str]) -> None:
    (HERE / name).write_text("\n".join(lines) + "\n")


def keys() -> None:
    seen = {}
    while len(seen) < 500:
        value = key()
        try:
            prefix, group = key_split(value), key_split_group(value)
        except Exception:
            continue  # Dask has no answer: an empty str, for one.
        wire = msgpack.packb(value, use_bin_type=True).hex()
        answers = {"prefix": prefix, "group": str(group), "str": str(value), "repr": repr(value)}
        seen[wire] = json.dumps({"wire": wire, **answers})
    write_lines("keys.jsonl", list(seen.values()))


def equality() -> None:
    """Lists of keys that are equal among themselves and differ from those of other lists."""
    numbers = [0, 0.0, -0.0, False, 1, 1.0, True, 2, 2.0, 0.5, 2**63, 2.0**63, 2**53 + 1, 2.0**53]
    numbers += [1e300, "1", b"1"]
    values = [*numbers, ("x",), (("x",),)]
    for number in numbers:
        values += [("x", number), (("y", number), 1)]
    groups: dict = {}
    for value in values:
        groups.setdefault(value, []).append(msgpack.packb(value, use_bin_type=True).hex())
    (HERE / "equal-keys.json").write_text(json.dumps(list(groups.values()), indent=0) + "\n")


def durations() -> None:
    numbers = ["1", "3.5", "0", "1e3", "2E-2", "1_000", "_1", "1_", "", "-1", ".5", "5.", "+2"]
    numbers += ["007", "1e999", "1e"]
    units = ["", "s", "ms", "us", "ns", "m", "h", "d", "w", "second", "Seconds", "milliseconds"]
    units += ["MS", "min", "sec"]
    lines = []
    for number in numbers:
        for unit in units:
            for spelt in (f"{number}{unit}", f" {number} {unit} "):
                try:
                    seconds = repr(float(parse_timedelta(spelt)))
                except Exception:
                    seconds = None
                lines.append(json.dumps([spelt, seconds]))
    write_lines("durations.jsonl", lines)


def compressed() -> None:
    plain = {"empty": b"", "one": b"x", "text": b"dask " * 20_000, "zeros": bytes(300_000)}
    plain["noise"] = rng.randbytes(500)
    zstd = zstandard.ZstdCompressor(level=3)
    for name, data in plain.items():
        for algorithm, frame in {
            "lz4": lz4.block.compress(data),
            "snappy": snappy.compress(data),
            "zlib": zlib.compress(data),
            "zstd": zstd.compress(data),
        }.items():
            (HERE / f"{name}.{algorithm}").write_bytes(frame)
    (HERE / "noise.plain").write_bytes(plain["noise"])


keys()
equality()
durations()
compressed()
