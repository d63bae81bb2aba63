"""The vocabulary of editors' settings: sites of target vectors, optimisation, regions. No torch: the DAG needs them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from jeep.common.places import Projection

Position = Literal["subject_last", "prediction"]
Place = Literal["output", "mlp", "attention"]
Dtype = Literal["float32", "float16", "bfloat16"]
Device = Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]
Preset = Literal["paper", "release"]
PrefixKind = Annotated[str, Field(pattern=r"^[1-9]\d*x[1-9]\d*$")]
"""So many texts of so many tokens, such as 5x10."""
Rival = Literal["original", "best"]
"""What a new answer is held against: the original one, or the best of all others."""
Metrics = Literal["counterfact", "zsre"]
"""How an edit is measured: two answers compared (Eqs. 16-18), or correct tokens counted (13-15)."""


UNEDITED, UNEDITED_LABEL = "none", "unedited"
"""The method that edits nothing, the model as it is, and what tables and figures call it."""


class Strict(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Site(Strict):
    """Where a δ is added to the forward pass: the output of a block, of its MLP or of its attention."""

    layer: NonNegativeInt
    place: Place
    position: Position
    clamp: PositiveFloat
    """γ of Eq. 12: ‖δ‖ ≤ γ‖h‖."""
    weight_decay: NonNegativeFloat
    """β of Eq. 11, on ‖δ‖/‖h‖²."""
    follow: bool = False
    """Read h with the final δ of the sites below in place, instead of on the unedited model."""


class Relax(Strict):
    """What PMET does while the new answer is the argmax at each of its tokens, under every prefix."""

    nll: PositiveFloat = 0.1
    """Factor of the NLL in the next step."""
    stop_kl: PositiveFloat = 0.01
    """Stop once α KL is at most this."""


class StopRight(Strict):
    """Stop once the new answer has been the argmax at each of its tokens in so many steps, not only in a row."""

    steps: PositiveInt
    prefixes: Literal["all", "sampled"] = "all"
    """all: behind every prefix and the bare prompt; sampled: behind the prefixes alone (ENCORE's released code)."""


class Optimization(Strict):
    """How the target vectors are optimised (Eq. 11)."""

    steps: PositiveInt
    """Forward passes at most; δ takes one step less."""
    learning_rate: PositiveFloat = 0.5
    kl_factor: NonNegativeFloat = 0.0625
    """α of Eq. 11."""
    stop_probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Stop once the new answer has this mean probability."""
    stop_loss: PositiveFloat | None = None
    """Stop once the total loss is below this."""
    relax: Relax | None = None
    """Ease the NLL once the answer is right (PMET)."""
    stop_right: StopRight | None = None
    """Later than the paper: stop once the answer has been right often enough (ENCORE)."""


class MetaTraining(Strict):
    """How a hyper-network is trained."""

    edits: PositiveInt
    """Facts edited together in a step."""
    epochs: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-6
    """What updates are multiplied by at first; learned for each weight."""
    meta_learning_rate: PositiveFloat = 1e-5
    """Of Adam, for all that is learned."""
    edit_weight: NonNegativeFloat = 1.0
    """Factor of the NLL of the new answers behind paraphrases."""
    locality_weight: NonNegativeFloat = 1.0
    """Factor of the KL of the unedited and the edited model's answers to unrelated questions."""
    clip: PositiveFloat = 1.0
    """Largest norm of a step's gradient."""


class Neighbours(Strict):
    """How a region's change spares the prompts of its relations about other subjects (`jeep.data.neighbours`)."""

    form: Literal["prior", "mean"] = "prior"
    """prior: their keys count among the old associations, C₀ = λ E[kkᵀ] + γ Σ (m/n) K_N K_Nᵀ over relations of m edits
    and n neighbours; mean: nothing at all changes for the mean of each relation's keys."""
    weight: PositiveFloat = 1.0
    """γ: of 1, each edit weighs one neighbour. Of the prior alone."""


class NullSpace(Strict):
    """Where a region's keys are projected: onto eigenvectors of E[kkᵀ] along which text hardly has any (AlphaEdit)."""

    threshold: PositiveFloat | None = None
    """τ: eigenvectors of smaller eigenvalues. In units of E[kkᵀ], so it means something else in each model."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead: this share of the eigenvectors, those of the smallest eigenvalues."""
    refresh: PositiveInt | None = None
    """In a sequence, take the eigenvectors anew after so many facts, of (Σ kkᵀ/N + λE[kkᵀ])/(λ + 1) with N facts'
    keys so far (BetaEdit)."""

    @model_validator(mode="after")
    def _one(self) -> "NullSpace":
        if (self.threshold is None) == (self.keep is None):
            raise ValueError("needs either threshold or keep")
        return self


class Region(Strict):
    """Consecutive layers whose output matrix W_O is edited."""

    layers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    edited: Projection = "mlp"
    """Which W_O is edited."""
    clamp: PositiveFloat
    """γ of Eq. 12: ‖δ‖ ≤ γ‖h‖."""
    prior: NonNegativeFloat
    """λ in C₀ = λ E[kkᵀ]; 0 only beside a `ridge`."""
    spread: Literal["even", "sqrt"]
    """How a residual is shared by the layers still to be written: 1/n or 1/√n."""
    weight_decay: NonNegativeFloat = 0.5
    """β of Eq. 11."""
    neighbours: Neighbours | None = None
    """Not in the paper: the change spares the same relations' prompts about other subjects."""
    ridge: NonNegativeFloat = 0.0
    """Later than the paper: ν in C₀ = λ E[kkᵀ] + ν I, which adds ν‖Δ‖² to what is least (ENCORE; AlphaEdit's μ)."""
    null_space: NullSpace | None = None
    """Later than the paper: the change acts on nothing but the part of a key in this space (AlphaEdit)."""
    history: bool = False
    """Later than the paper: in a sequence, keys of the batches before count among the old associations, each like one
    edit (MEMIT-seq)."""

    @model_validator(mode="after")
    def _ascending(self) -> "Region":
        if list(self.layers) != list(range(self.layers[0], self.layers[0] + len(self.layers))):
            raise ValueError(f"layers must be consecutive and ascending, not {list(self.layers)}")
        return self

    @model_validator(mode="after")
    def _definite(self) -> "Region":
        if not self.prior and not self.ridge:
            raise ValueError("prior: 0 needs a ridge")
        return self


class Placement(Strict):
    """How a region is written: which of its W_O, at which lookup position, and what is measured where."""

    region: Region
    edited: Projection
    position: Position
    measured: Place
    """Where the current value is measured, to be subtracted from the target vector."""
    site: int
    """Index of the region's target vector among the optimised sites."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Of the region."""
        return self.region.layers


class TargetSpec(Strict):
    """Everything that target vectors depend on, beside the model, the facts and the prefixes."""

    sites: tuple[Site, ...]
    optimization: Optimization


@dataclass(frozen=True)
class Sample:
    """The part of a corpus that covariances are estimated from."""

    corpus: Path
    """corpus as JSON lines"""
    articles: int | None = None
    """number of articles drawn (default: all, in random order)"""
    tokens: int | None = None
    """number of tokens to stop at (default: all of these articles')"""
    length: int | None = None
    """longest sequence (default: the model's positions)"""
    seed: int = 0
    """seed of the draw"""


class Amounts(Strict):
    """How much is asked to see what else an edit changes: each half-width shrinks with the root of it."""

    facts: PositiveInt = 200
    """The first edited ones are answered freely."""
    texts: PositiveInt = 100
    """Of the edited facts that have topics; each is several texts of 100 tokens."""
    tokens: PositiveInt = 50_000
    """Of held-out text."""
    window: PositiveInt = 512
    """Tokens that are read together; the first of them is not scored."""
    questions: PositiveInt = 500
    """Of each task."""
    chains: PositiveInt = 300
    """Of those whose facts are edited."""


class HarnessTasks(Strict):
    """Tasks of lm-evaluation-harness, asked at the most edits (the extra `harness`)."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Names of its tasks or groups, such as arc_easy, hellaswag, mmlu; those whose metric is a mean over questions."""
    folder: Path | None = None
    """YAML files of further tasks, with their data: what lies elsewhere is not seen to change."""
    limit: PositiveInt | None = None
    """The first N questions of each task, and of each that a group holds; all where absent."""
    shots: NonNegativeInt = 0
    """Worked examples in front of each question."""
    batch: PositiveInt = 16
    """Requests in one forward pass."""


class Protocol(Strict):
    """How settings are searched on development facts: the same for every method and model."""

    facts: PositiveInt
    """Edited at once in each trial; round two edits as many others."""
    draws: PositiveInt
    """Draws of the dear settings: those that target vectors depend on; all of a method without target vectors."""
    variants: PositiveInt
    """For each of them, draws of the other settings."""
    finalists: NonNegativeInt
    """The best settings of round one, tried again in round two; no second round where 0."""

    @property
    def rounds(self) -> int:
        """How many sets of other facts a search edits."""
        return 2 if self.finalists else 1


def measured_batches(batches: int, every: int) -> list[int]:
    """The batches of a sequence, counted from 1, that are measured: the first, every so many, and the last."""
    return sorted({1, *range(every, batches + 1, every), batches})


def prefix_kind(text: str) -> tuple[int, int]:
    """The number of texts and of their tokens that a kind of prefixes names. Raises ValueError for what is none."""
    texts, _, tokens = text.partition("x")
    if not (texts.isdigit() and tokens.isdigit() and int(texts) and int(tokens)):
        raise ValueError(f"{text!r}: expected the number of texts and of tokens, such as 5x10")
    return int(texts), int(tokens)
