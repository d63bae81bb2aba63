"""Types of the stages' parameters, with what `--help` says of them and how a command line writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from jeep.common.places import Where, place_of
from jeep.common.settings import Dtype, Metrics, Sample, prefix_kind
from jeep.common.storage import read_json

if TYPE_CHECKING:
    from jeep.model.editable import EditableModel

T = TypeVar("T")


def _written_as(read: Callable[[str], Any], *, repeated: bool = False) -> Parameter:
    """A parameter whose value, or each of whose values, is one word that `read` understands."""

    def convert(_, tokens):
        values = [read(token.value) for token in tokens]
        return values if repeated else values[0]

    return Parameter(
        converter=convert,
        n_tokens=1,
        accepts_keys=False,
        json_list=False,
        json_dict=False,
        consume_multiple=repeated,
        show_default=False,
    )


def json_or_file(text: str) -> Any:
    """A JSON object, or what a file of one holds."""
    return json.loads(text) if text.lstrip().startswith("{") else read_json(Path(text).expanduser())


def shard(text: str) -> tuple[int, int]:
    """The shard and the number of shards that "I/N" names."""
    number, _, shards = text.partition("/")
    if not (number.isdigit() and shards.isdigit() and int(number) < int(shards)):
        raise ValueError(f"{text!r}: expected I/N with I from 0 to N-1")
    return int(number), int(shards)


@Parameter(name="*")
@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder and how its model is run."""

    model: Path
    """checkpoint folder"""
    dtype: Dtype = "float32"
    """precision"""
    device: str = "auto"
    """auto, cpu, cuda, ..., or balanced: spread over all accelerators, or balanced:2"""
    token_budget: int = 2048
    """most tokens in one forward pass"""

    def load(self, device: str | None = None, *, compiled: bool = False) -> EditableModel:
        """The model, on its device or another."""
        from jeep.model.loading import load_model

        return load_model(self.model, self.dtype, device or self.device, compiled=compiled)

    def by_precision(self, items: Sequence[T], precisions: Sequence[str]) -> Iterator[tuple[EditableModel, list[T]]]:
        """The model in each precision that some items (methods, runs) are asked in, one after the other, with these."""
        for dtype in dict.fromkeys(precisions):
            chosen = [item for item, own in zip(items, precisions, strict=True) if own == dtype]
            yield replace(self, dtype=dtype).load(), chosen


Many = Parameter(consume_multiple=True, json_list=False, show_default=False)
Files = Annotated[Sequence[Path], Many]
Words = Annotated[Sequence[str], Many]
Counts = Annotated[Sequence[int], Many]
Json = Annotated[dict[str, Any], _written_as(json.loads)]
JsonOrFile = Annotated[dict[str, Any], _written_as(json_or_file)]
JsonList = Annotated[list[Any], _written_as(json.loads)]
Shard = Annotated[
    tuple[int, int], _written_as(shard), Parameter(help="I/N: every Nth one, from the Ith on (default: all)")
]
SampleOptions = Annotated[Sample, Parameter(name="*")]
Places = Annotated[
    Sequence[Where],
    _written_as(place_of, repeated=True),
    Parameter(help="every W_O, by layer and place, such as 9.mlp 20.attention"),
]
PrefixKinds = Annotated[
    Sequence[tuple[int, int]], _written_as(prefix_kind, repeated=True), Parameter(help="TEXTSxTOKENS, such as 5x10")
]

WRITES = object()
"""Marks a file or folder that a stage writes."""
Written = Annotated[Path, WRITES]
Out = Annotated[Path, Parameter(help="where the result goes"), WRITES]
Csv = Annotated[
    Path, Parameter(help="the CSV file; .md, .html and, of the paper's tables, .tex are put beside it"), WRITES
]
Figure = Annotated[Path, Parameter(help="the PDF file; a PNG is put beside it"), WRITES]
Source = Annotated[Json, Parameter(help="the source, as JSON (the form of config/README.md)")]
Corpus = Annotated[Path, Parameter(help="corpus as JSON lines")]
Facts = Annotated[Path, Parameter(help="facts, as the stage `facts` wrote them")]
Prefixes = Annotated[Path, Parameter(help="prefixes, as the stage `prefixes` wrote them")]
Covariances = Annotated[Files, Parameter(help="covariances, as the stage `covariance` wrote them")]
Eigenvectors = Annotated[
    Files, Parameter(help="of the covariances in whose null space something is written (default: found here)")
]
Norms = Annotated[Path | None, Parameter(help="of target vectors, as the stage `target-norms` wrote them")]
Neighbours = Annotated[Path | None, Parameter(help="subjects of neighbours, as the stage `neighbours` wrote them")]
HyperNetworkFile = Annotated[Path | None, Parameter(help="the editor's trained hyper-network")]
Solver = Annotated[str | None, Parameter(help="device of the normal equations (default: the model's)")]
RunColumns = Annotated[Json | None, Parameter(help="columns of the results that name the run, as JSON")]
NeighbourFiles = Annotated[Files, Parameter(help="subjects of neighbours, as the stage `neighbours` wrote them")]
Measure = Annotated[Metrics, Parameter(help="how an edit is measured")]
Seed = Annotated[int, Parameter(help="seed of every draw")]
Limit = Annotated[int | None, Parameter(help="take the first N facts (default: all)")]
EditorName = Annotated[str, Parameter(help="name of the editor")]
Settings = Annotated[Json, Parameter(help="the editor's settings, as JSON")]
Records = Annotated[Files, Parameter(help="per-record results, as `evaluate` or `collect` wrote them")]
Edits = Annotated[int, Parameter(help="number of edits")]
Models = Annotated[Words, Parameter(help="models that are shown")]
Datasets = Annotated[Words, Parameter(help="data sets that are shown")]
Methods = Annotated[Words, Parameter(help="methods that are shown, in this order")]
Labels = Annotated[Json, Parameter(help="names of models, data sets and methods, as JSON")]
Names = Annotated[Json, Parameter(help="the paper's names of our models and data sets, as JSON")]
Reported = Annotated[Path, Parameter(help="the paper's numbers")]
Title = Annotated[str, Parameter(help="model, data and count, for the figure's title")]
Norm = Annotated[bool, Parameter(help="the final norm in front of the head", negative="--no-norm")]
Backend = Annotated[Literal["rank-bm25", "bm25s"], Parameter(help="what searches")]
