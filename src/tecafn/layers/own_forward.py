"""Encoders whose layers cannot be run by hand: the model's own forward, whole or in two parts.

MPNet and DeBERTa add relative positions, ModernBERT rotates queries by theirs, ELECTRA's small
model widens its embeddings: each does so in a forward of its own. Here that forward runs as it is.
To run the lower layers alone (to cache what they compute) or the upper ones alone (from that
cache), it runs over a copy of the model that shares all weights and has stand-ins for the other
layers: what a layer is given besides the hidden states is still prepared by the model itself.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn

_PROBE_LENGTH = 4
_TOLERANCE = 1e-4

_given: ContextVar[Tensor] = ContextVar("hidden states for the first of the upper layers")


class OwnForward:
    """Runs a model of transformers on token ids alone; finds its layers.

    Args:
        model: in float32; its pooler, which nothing here reads, is taken out.

    ``hidden_dim`` is the width of the last hidden states, ``layers`` the model's layers; none where
    they cannot be told apart, as ALBERT's, which are one layer run many times.

    Raises:
        ValueError: the model does not turn token ids into hidden states.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parts = {"model": model}
        _remove_pooler(model)
        size = int(getattr(model.config, "vocab_size", 0) or 0)
        self._ids = torch.arange(2, 2 + _PROBE_LENGTH).remainder(max(size, 1)).unsqueeze(0)
        self._mask = torch.ones_like(self._ids, dtype=torch.bool)
        with _evaluating(model):
            stack = _find_stack(model)
            states, self._returns = self._probe(stack)
            self.hidden_dim = int(states.shape[-1])
            told_apart = stack is not None and len(self._returns) == len(stack)
            self.layers = stack if stack is not None and told_apart else nn.ModuleList()
            # MobileBERT's embeddings look at the next token, ConvBERT convolves, FNet has no mask.
            self._sees_padding = not self._hides_padding(states)

    @property
    def takes_segments(self) -> bool:
        """Does the model tell a pair's two texts by an embedding?"""
        known = inspect.signature(self.model.forward).parameters
        num_types = getattr(self.model.config, "type_vocab_size", None) or 0
        return num_types > 1 and "token_type_ids" in known

    def run(self, tokens: Tensor, allowed: Tensor, segments: Tensor | None) -> Tensor:
        """Token ids (B, L) to last hidden states (B, L, D).

        Args:
            tokens: ids.
            allowed: (B, L) bool, the tokens that are seen, the first ones of each row.
            segments: (B, L) int64, or None.
        """
        return self._by_length(
            allowed,
            lambda rows, length: _states(
                self.model,
                tokens[rows, :length],
                allowed[rows, :length],
                _at(segments, rows, length),
            ),
        )

    def run_lower(
        self, tokens: Tensor, allowed: Tensor, segments: Tensor | None, *, count: int
    ) -> Tensor:
        """Token ids (B, L) to the states (B, L, D) after the first ``count`` layers.

        After all of them: the last hidden states, what the model does after its layers included.
        """
        if count == len(self.layers):
            return self.run(tokens, allowed, segments)
        return self._by_length(
            allowed,
            lambda rows, length: self._lower(
                tokens[rows, :length], allowed[rows, :length], _at(segments, rows, length), count
            ),
        )

    def _lower(self, tokens: Tensor, mask: Tensor, segments: Tensor | None, count: int) -> Tensor:
        lower = self._with_layers(
            [*self.layers[:count], *map(_Stop, self.layers[count:])], self.model.training
        )
        try:
            _states(lower, tokens, mask, segments)
        except _ReachedError as reached:
            return reached.states
        raise AssertionError("the model has not run its layers")

    def run_upper(self, states: Tensor, allowed: Tensor, *, count: int) -> Tensor:
        """The states after the first ``count`` layers to last hidden states, (B, L, D) both."""
        if count == len(self.layers):
            return states
        return self._by_length(
            allowed,
            lambda rows, length: self._upper(states[rows, :length], allowed[rows, :length], count),
        )

    def _upper(self, states: Tensor, mask: Tensor, count: int) -> Tensor:
        passed = [_Passed(self.layers[n], self._returns[n]) for n in range(count)]
        upper = self._with_layers(
            [*passed, _Entry(self.layers[count]), *self.layers[count + 1 :]], self.model.training
        )
        token = _given.set(states)
        try:
            # Which ids they are does not matter: their embeddings are not looked at.
            ids = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
            return _states(upper, ids, mask, None)
        finally:
            _given.reset(token)

    def _with_layers(self, layers: list[nn.Module], training: bool) -> nn.Module:
        """The model with others in place of its layers; everything else is shared."""

        def replaced(module: nn.Module) -> nn.Module:
            if module is self.layers:
                return nn.ModuleList(layers)
            if all(part is not self.layers for part in module.modules()):
                return module
            twin = copy.copy(module)
            twin._modules = {
                name: None if child is None else replaced(child)
                for name, child in module._modules.items()
            }
            twin.training = training
            return twin

        # Given to a module, layers are put into training mode by nobody.
        return replaced(self.model)

    def _by_length(self, allowed: Tensor, run: Callable[[Tensor | slice, int], Tensor]) -> Tensor:
        """``run`` all rows at once; where padding would be seen, those of a length together."""
        if not self._sees_padding:
            return run(slice(None), allowed.shape[1])
        states = None
        lengths = allowed.sum(1)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            some = run(rows, length)
            if states is None:
                states = some.new_zeros(*allowed.shape, some.shape[2])
            padded = nn.functional.pad(some, (0, 0, 0, allowed.shape[1] - length))
            states = states.index_add(0, rows, padded)
        assert states is not None, "there is no row"
        return states

    @torch.no_grad()
    def _probe(self, stack: nn.ModuleList | None) -> tuple[Tensor, list[int | None]]:
        """Run a few ids; learn what each layer returns: None for a tensor, else how many."""
        returns: list[int | None] = []

        def note(_: nn.Module, __: Any, output: Any) -> None:
            returns.append(len(output) if isinstance(output, tuple) else None)

        handles = [layer.register_forward_hook(note) for layer in stack or ()]
        try:
            states = _states(self.model, self._ids, self._mask, None)
            if states.shape[:2] != self._ids.shape:
                raise ValueError(f"its states are {tuple(states.shape)}")
        except Exception as error:  # anything may happen in a model that reads no text
            reason = " ".join(str(error).split())[:120]
            raise ValueError(
                f"{type(self.model).__name__} does not run on token ids alone "
                f"({type(error).__name__}: {reason})"
            ) from None
        finally:
            for handle in handles:
                handle.remove()
        return states, returns

    @torch.no_grad()
    def _hides_padding(self, states: Tensor) -> bool:
        """Are a text's states the same with padding after it?"""
        behind = (0, _PROBE_LENGTH)
        ids, mask = (nn.functional.pad(part, behind) for part in (self._ids, self._mask))
        padded = _states(self.model, ids, mask, None)[:, :_PROBE_LENGTH]
        return _alike(padded, states)

    def can_be_parted(self, count: int) -> bool:
        """Do the first ``count`` layers and the others, run apart, give what the whole model gives?

        Not where a layer hands on more than its states, as T5's first.
        """
        if not 0 <= count <= len(self.layers):
            return False
        with _evaluating(self.model), torch.no_grad():
            try:
                lower = self.run_lower(self._ids, self._mask, None, count=count)
                again = self.run_upper(lower, self._mask, count=count)
                whole = self.run(self._ids, self._mask, None)
            except Exception:
                return False
        return lower.shape[:2] == self._ids.shape and _alike(again, whole)


