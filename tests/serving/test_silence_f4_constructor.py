"""F4: making a predictor changes nothing of the network that it is made of."""

from __future__ import annotations

import copy

import numpy as np
import torch

from tecafn.serving.predictor import ModelDefinition, Predictor
from tecafn.testing import MethodCase, method_case


def definition_of(case: MethodCase) -> ModelDefinition:
    return ModelDefinition(
        method=case.name, config=case.config, info=case.info, max_text_tokens=32, dataset="tiny"
    )


def test_making_a_predictor_and_predicting_leaves_the_callers_network_as_it_was() -> None:
    with method_case("misa") as case:
        network = case.build().network
        network.encoders.eval() if hasattr(network, "encoders") else next(network.children()).eval()
        modes = {name: module.training for name, module in network.named_modules()}
        types = {name: type(module) for name, module in network.named_modules()}
        assert set(modes.values()) == {True, False}
        before = copy.deepcopy(network.state_dict())
        predictor = Predictor(definition_of(case), network, None)
        first = predictor.predict_batch(case.batch(4))
        assert {name: type(module) for name, module in network.named_modules()} == types
        assert {name: module.training for name, module in network.named_modules()} == modes
        after = network.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        # It predicts as in evaluation mode all the same: no dropout.
        assert np.array_equal(predictor.predict_batch(case.batch(4)), first)
        with torch.no_grad():
            expected = network.eval()(case.batch(4)).prediction.numpy()
        assert np.array_equal(first, expected)


def test_a_loaded_network_has_packed_layers_of_its_own(tiny_run: object) -> None:
    import tecafn

    network = tecafn.load(tiny_run).network  # type: ignore[arg-type]
    assert not network.training
    names = {type(module).__name__ for module in network.modules()}
    assert names & {"PackedTextLayer", "PackedLinear"}
