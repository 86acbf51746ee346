"""Where videos come from: which of them are forecast, and at which size, colours and length."""

import numpy as np
import pytest

from extras import sources
from extras.cli import InputError


def test_videos_are_chosen_from_the_start_or_at_random():
    np.testing.assert_array_equal(sources.choose_indices(10_000, 3), [0, 1, 2])
    np.testing.assert_array_equal(sources.choose_indices(3), [0, 1, 2])
    assert len(sources.choose_indices(10_000)) == 100
    assert len(sources.choose_indices(10_000, usual_count=4)) == 4
    picked = sources.choose_indices(10_000, 3, seed=1)
    np.testing.assert_array_equal(sources.choose_indices(10_000, 3, seed=1), picked)
    assert set(sources.choose_indices(10_000, 3, seed=2)) != set(picked)
    assert sorted(sources.choose_indices(5, 5, seed=0)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count, seed", [(4, None), (0, None), (-1, None), (2, -1)])
def test_numbers_that_cannot_be_chosen_are_refused(count, seed):
    with pytest.raises(InputError, match="3 videos|seed is 0 or above"):
        sources.choose_indices(3, count, seed)
