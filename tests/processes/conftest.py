"""Pools of 1, 2, 3 and 4 processes, kept for all tests of a process."""

import pytest

from .pool import Pool, Starter


@pytest.fixture(scope="session")
def starter():
    starter = Starter()
    yield starter
    starter.stop()


def _pool(*given):
    pool = Pool(*given)
    yield pool
    pool.stop()


@pytest.fixture(scope="session")
def alone(starter):
    yield from _pool(starter, 1)


@pytest.fixture(scope="session")
def pair(starter):
    yield from _pool(starter, 2)


@pytest.fixture(scope="session", params=[3, 4])
def several(request, starter):
    yield from _pool(starter, request.param)
