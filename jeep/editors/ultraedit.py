"""UltraEdit (Gu et al., TMLR 2026): the least squares of MALMEN on normalised keys and gradients, without a network.

At the tokens where an answer is predicted, h is the input of an edited W_O and g the gradient of the answer's mean NLL
by its output. Every coordinate of both is normalised by its running mean and standard deviation over all tokens seen in
a sequence of edits, the batch's own among them: ĥ and ĝ. Each token asks for v = −η ‖ĥ‖² ĝ, and, with a row of H and V
for each token of the batch, Δ = Vᵀ H (Hᵀ H + I)⁻¹.
"""

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat

from jeep.common.errors import UserError
from jeep.editors.base import Editor


class UltraEdit(Editor):
    """W_O of some layers, whose outputs at the answers' tokens move against the normalised gradient.

    `paper` has running statistics for each weight; `release` shares them among all weights of one shape.
    """

    wide: ClassVar[bool] = True
    normal_equations: ClassVar[bool] = True
    """Whether an edit holds the sums of a normal equation for each weight."""
    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    """Whose MLP's W_O is edited."""
    rate: PositiveFloat = 1e-6
    """η. ‖ĥ‖² is about d_in, and the outputs that V moves differ in size: small models need a larger one."""

    @property
    def written(self):
        """All of them."""
        return self.layers

    def deltas(self, model, task):
        """Two passes over the answers' tokens: for the statistics, with which the second makes each token's v.

        While there are no more tokens than inputs of a W_O they are kept between the passes, and the equations are
        solved by tokens; else the model runs twice, and only sums are kept (`PrimalRidge`).

        Raises UserError where a single token is all that was ever seen: it has no standard deviation.
        """
        import torch

        from jeep.learned.answers import Answers
        from jeep.learned.ridge import DualRidge, PrimalRidge
        from jeep.learned.signals import signals_by_batch

        answers = Answers(model, [fact.asked for fact in task.facts], min(self.layers), task.token_budget)

        def batches():
            return signals_by_batch(model, answers, self.layers, "answer")

        few = sum(map(len, answers.answers)) <= min(map(model.inputs, self.layers))
        kept = list(batches()) if few else None
        statistics = self._updated(model, task, kept or batches())
        prior = torch.ones_like(statistics[0].count)
        shapes = [self._shape(model, layer) for layer in self.layers]
        ridges = [DualRidge(prior) if kept else PrimalRidge(d_in, d_out, prior) for d_out, d_in in shapes]
        for batch in kept or batches():
            for ridge, seen, signals in zip(ridges, statistics, batch, strict=True):
                for keys, gradients in signals.chunks(signals.keys):
                    ridge.add(keys, self._shifts(seen, keys, gradients))
        return {
            model.parameter_name(layer): model.as_stored(layer, ridge.change()).float().cpu().contiguous()
            for layer, ridge in zip(self.layers, ridges, strict=True)
        }

    def remember(self, model, task):
        """The running statistics after the batch: what `edit` noted, for the model has changed since."""
        return dict(task.notes)

    def _shifts(self, statistics, keys, gradients):
        """v of each token, as rows: −η ‖ĥ‖² ĝ."""
        import torch

        rows = statistics(torch.cat([keys, gradients], 1).to(statistics.mean))
        normal_keys, normal_gradients = rows.split((keys.shape[1], gradients.shape[1]), 1)
        return -self.rate * normal_keys.square().sum(1, keepdim=True) * normal_gradients

    def _shape(self, model, layer):
        """(d_out, d_in) of a W_O."""
        return tuple(model.as_stored(layer, model.projection(layer).weight).shape)

    def _groups(self, model):
        """Of each layer's weight, the name of the statistics that it is normalised by."""
        if self.preset == "paper":
            return [model.parameter_name(layer) for layer in self.layers]
        return ["x".join(map(str, self._shape(model, layer))) for layer in self.layers]

    def _updated(self, model, task, batches):
        """Of each layer's weight, the running statistics (float64) with a batch's tokens; noted for `remember`."""
        import torch

        groups = self._groups(model)
        found = self._remembered(model, task)
        for batch in batches:
            for group, signals in zip(groups, batch, strict=True):
                for chunk in signals.chunks(found[group].mean):
                    found[group].update(torch.cat(chunk, 1))
        if found[groups[0]].count < 2:
            raise UserError("ultraedit: a single answer token has no standard deviation; edit more facts at once")
        for group, seen in found.items():
            task.notes.update({f"{group}.{name}": value.cpu().clone() for name, value in seen.state_dict().items()})
        return [found[group] for group in groups]

    def _remembered(self, model, task):
        """The running statistics as the batches before have left them, by name."""
        from jeep.learned.hypernetworks import Normalizer

        found = {}
        for layer, group in zip(self.layers, self._groups(model), strict=True):
            found[group] = Normalizer(sum(self._shape(model, layer))).double().to(task.solver or model.device)
            if task.memory:
                parts = {name: task.memory[f"{group}.{name}"] for name in found[group].state_dict()}
                found[group].load_state_dict(parts)
        return found


EDITOR = UltraEdit
