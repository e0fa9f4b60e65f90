"""What tests of several files share."""

from collections.abc import Iterator

import pytest
import torch as th


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch, for figures and bits that must not depend on others."""
    before = th.get_num_threads()
    th.set_num_threads(1)
    yield
    th.set_num_threads(before)
