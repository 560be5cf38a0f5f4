import random

import numpy as np
import torch

from tecafn.training.randomness import generator_states, restore_generators, seed_generators

CPU = torch.device("cpu")


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), *torch.rand(3).tolist(), random.gauss(0, 1)]


def test_restored_generators_draw_the_same_numbers_again() -> None:
    seed_generators(5)
    draws()
    np.random.standard_normal()  # leaves a second normal cached
    states = generator_states(CPU)
    first = [*draws(), float(np.random.standard_normal())]
    draws()
    restore_generators(states, CPU)
    assert [*draws(), float(np.random.standard_normal())] == first


def test_one_seed_gives_one_stream_and_another_gives_another() -> None:
    seed_generators(5)
    first = draws()
    seed_generators(5)
    assert draws() == first
    seed_generators(6)
    assert draws() != first
