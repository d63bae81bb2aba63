"""FT-WD: fine-tuning of one block with weight decay (Gangadhar and Stratos 2024).

Adam on all parameters of a block, cross-entropy on the new answers' tokens behind the bare prompts. The weight decay
follows their power law in the number of edits m; in the authors' released code it is 0 in effect.
"""

import math
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

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

    @property
    def written(self):
        """The block."""
        return (self.layer,)

    def decay(self, edits: int) -> float:
        """The weight decay for a number of edits."""
        if self.weight_decay != "power_law":
            return self.weight_decay
        return 0.0 if self.preset == "release" else math.exp(0.15589562) * edits**-0.87028798

    def _edit(self, model, task):
        """Train on all facts; the states below the block are computed once. A killed run goes on from an epoch."""
        from tqdm import tqdm

        from jeep.learned.answers import Answers
        from jeep.learned.finetune import BlockTrainer
        from jeep.model.progress import Progress, fingerprint

        answers = Answers(model, [fact.asked for fact in task.facts], self.layer, task.token_budget)
        answers.prepare(range(len(answers)))
        batches = [range(len(answers))[start : start + self.batch] for start in range(0, len(answers), self.batch)]
        progress = Progress(task.checkpoint, fingerprint(model, self, task.facts))
        done, saved = progress.load()
        with BlockTrainer(model, self.layer, self.learning_rate, self.decay(len(task.facts))) as trainer:
            if saved:
                trainer.restore(saved)
            for epoch in tqdm(range(done, self.epochs), desc="ft-wd", unit="epoch", initial=done, total=self.epochs):
                if self._epoch(trainer, answers, batches) < self.stop_loss:
                    break
                progress.save(epoch + 1, trainer.tensors)
            changes = trainer.changes()
        progress.end()
        return changes

    def _epoch(self, trainer, answers, batches) -> float:
        """Train on every mini-batch that is not yet below the threshold; their mean loss."""
        losses = []
        for batch in batches:
            loss = answers.nll(batch) / len(batch)
            losses.append(float(loss.detach()))
            if losses[-1] >= self.stop_loss:
                trainer.step(loss)
        return sum(losses) / len(losses)


EDITOR = FtWd
