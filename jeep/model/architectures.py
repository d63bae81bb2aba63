"""Architectures as rows of one table: where things are in a model class."""

from dataclasses import dataclass

from jeep.common.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """Where things are in a model class: module paths from the model, or from one block."""

    blocks: str
    embedding: str
    norm: str
    head: str
    mlp_out: str
    """W_O of the MLP, inside a block."""
    attention_out: str
    """W_O of the attention, inside a block."""
    parallel: bool | str
    """MLP and attention read the same state; a string names the configuration's field that says so."""
    rotary: str | None = None
    """Module that makes sines and cosines for all blocks; without it, blocks take position ids."""
    positions: str | None = None
    """Learned position embeddings, added to the token embeddings."""
    precise_scores: bool = False
    """Attention's scores are computed in float32 whatever the precision of the model: in float16 they overflow."""


_LLAMA = Architecture(
    blocks="model.layers",
    embedding="model.embed_tokens",
    norm="model.norm",
    head="lm_head",
    mlp_out="mlp.down_proj",
    attention_out="self_attn.o_proj",
    parallel=False,
    rotary="model.rotary_emb",
)
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gptj": Architecture(
        blocks="transformer.h",
        embedding="transformer.wte",
        norm="transformer.ln_f",
        head="lm_head",
        mlp_out="mlp.fc_out",
        attention_out="attn.out_proj",
        parallel=True,
        rotary="transformer.rotary_emb",
        precise_scores=True,
    ),
    "gpt2": Architecture(
        blocks="transformer.h",
        embedding="transformer.wte",
        norm="transformer.ln_f",
        head="lm_head",
        mlp_out="mlp.c_proj",
        attention_out="attn.c_proj",
        parallel=False,
        positions="transformer.wpe",
    ),
    "gpt_neox": Architecture(
        blocks="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        norm="gpt_neox.final_layer_norm",
        head="lm_head",
        mlp_out="mlp.dense_4h_to_h",
        attention_out="attention.dense",
        parallel="use_parallel_residual",
        rotary="gpt_neox.rotary_emb",
    ),
}


def architecture_of(config) -> Architecture:
    """The table's row for a Hugging Face configuration. Raises UserError, saying what to add, if there is none."""
    try:
        return ARCHITECTURES[config.model_type]
    except KeyError:
        raise UserError(
            f"architecture {config.model_type!r} is unknown (known: {', '.join(ARCHITECTURES)}): "
            "add a row to ARCHITECTURES in jeep/model/architectures.py, see docs/adding.md"
        ) from None
