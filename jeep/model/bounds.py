"""How long a sequence and how large a vocabulary a model takes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jeep.common.errors import UserError
from jeep.model.architectures import config_in


@dataclass(frozen=True)
class Bounds:
    """Positions (None where attention has no bound of its own) and embeddings of a model."""

    positions: int | None
    embeddings: int

    @classmethod
    def of(cls, config) -> "Bounds":
        """Those of a Hugging Face configuration."""
        return cls(getattr(config, "max_position_embeddings", None), config.vocab_size)

    @classmethod
    def in_folder(cls, folder: Path | str) -> "Bounds":
        """Those of a checkpoint folder. Raises UserError where there is none."""
        return cls.of(config_in(folder))

    def room(self, ids: Sequence[int]) -> int:
        """Tokens that a sequence may still have."""
        return sys.maxsize if self.positions is None else max(0, self.positions - len(ids))

    def require(self, ids: Sequence[int], behind: int = 0) -> None:
        """Raise UserError for a sequence (`behind` others) that is too long, or has a token without an embedding."""
        if self.positions is not None and behind + len(ids) > self.positions:
            raise UserError(f"a text of {behind + len(ids)} tokens: the model takes {self.positions}")
        if max(ids, default=0) >= self.embeddings:
            raise UserError(f"token {max(ids)} has no embedding: the model has {self.embeddings}")
