"""Bags of Python objects, on disk as JSON."""

from __future__ import annotations

import collections
import json

import dask.bag as db

from .program import Context, check, program


@program("bag of JSON people")
def people(context: Context) -> str:
    def person(seed: int) -> dict:
        import random

        rng = random.Random(seed)
        return {
            "name": [rng.choice(["Ada", "Bo", "Cem", "Dua"]), rng.choice(["Ek", "Faro", "Gil"])],
            "age": rng.randint(18, 80),
            "occupation": rng.choice(["baker", "pilot", "nurse", "smith", "judge", "miner"]),
            "address": {"city": rng.choice(["Oslo", "Lima", "Baku"]), "number": rng.randint(1, 99)},
        }

    count, files = context.pick(500, 20_000), context.pick(4, 10)
    bag = db.from_sequence(range(count), npartitions=files).map(person)
    written = bag.map(json.dumps).to_textfiles(str(context.folder / "*.json"))
    check(len(written) == files, f"{len(written)} files were written")

    read = db.read_text(str(context.folder / "*.json")).map(json.loads)
    grown = read.filter(lambda record: record["age"] > 30)
    number = grown.count().compute()
    common = (
        grown.map(lambda record: record["occupation"])
        .frequencies(sort=True)
        .topk(3, key=lambda pair: pair[1])
        .compute()
    )
    first = read.take(2)

    expected = [record for record in map(person, range(count)) if record["age"] > 30]
    frequencies = collections.Counter(record["occupation"] for record in expected)
    check(number == len(expected), f"{number} people are older than 30")
    check(
        [times for _, times in common] == [times for _, times in frequencies.most_common(3)],
        f"the most common occupations are {common}",
    )
    check(all(frequencies[job] == times for job, times in common), f"frequencies are {common}")
    check(list(first) == [person(0), person(1)], "the first records are the first written")
    return f"{number} of {count} older than 30, most common {common[0]}"
