"""Words of the tables before a training."""

import pytest

from sb3_dreamer.common.report import duration, size_text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 KiB"), (300 * 2**10, "300 KiB"), (42 * 2**20, "42 MiB"), (1.25 * 2**30, "1.25 GiB")],
)
def test_sizes_show_digits_that_matter(n_bytes: float, text: str) -> None:
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (720, "12 min"), (5.7 * 3600, "5.7 h"), (3.2 * 86400, "3.2 days"), (9.5e7, "3.0 years")],
)
def test_durations_come_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
