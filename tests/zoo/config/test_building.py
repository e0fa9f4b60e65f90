"""Building a run's model: threads."""

from collections.abc import Iterator

import pytest
import torch as th

from sb3_dreamer import DreamerV3
from sb3_dreamer.zoo.config import building


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = th.get_num_threads()
    th.set_num_threads(2)
    yield
    th.set_num_threads(before)


@pytest.mark.parametrize(("size", "batch_length", "threads"), [("100k", 16, 1), ("100k", 64, 2), ("XXS", 64, 2)])
def test_small_updates_take_one_thread(two_threads: None, size: str, batch_length: int, threads: int) -> None:
    """32 x 16 rows and 111,492 parameters are small; 32 x 64 rows, or 644,996 parameters, are not."""
    model = DreamerV3("MlpPolicy", "CartPole-v1", model_size=size, batch_size=32, batch_length=batch_length)
    building.choose_threads(model)
    assert th.get_num_threads() == threads
