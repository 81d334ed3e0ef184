from __future__ import annotations

import pickle
import traceback

import dask
import pytest
from distributed.core import clean_exception, error_message
from oxidask.errors import describe


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_exception_and_traceback_arrive_as_with_stock():
    def user_function():
        return 1 / 0

    try:
        user_function()
    except ZeroDivisionError as error:
        stock = error_message(error)
        fields, parts = describe(error)
    assert fields["exception_text"] == stock["exception_text"] == "ZeroDivisionError('division by zero')"
    assert fields["traceback_text"] == stock["traceback_text"]
    _, exception, tb = clean_exception(parts[0], parts[1])
    assert isinstance(exception, ZeroDivisionError)
    assert [frame.name for frame in traceback.extract_tb(tb)][-1] == "user_function"


def test_cause_goes_along():
    error = raised(RuntimeError("outer"), raised(KeyError("inner")))
    _, parts = describe(error)
    found = pickle.loads(parts[0])
    assert isinstance(found.__cause__, KeyError)


def test_exception_that_cannot_be_pickled_comes_as_its_text():
    class Local(Exception):
        def __reduce__(self):
            raise TypeError("no")

    fields, parts = describe(raised(Local("mine")))
    assert "Local('mine')" in str(pickle.loads(parts[0]))
    assert fields["exception_text"] == "Local('mine')"


def test_long_texts_are_cut():
    with dask.config.set({"distributed.admin.max-error-length": 100}):
        fields, parts = describe(raised(ValueError("x" * 10_000)))
    error = pickle.loads(parts[0])
    assert isinstance(error, ValueError) and error.args[0] == "Long error message"
    assert not fields["traceback"] and len(parts) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError()])
def test_what_is_no_ordinary_exception_is_described_too(error):
    _, parts = describe(raised(error))
    assert type(pickle.loads(parts[0])) is type(error)
