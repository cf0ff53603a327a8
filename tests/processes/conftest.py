"""Pools of 1, 2, 3 and 4 processes, kept for all tests of a process."""

import pytest

from .pool import Pool


def _pool(size):
    pool = Pool(size)
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def alone():
    yield from _pool(1)


@pytest.fixture(scope="session")
def pair():
    yield from _pool(2)


@pytest.fixture(scope="session", params=[3, 4])
def several(request):
    yield from _pool(request.param)
