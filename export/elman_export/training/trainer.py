"""The trainer: truncated back-propagation through time over streams of a text.

``Trainer.step`` processes one sequence: read, loss, gradient, AdamW, average. ``capture`` returns all that the next
step needs, so a run that was stopped and resumed ends exactly as an uninterrupted one.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from elman_export.errors import ExportError
from elman_export.training.batches import Position, Streams
from elman_export.training.dropout import Dropout
from elman_export.training.model import CharModel
from elman_export.training.streaming_loss import fit_logit_scale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elman_export.evaluation.corpus import Corpus, Ids
    from elman_export.training.recipe import Recipe

MIN_HELD_BACK, MAX_HELD_BACK = 1_000, 100_000  # characters, to which one number is fitted; below: none is
MAX_HELD_BACK_LOGITS = 1 << 25  # of all those characters together: 128 MiB
RANDOM = "random"  # the generator's state, among the tensors of `capture`


class Trainer:
    """One run: the network, its average, the optimiser, and the place in the text.

    Args:
        recipe: The settings.
        corpus: The text.
        device: The device of the network; random numbers and text are always on the CPU.

    Raises:
        ExportError: The text is too short for the recipe.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, device: str = "cpu") -> None:
        self.recipe = recipe
        self._device = device
        self.generator = torch.Generator().manual_seed(recipe.seed)  # the only source of randomness
        self.model = CharModel(recipe.model_config(corpus.vocabulary))
        self.model.initialise(self.generator)
        self.model.to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        text, self._held_back = _split(corpus, recipe)
        self._streams = Streams(text, recipe)
        self._noise = Dropout(recipe, self.generator)
        self._optimiser = _make_optimiser(self.model, recipe)
        self._position = self._streams.start_epoch(0, self.generator)
        self._state = self.model.initial_state(recipe.streams)
        self.num_steps = 0
        self.seconds = 0.0  # spent in `step`, over all runs
        self.cpu_seconds = 0.0  # the same in processor time: what the run costs on an idle machine

    @property
    def epoch(self) -> float:
        """How many times the text was read."""
        return self._position.epoch + self._position.consumed / self._streams.stream_length

    @property
    def progress(self) -> float:
        """The part of the run that is done, 0 to 1."""
        if self.recipe.minutes:
            return min(1.0, self.seconds / (60 * self.recipe.minutes))
        return min(1.0, self.epoch / self.recipe.epochs)

    @property
    def is_at_epoch(self) -> bool:
        """Whether an epoch has just ended."""
        return self._position.consumed == 0

    def step(self) -> float:
        """Train on one sequence; return the loss before the update, in nats per character.

        Raises:
            ExportError: The loss is not finite.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        chars, targets = self._streams.take(self._position, self.generator)  # [T, B]
        logits, *after = self.model.read(
            chars.to(self._device), *self._some_reset(), noise=self._noise, precision=self.recipe.precision
        )
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten().to(self._device))
        self._check(loss)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_gradient_norm)
        self._set_learning_rate()
        self._optimiser.step()
        self._update_average()
        self._state = tuple(part.detach() for part in after)  # truncated: no gradient beyond here
        self.num_steps += 1
        if self._streams.is_epoch_over(self._position):
            self._start_epoch()
        self.seconds += time.monotonic() - started
        self.cpu_seconds += time.process_time() - cpu_started
        return loss.item()

    def averaged(self) -> CharModel:
        """A copy of the averaged network, its logits scaled to fit the text that was held back."""
        model = copy.deepcopy(self.average)
        if len(self._held_back):
            scale = fit_logit_scale(model, self._held_back)
            model.output.weight.mul_(scale)
            model.output.bias.mul_(scale)
        return model

    def capture(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on: tensors, and what JSON can hold."""
        tensors = {RANDOM: self.generator.get_state()}
        tensors |= {f"state.{i}": part for i, part in enumerate(self._state)}
        tensors |= {f"average.{name}": part for name, part in self.average.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter.detach()
            for key, part in self._optimiser.state[parameter].items():
                tensors[f"optimiser.{key}.{name}"] = part
        position = {
            "num_steps": self.num_steps,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "streams": asdict(self._position),
        }
        return tensors, position

    def restore(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Restore what `capture` returned."""
        self.generator.set_state(tensors[RANDOM])
        self._state = tuple(tensors[f"state.{i}"].to(self._device) for i in range(len(self._state)))
        self.average.load_state_dict(_under("average.", tensors))
        self.model.load_state_dict(_under("model.", tensors))
        for name, parameter in self.model.named_parameters():
            self._optimiser.state[parameter] = {
                key: tensors[f"optimiser.{key}.{name}"].to(self._device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimiser.{key}.{name}" in tensors  # absent before the first step
            }
        self.num_steps = position["num_steps"]
        self.seconds = position["seconds"]
        self.cpu_seconds = position["cpu_seconds"]
        self._position = Position(**position["streams"])

    def _some_reset(self) -> tuple[Tensor, ...]:
        """The carried state, reset in a few streams, because sessions start from zeros too."""
        uniform = torch.rand(self.recipe.streams, 1, generator=self.generator)
        is_kept = (uniform >= self.recipe.reset_rate).to(self._device)
        return tuple(part * is_kept for part in self._state)

    def _check(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise ExportError(
                f"The loss is {loss.item()} at step {self.num_steps}: the run has diverged. "
                f"Train into another folder, with a --learning-rate below {self.recipe.learning_rate}."
            )

    def _set_learning_rate(self) -> None:
        recipe = self.recipe
        decay = 1 - (1 - recipe.final_learning_rate) * self.progress
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * decay

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average moves faster at first, so that the random initial weights do not remain in it.
        kept = min(self.recipe.averaging, (1 + self.num_steps) / (10 + self.num_steps))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - kept)

    def _start_epoch(self) -> None:
        self._position = self._streams.start_epoch(self._position.epoch + 1, self.generator)
        self._state = self.model.initial_state(self.recipe.streams)


def _split(corpus: Corpus, recipe: Recipe) -> tuple[Ids, Ids]:
    """The text to train on, and its beginning, which is held back for the logit scale.

    Not its end: that is the part most like the validation text (the same play), and without it the loss was 0.06 nats
    higher.
    """
    ids = corpus.training
    num_symbols = recipe.model_config(corpus.vocabulary).vocabulary_size
    size = min(int(len(ids) * recipe.held_back), MAX_HELD_BACK, MAX_HELD_BACK_LOGITS // num_symbols)
    cut = size if size >= MIN_HELD_BACK else 0
    return ids[cut:], ids[:cut]


def _make_optimiser(model: CharModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with decay on the matrices only: biases need none."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    biases = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": biases}]
    return torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=0.0,
        fused=True,
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
