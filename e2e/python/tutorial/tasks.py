"""Single tasks: delayed functions and futures."""

from __future__ import annotations

import random

import dask
from distributed import TimeoutError, as_completed

from .program import Context, check, program


@program("delayed loop")
def delayed_loop(context: Context) -> str:
    def inc(x: int) -> int:
        return x + 1

    def double(x: int) -> int:
        return x * 2

    def add(x: int, y: int) -> int:
        return x + y

    data = range(context.pick(100, 2_000))
    output = []
    for x in data:
        a = dask.delayed(inc)(x)
        b = dask.delayed(double)(x)
        output.append(dask.delayed(add)(a, b))
    total = dask.delayed(sum)(output).compute()
    check(total == sum(3 * x + 1 for x in data), f"the sum is {total}")
    return f"sum of {len(data)} = {total}"


@program("futures")
def futures(context: Context) -> str:
    def square(x: int) -> int:
        return x**2

    def slow(x: float) -> float:
        import time

        time.sleep(x)
        return x

    def fail(x: int) -> float:
        return x / 0

    client = context.client
    check(client.submit(square, 7).result(timeout=60) == 49, "submit and result")
    count = context.pick(200, 5_000)
    squares = client.map(square, range(count))
    total = client.submit(sum, squares)
    check(total.result(timeout=120) == sum(x**2 for x in range(count)), "a task of many futures")
    check(client.gather(squares) == [x**2 for x in range(count)], "gather keeps the order")
    completed = sum(future.result() for future in as_completed(squares[:20]))
    check(completed == sum(x**2 for x in range(20)), "as_completed gives each future once")

    try:
        client.submit(slow, 1.0).result(timeout=0.1)
        raise AssertionError("result(timeout=0.1) of a slow task returned")
    except TimeoutError:
        pass
    failed = client.submit(fail, 1)
    check(isinstance(failed.exception(), ZeroDivisionError), "the task's own exception comes back")
    remote = client.scatter(list(range(10)))
    check(client.gather(client.map(square, remote)) == [x**2 for x in range(10)], "scattered data")
    return f"{count} squares gathered, sum {total.result()}"


@program("Monte-Carlo pi")
def monte_carlo_pi(context: Context) -> str:
    def hits(seed: int, samples: int) -> int:
        import random

        draw = random.Random(seed).random
        return sum(draw() ** 2 + draw() ** 2 < 1.0 for _ in range(samples))

    batches, samples = context.pick(20, 200), context.pick(1_000, 20_000)
    counts = [dask.delayed(hits)(seed, samples) for seed in range(batches)]
    pi = (4 * dask.delayed(sum)(counts) / (batches * samples)).compute()

    expected = 0
    for seed in range(batches):
        draw = random.Random(seed).random
        expected += sum(draw() ** 2 + draw() ** 2 < 1.0 for _ in range(samples))
    check(pi == 4 * expected / (batches * samples), f"pi is {pi}")
    return f"pi = {pi:.5f}"
