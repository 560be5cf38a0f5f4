"""What is chosen on the split it is reported on flatters; what is chosen elsewhere does not."""

from __future__ import annotations

import numpy as np
import pytest

from tecafn.evaluation.flattery import Errors, choose


def simulated(
    *, settings: int = 40, spread: float = 0.0, offset: float = 0.0, seed: int = 0
) -> Errors:
    """All networks equally good but for ``spread``; each split adds a noise of deviation 1."""
    random = np.random.default_rng(seed)
    shape = (settings, 5, 10)
    good = spread * random.standard_normal((settings, 1, 1)) + np.zeros(shape)
    valid, test = (good + random.standard_normal(shape) for _ in range(2))
    return Errors(valid, test - offset, good)


@pytest.mark.parametrize("num_seeds", [1, 3, 5])
def test_what_validation_chooses_is_reported_as_it_is(num_seeds: int) -> None:
    found = [
        choose(simulated(seed=s), by="valid", num_seeds=num_seeds, num_draws=1).flattery
        for s in range(200)
    ]
    assert np.mean(found) == pytest.approx(0.0, abs=4 / np.sqrt(200 * num_seeds))


def test_the_best_epoch_on_test_is_the_least_of_ten() -> None:
    """The mean of the least of ten normal numbers is -1.539 (Harter 1961)."""
    errors = simulated(settings=400)
    flattery = np.mean(
        [
            choose(
                Errors(errors.valid[k : k + 1], errors.test[k : k + 1], errors.fresh[k : k + 1]),
                by="test", num_seeds=5, num_draws=1,
            ).flattery + errors.test[k].mean()
            for k in range(400)
        ]
    )  # fmt: skip
    assert flattery == pytest.approx(1.539, abs=0.05)


def test_settings_chosen_on_test_flatter_the_more_the_fewer_seeds_there_are() -> None:
    errors = simulated()
    found = [
        choose(errors, by="test", num_seeds=seeds, num_draws=200).flattery for seeds in (1, 3, 5)
    ]
    alone = choose(
        Errors(errors.valid[:1], errors.test[:1], errors.fresh[:1]),
        by="test", num_seeds=5, num_draws=1,
    ).flattery  # fmt: skip
    assert found[0] > found[1] > found[2] > alone


def test_a_test_split_that_is_easier_for_all_flatters_nobody() -> None:
    plain = choose(simulated(), by="test", num_seeds=3, num_draws=50)
    easier = choose(simulated(offset=5.0), by="test", num_seeds=3, num_draws=50)
    assert easier.flattery == pytest.approx(plain.flattery)
    assert easier.reported == pytest.approx(plain.reported - 5.0)


def test_better_settings_are_found_by_either() -> None:
    errors = simulated(spread=3.0)
    best = errors.fresh.mean((1, 2)).min()
    for by in ("valid", "test"):
        report = choose(errors, by=by, num_seeds=5, num_draws=20)
        assert report.fresh == pytest.approx(best, abs=1.0)


def test_mistakes_are_named() -> None:
    errors = simulated(settings=1)
    with pytest.raises(ValueError, match="num_seeds must be 1 to 5, got 6"):
        choose(errors, by="test", num_seeds=6, num_draws=1)
    with pytest.raises(ValueError, match="three arrays"):
        Errors(errors.valid, errors.test[0], errors.fresh)
