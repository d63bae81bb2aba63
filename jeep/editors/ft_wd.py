"""FT-WD: fine-tuning of one block with weight decay (Gangadhar and Stratos 2024).

Adam on all parameters of a block, cross-entropy on the new answers' tokens behind the bare prompts. The weight decay
follows their power law in the number of edits m; in the authors' released code it is 0 in effect.

LocFT-BF (Yang et al., ICLR 2026) is the same with other settings: one W_O in place of a block, an end-of-text token
behind every answer, facts shuffled in each epoch, no weight decay.
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from jeep.common.errors import NotFinite
from jeep.editors.base import Editor


class FtWd(Editor):
    """One block, trained on all edits in mini-batches."""

    wide: ClassVar[bool] = True
    layer: NonNegativeInt
    learning_rate: PositiveFloat = 5e-5
    epochs: PositiveInt = 25
    """At most."""
    batch: PositiveInt = 32
    """Facts in a step."""
    stop_loss: PositiveFloat = 0.01
    """Stop when an epoch's mean loss is below this; a batch below it takes no step."""
    weight_decay: Literal["power_law"] | NonNegativeFloat = "power_law"
    """exp(0.15589562) m^-0.87028798 for m edits, or a number."""
    parameters: Literal["block", "w_o"] = "block"
    """What is trained: all parameters of the block, or its MLP's W_O alone."""
    end_token: bool = False
    """The end-of-text token stands behind every answer and counts as one of its tokens: generation ends there."""
    shuffle: bool = False
    """Mini-batches of a new order of the facts in every epoch."""
    seed: NonNegativeInt = 0
    """Of these orders."""

    @property
    def written(self):
        """The block."""
        return (self.layer,)

    def decay(self, edits: int) -> float:
        """The weight decay for a number of edits."""
        if self.weight_decay != "power_law":
            return self.weight_decay
        return 0.0 if self.preset == "release" else math.exp(0.15589562) * edits**-0.87028798

    def batches(self, facts: int) -> Iterator[list[Sequence[int]]]:
        """The mini-batches of every epoch, as numbers of facts."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            order = torch.randperm(facts, generator=generator).tolist() if self.shuffle else range(facts)
            yield [order[start : start + self.batch] for start in range(0, facts, self.batch)]

    def deltas(self, model, task):
        """Train on all facts; the states below the block are computed once. A killed run goes on from an epoch.

        Raises UserError where an end-of-text token is asked for and the tokenizer has none.
        """
        from tqdm import tqdm

        from jeep.common.provenance import code_digest
        from jeep.learned.answers import Answers
        from jeep.learned.finetune import BlockTrainer
        from jeep.model.progress import Progress, fingerprint

        asked = [fact.asked for fact in task.facts]
        answers = Answers(model, asked, self.layer, task.token_budget, end_token=self.end_token)
        answers.prepare(range(len(answers)))
        epochs = list(self.batches(len(answers)))
        progress = Progress(task.checkpoint, fingerprint(model, self, task.facts, code_digest(__name__)))
        done, saved = progress.load()
        decay = self.decay(len(task.facts))
        with BlockTrainer(model, self.layer, self.learning_rate, decay, self.parameters) as trainer:
            if saved:
                trainer.restore(saved)
            bar = tqdm(epochs[done:], desc="ft-wd", unit="epoch", initial=done, total=self.epochs)
            for epoch, batches in enumerate(bar, start=done + 1):
                if self._epoch(trainer, answers, batches) < self.stop_loss:
                    break
                progress.save(epoch, trainer.tensors)
            changes = trainer.changes()
        progress.end()
        return changes

    def _epoch(self, trainer, answers, batches) -> float:
        """Train on every mini-batch that is not yet below the threshold; their mean loss. Raises NotFinite."""
        losses = []
        for batch in batches:
            loss = answers.nll(batch) / len(batch)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise NotFinite("ft_wd: the loss is not finite: a smaller learning rate, or float32, may help")
            if losses[-1] >= self.stop_loss:
                trainer.step(loss)
        return sum(losses) / len(losses)


EDITOR = FtWd
