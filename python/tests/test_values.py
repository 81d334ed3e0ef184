from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from oxidask.worker import values
from oxidask.worker.store import Store


def memory_file(frames):
    fd, places = values.write_memory_file(frames)
    return fd, f"/proc/self/fd/{fd}", places


@pytest.fixture
def shards(monkeypatch):
    """Values are cut as those above 64 MiB are."""
    monkeypatch.setattr(values, "_SHARD", 64 << 10)


def test_shards_of_a_mapped_array_are_put_together_without_a_copy(shards):
    array = np.arange(50_000)
    header, frames = values.finish(*values.serialise(array))
    assert len(frames) == 7
    fd, path, places = memory_file(frames)
    mapped = values.map_memory_file(path, places)
    opened = values.deserialise(header, mapped)
    os.close(fd)
    np.testing.assert_array_equal(opened, array)
    mapped[0][0] ^= 1
    assert opened[0] == array[0] ^ 1, "it is the same memory"


def test_task_may_write_to_a_mapped_array_and_the_value_stays(shards):
    header, frames = values.finish(*values.serialise(np.zeros(50_000)))
    fd, path, places = memory_file(frames)
    first = values.deserialise(header, values.map_memory_file(path, places))
    first += 1
    second = values.deserialise(header, values.map_memory_file(path, places))
    os.close(fd)
    assert second.sum() == 0


def test_segment_is_returned_when_the_last_view_of_it_is_gone():
    array = np.arange(1000.0)
    header, frames = values.finish(*values.serialise(array))
    fd, _, places = memory_file(frames)
    store = Store()
    located = [(77, fd, *place) for place in places]
    store.put_leased(1, "key", header, located, [], "/proc/self/fd/")
    part = store.load(1)[10:20]
    store.drop([1])
    gc.collect()
    assert not store.has_returned(), "a part of it is still used"
    np.testing.assert_array_equal(part, array[10:20])
    del part
    gc.collect()
    assert store.returned() == [77]
    os.close(fd)


def test_segment_of_a_value_that_no_task_opened_is_returned():
    store = Store()
    store.put_leased(1, "key", b"", [(5, 3, 0, 10), None, (5, 3, 64, 10)], [b"x"], "/proc/self/fd/")
    store.drop([1])
    gc.collect()
    assert store.returned() == [5]


def test_frames_that_were_sent_stand_between_mapped_ones():
    fd, path, places = memory_file([b"a" * 100, b"c" * 100])
    (first, second) = [(path, *place, None) for place in places]
    mapped = values.map_segments([first, None, second], [b"b"])
    assert [bytes(frame[:1]) for frame in mapped] == [b"a", b"b", b"c"]
    os.close(fd)
