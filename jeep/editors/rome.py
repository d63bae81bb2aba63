"""ROME (Meng et al. 2022a): rank-one updates of one layer, one fact after the other.

Each fact's target vector is optimised on the model that the facts before left. Δ = (v − W k₀) uᵀ / (k₀·u) with u the
direction of C⁻¹k, so that the edited W maps the bare prompt's key k₀ to v exactly; k is the mean key over all prefixes
and C the covariance of the unedited model.
"""

from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from jeep.common.settings import Optimization, PrefixKind, Site, TargetSpec
from jeep.editors.base import Editor


class Rome(Editor):
    """One layer's W_O, at the subject's last token."""

    wide: ClassVar[bool] = True
    one_pass: ClassVar[bool] = True
    prefixes: tuple[PrefixKind, ...] = ("10x5", "10x10")
    """ROME's own (Appendix D.3): ten texts of five tokens, ten of ten."""
    optimization: Optimization
    layer: NonNegativeInt
    clamp: PositiveFloat = 4.0
    """γ of Eq. 12, against the MLP's output."""
    weight_decay: NonNegativeFloat = 0.5
    """β of Eq. 11."""

    @property
    def covariances(self) -> tuple[tuple[int, Literal["mlp"]], ...]:
        """The edited W_O's."""
        return ((self.layer, "mlp"),)

    @property
    def spec(self) -> TargetSpec:
        """v is the MLP's output at the subject's last token. Not a `target_spec`: it depends on the edits before."""
        site = Site(
            layer=self.layer,
            place="mlp",
            position="subject_last",
            clamp=self.clamp,
            weight_decay=self.weight_decay,
        )
        return TargetSpec(sites=(site,), optimization=self.optimization)

    def deltas(self, model, task):
        """Write the facts in their order; a run that was killed goes on from its last checkpoint."""
        (deltas,) = self.deltas_in_turn(model, [task])
        return deltas

    def deltas_in_turn(self, model, tasks):
        """One pass over the facts of the last task, for the others have the first of these."""
        import torch
        from tqdm import tqdm

        from jeep.common.provenance import code_digest
        from jeep.model.progress import Progress, fingerprint
        from jeep.writing.solve import factor_of

        task, counts = tasks[-1], [len(each.facts) for each in tasks]
        name = model.parameter_name(self.layer)
        weight = model.weight(name)
        factor = factor_of(task.covariance[self.layer, "mlp"].to(task.solver or model.device, torch.float64))
        original = weight.to(model.device, model.precision, copy=True)
        written = original.clone()  # small changes add up here, not in the model's own precision
        progress = Progress(task.checkpoint, fingerprint(model, self, task.facts, task.prefixes, code_digest(__name__)))
        done, saved = progress.load()
        after = {int(count): weight for count, weight in saved.items() if count.isdigit()}
        if any(count < done and count not in after for count in counts):
            done, saved = 0, {}  # of a run that was asked for other numbers
        unwritten = saved["unwritten"].tolist() if saved else []  # by number
        if saved:
            written.copy_(saved["weight"])

        def tensors():
            weights = {str(count): weight for count, weight in after.items()}
            return {"weight": written.cpu(), "unwritten": torch.tensor(unwritten, dtype=torch.long), **weights}

        for count, asked in zip(counts, tasks, strict=True):
            with model.scratch([name]):
                weight.copy_(written)
                rest = task.facts[done:count]
                for fact in tqdm(rest, desc="rome", unit="edit", initial=done, total=count):
                    change = self._change(model, fact, task, factor)
                    if change is None:
                        unwritten.append(done)
                    else:
                        weight.copy_(written.add_(change))
                    done += 1
                    progress.save(done, tensors)
            after.setdefault(count, written.cpu().clone())
            asked.unwritten.extend(task.facts[number].case_id for number in unwritten if number < count)
            with progress.resting(done, tensors):
                yield {name: (after[count] - original.cpu()).float()}
        progress.end()

    def _change(self, model, fact, task, factor):
        """One fact's rank-one Δ, as the parameter is stored; None where its vector did not stay finite."""
        import torch

        from jeep.vectors.targets import optimize_facts
        from jeep.writing.walk import LayerWalk, prompts_of

        (target,) = optimize_facts(model, [fact], task.prefixes, self.spec, task.token_budget)
        if not target.finite:
            return None
        with torch.no_grad():
            walk = LayerWalk(model, prompts_of(model, [fact], task.prefixes, "subject_last"), task.token_budget)
            walk.advance(self.layer)
            keys = walk.keys("subject_last").to(factor)
            u = torch.cholesky_solve(keys.mean(1, keepdim=True), factor)
            u = u[:, 0] / u.norm()
            residual = (target.values - target.states)[0].to(factor)  # v − W k₀, a bias included
            change = torch.outer(residual / (keys[:, 0] @ u), u)
        return model.as_stored(self.layer, change).to(model.device, model.precision)


EDITOR = Rome
