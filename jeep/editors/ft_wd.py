"""FT-WD: fine-tuning of one block with weight decay (Gangadhar and Stratos 2024).

Adam on all parameters of a block, cross-entropy on the new answers' tokens behind the bare prompts. The weight decay
follows their power law in the number of edits m; in the authors' released code it is 0 in effect.
"""

import math
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from jeep.editors.base import Editor


class FtWd(Editor):
    """One block, trained on all edits in mini-batches."""

    layer: int
    learning_rate: PositiveFloat = 5e-5
    epochs: PositiveInt = 25
    """At most."""
    batch: PositiveInt = 32
    """Facts in a step."""
    stop_loss: PositiveFloat = 0.01
    """Stop when an epoch's mean loss is below this; a batch below it takes no step."""
    weight_decay: Literal["power_law"] | NonNegativeFloat = "power_law"
    """exp(0.15589562) m^-0.87028798 for m edits, or a number."""

    def decay(self, edits: int) -> float:
        """The weight decay for a number of edits."""
        if self.weight_decay != "power_law":
            return self.weight_decay
        return 0.0 if self.preset == "release" else math.exp(0.15589562) * edits**-0.87028798

    def edit(self, model, task):
        """Train on all facts; the states below the block are computed once."""
        import torch
        from tqdm import tqdm

        from jeep.finetune import AnswerBatches, BlockTrainer

        batches = AnswerBatches(model, task.facts, self.layer, self.batch, task.token_budget)
        with BlockTrainer(model, self.layer, self.learning_rate, self.decay(len(task.facts))) as trainer:
            for _ in tqdm(range(self.epochs), desc="ft-wd", unit="epoch"):
                losses = []
                for number in range(len(batches)):
                    loss = batches.loss(number)
                    losses.append(float(loss.detach()))
                    if losses[-1] >= self.stop_loss:
                        trainer.step(loss)
                if torch.tensor(losses).mean() < self.stop_loss:
                    break
            return trainer.changes()


EDITOR = FtWd