def _alike(states: Tensor, others: Tensor) -> bool:
    return torch.allclose(states, others, rtol=_TOLERANCE, atol=_TOLERANCE)


def _at(segments: Tensor | None, rows: Tensor | slice, length: int) -> Tensor | None:
    return None if segments is None else segments[rows, :length]


class _ReachedError(Exception):
    """The hidden states that a layer would have been given."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


class _StandIn(nn.Module):
    """In a layer's place; whatever else is asked of it, the layer answers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.__dict__["layer"] = layer  # not a child: it is somebody else's

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of nn.Module, before or beside its own
            return super().__getattr__(name)
        return getattr(self.__dict__["layer"], name)


class _Stop(_StandIn):
    def forward(self, *given: Any, **named: Any) -> None:
        """Raise what the layer is given."""
        raise _ReachedError(_hidden(given, named))


class _Passed(_StandIn):
    def __init__(self, layer: nn.Module, returns: int | None) -> None:
        super().__init__(layer)
        self.__dict__["returns"] = returns

    def forward(self, *given: Any, **named: Any) -> Any:
        """Hand the hidden states on, in the form in which the layer does."""
        states, returns = _hidden(given, named), self.__dict__["returns"]
        return states if returns is None else (states, *[None] * (returns - 1))


class _Entry(_StandIn):
    def forward(self, *given: Any, **named: Any) -> Any:
        """The layer, on the states that ``run_upper`` was given."""
        if given:
            return self.__dict__["layer"](_given.get(), *given[1:], **named)
        return self.__dict__["layer"](**{**named, "hidden_states": _given.get()})


def _hidden(given: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    return cast(Tensor, given[0] if given else named["hidden_states"])


def _states(model: nn.Module, ids: Tensor, mask: Tensor, segments: Tensor | None) -> Tensor:
    more = {} if segments is None else {"token_type_ids": segments}
    output = model(input_ids=ids, attention_mask=mask.long(), **more)
    return cast(Tensor, output.last_hidden_state)


def _find_stack(model: nn.Module) -> nn.ModuleList | None:
    """The list of the model's layers: as long as its configuration says; the largest of those."""
    count = getattr(model.config, "num_hidden_layers", None)

    def is_stack(module: nn.Module) -> bool:
        return isinstance(module, nn.ModuleList) and len(module) == count

    def size(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    found = [cast(nn.ModuleList, module) for module in model.modules() if is_stack(module)]
    return max(found, key=size, default=None)


def _remove_pooler(model: nn.Module) -> None:
    """Its parameters would be stored and never trained."""
    if isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = _First()


class _First(nn.Module):
    def forward(self, states: Any, *_: Any, **__: Any) -> Any:
        """Whatever is given first."""
        return states


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
