"""Fine-tune a transformer on all heads at once, on a CPU, a GPU or several.

    batches -> body (autocast) -> heads (fp32) -> loss -> AdamW;  now and then: validate, keep the best, save the state

A run that was killed goes on where its last state was saved, and ends at the very same weights. `accelerate launch`
starts a process per GPU; each takes its share of the batches.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classifier.batches import pad, shuffled_batches, sorted_batches
from classifier.examples import Examples
from classifier.files import whole
from classifier.loss import HeadLogits, multi_task_loss
from classifier.recipe import FinetuneRecipe
from classifier.transformer_encoder import TransformerEncoder

Progress = Callable[[str], None]

SAVES: Final = 20  # of the state, over a run
REPORTS: Final = 100
BEST: Final = "best.safetensors"
STATE_OF: Final = "run.json"  # written last: a directory without it is half a state
MOST_GRADIENT: Final = 1.0


class Student(nn.Module):
    """The encoder, and a head that says whether each model's answer was good: it is dropped when training ends."""

    def __init__(self, encoder: TransformerEncoder, models: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.answers = nn.Linear(encoder.shape.width, models)
        # The word vectors stay as they were published: words that training lacks keep their places among the others.
        encoder.body.embeddings.word_embeddings.weight.requires_grad_(False)
        for fitted in (*self.heads(), encoder.sparse):
            for parameter in fitted.parameters():
                nn.init.zeros_(parameter)

    def heads(self) -> tuple[nn.Linear, ...]:
        """In the order of HeadLogits."""
        return *self.encoder.heads(), self.answers

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The logits of all heads, as in HeadLogits."""
        pooled = self.encoder.body(ids, mask)
        with torch.autocast(pooled.device.type, enabled=False):
            return tuple(head(pooled.float()) for head in self.heads())


@dataclass(slots=True)
class Position:
    """How far a run has come; saved with its state."""

    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    without_better: int = 0

    def state_dict(self) -> dict[str, Any]:
        """What accelerate saves."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What accelerate restores."""
        for name, value in state.items():
            setattr(self, name, value)


def finetune(
    encoder: TransformerEncoder,
    examples: Examples,
    validation: Examples,
    recipe: FinetuneRecipe,
    *,
    seed: int,
    state: Path,
    progress: Progress,
) -> float | None:
    """Train `encoder` in place, on the CPU when it returns, with the weights of the best validation.

    `state` is a directory of this run's own. Returns the seconds of training, those before a kill included; None in
    the processes that only helped another one.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    set_seed(seed)
    run = Run(encoder, examples, validation, recipe, seed, state, progress)
    run.resume()
    run.train()
    return run.finish()


class Run:
    """One fine-tuning run; see `finetune`."""

    def __init__(
        self,
        encoder: TransformerEncoder,
        examples: Examples,
        validation: Examples,
        recipe: FinetuneRecipe,
        seed: int,
        state: Path,
        progress: Progress,
    ) -> None:
        self.accelerator = Accelerator(mixed_precision=precision())
        self.encoder = encoder
        self.student = Student(encoder, examples.answers.shape[1])
        self.model, self.optimizer = self.accelerator.prepare(self.student, optimizer(self.student, recipe))
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.position = Position()
        self.accelerator.register_for_checkpointing(self.position)
        self.examples, self.validation = examples, validation
        self.recipe, self.seed, self.state = recipe, seed, state
        self.progress = progress if self.accelerator.is_main_process else _silence
        lengths = [len(row) for row in examples.ids]
        self.batches = [
            self._own_share(shuffled_batches(lengths, recipe.batch, (seed, epoch))) for epoch in range(recipe.epochs)
        ]
        self.steps = sum(len(epoch) for epoch in self.batches)
        self.identity = _identity(examples, recipe, seed, self.accelerator.num_processes)

    def _own_share(self, batches: list[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
        """The batches of this process; all have the same number, so that none waits for a step that does not come."""
        processes = self.accelerator.num_processes
        return batches[self.accelerator.process_index :: processes][: len(batches) // processes]

    def train(self) -> None:
        """Every step that is left, or until validation says that more does not help."""
        where = self.position
        validate_every, save_every, report_every = (
            max(1, self.steps // parts) for parts in (self.recipe.epochs * self.recipe.validations, SAVES, REPORTS)
        )
        device = self.accelerator.device.type
        self.progress(
            f"fine-tuning: {self.steps - where.step:,} steps of {self.recipe.batch} prompts to go, "
            f"{self.accelerator.num_processes} process(es), {device}, {self.accelerator.mixed_precision}"
        )
        self.model.train()
        started, before = time.monotonic(), where.seconds
        for rows in [batch for epoch in self.batches for batch in epoch][where.step :]:
            if where.without_better >= self.recipe.patience:
                break
            loss = self._step(rows)
            where.step += 1
            where.seconds = before + time.monotonic() - started
            if where.step % report_every == 0:
                left = where.seconds / where.step * (self.steps - where.step)
                self.progress(
                    f"step {where.step:,} of {self.steps:,}: loss {float(loss):.4f}; {left / 60:.0f} min left"
                )
            if where.step % validate_every == 0 or where.step == self.steps:
                self._validate()
            if where.step % save_every == 0:
                self._save()
        self._save()

    def _step(self, rows: NDArray[np.intp]) -> Tensor:
        share = learning_rate_share(self.position.step, self.steps, self.recipe.warmup)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        loss = self._loss(self.examples.rows(rows))
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.student.parameters(), MOST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def _loss(self, examples: Examples) -> Tensor:
        """Per prompt."""
        ids, mask = (tensor.to(self.accelerator.device) for tensor in pad(examples.ids))
        return multi_task_loss(HeadLogits(*self.model(ids, mask)), examples, self.recipe) / len(examples)

    @torch.no_grad()
    def _validate(self) -> None:
        if len(self.validation) == 0:
            return
        self.model.eval()
        total = 0.0
        for rows in sorted_batches([len(row) for row in self.validation.ids], 2 * self.recipe.batch):
            total += float(self._loss(self.validation.rows(rows))) * len(rows)
        self.model.train()
        loss, where = total / len(self.validation), self.position
        better = loss < where.best_loss
        where.without_better = 0 if better else where.without_better + 1
        where.best_loss = min(loss, where.best_loss)
        self.progress(
            f"step {where.step:,}: validation loss {loss:.4f}, {'the best so far' if better else 'no better'}"
        )
        if better and self.accelerator.is_main_process:
            self.state.mkdir(parents=True, exist_ok=True)
            with whole(self.state / BEST) as unfinished:
                save_file(_contiguous(self.encoder), unfinished)

    def _save(self) -> None:
        """The whole state under its step's name, then drop the ones before it."""
        directory = self.state / f"step-{self.position.step:08d}"
        if (directory / STATE_OF).is_file():
            return
        self.accelerator.save_state(str(directory))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (directory / STATE_OF).write_text(json.dumps({"run": self.identity}) + "\n")
            for other in self.state.glob("step-*"):
                if other != directory:
                    shutil.rmtree(other)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the last whole state of this very run, if there is one; forget those of other runs."""
        for directory in sorted(self.state.glob("step-*"), reverse=True):
            if (directory / STATE_OF).is_file():
                if json.loads((directory / STATE_OF).read_text())["run"] != self.identity:
                    break
                self.accelerator.load_state(str(directory))
                self.progress(f"resumed at step {self.position.step:,}")
                return
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process and self.state.is_dir():
            self.progress(f"{self.state} is of another run: starting anew")
            shutil.rmtree(self.state)
        self.accelerator.wait_for_everyone()

    def finish(self) -> float | None:
        """Put the best weights in place; the seconds of training in the main process, None in the others."""
        self.accelerator.wait_for_everyone()
        self.encoder.to("cpu")
        if (self.state / BEST).is_file():
            self.encoder.load_state_dict(load_file(self.state / BEST))
        self.encoder.eval()
        main = bool(self.accelerator.is_main_process)
        self.accelerator.end_training()
        return self.position.seconds if main else None


def optimizer(student: Student, recipe: FinetuneRecipe) -> torch.optim.Optimizer:
    """AdamW: the heads learn faster than the body, and only matrices decay."""
    body = [parameter for parameter in student.encoder.body.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [one for one in body if one.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [one for one in body if one.ndim < 2], "weight_decay": 0.0},
            {
                "params": [one for head in student.heads() for one in head.parameters()],
                "weight_decay": recipe.weight_decay,
                "lr": recipe.head_learning_rate,
            },
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
    )


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """Of the peak, 0..1: up over the first `warmup` of the steps, then down to 0."""
    rising = (step + 1) / max(1.0, warmup * steps)
    return min(1.0, rising) * (1 - step / steps)


def precision() -> str:
    """What the hardware multiplies fast, in accelerate's words."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "no"


def _identity(examples: Examples, recipe: FinetuneRecipe, seed: int, processes: int) -> str:
    """Two runs of one identity are one run."""
    total = hashlib.sha256(repr((recipe, seed, processes)).encode())
    arrays: list[NDArray[Any]] = [*examples.ids]
    for labels in (examples.outcome, examples.task, examples.dimensions):
        arrays += [labels.targets, labels.weight]
    for array in arrays:
        total.update(array.tobytes())
    return total.hexdigest()


def _contiguous(encoder: TransformerEncoder) -> dict[str, Tensor]:
    return {name: weights.contiguous().cpu() for name, weights in encoder.state_dict().items()}


def _silence(_: str) -> None:
    pass
