"""Architectures as rows of one table: where things are in a model class."""

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from jeep.common.errors import UserError, blamed_on

Factor = str | float | int | None
"""A number of the configuration, or the field that has it; None where there is none."""


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
    parallel: bool | str = False
    """MLP and attention read the same state; a string names the configuration's field that says so."""
    rotary: str | None = None
    """Module that makes sines and cosines for all blocks; without it, blocks take position ids."""
    rotary_by_type: bool = False
    """It makes them for each kind of layer in the configuration's `layer_types`."""
    positions: str | None = None
    """Learned position embeddings, added to the token embeddings."""
    embedding_norm: str | None = None
    """A norm behind the token embeddings."""
    first_position: int = 0
    """Where the first token's stands in that table."""
    alibi: bool | str = False
    """Attention is biased by distance; a string names the configuration's field that says so."""
    dense: bool = False
    """Blocks compute attention themselves, on a mask over all pairs of tokens."""
    precise_scores: bool = False
    """Attention's scores are computed in float32 whatever the precision of the model: in float16 they overflow."""
    mlp_norm: str | None = None
    """A norm behind the MLP's W_O, inside a block: what the block adds is its output."""
    attention_norm: str | None = None
    """A norm behind the attention's."""
    residual_scale: Factor = None
    """The configuration's factor on what either adds."""
    embedding_scale: Factor = None
    """The configuration's factor on token embeddings."""
    logit_scale: Factor = None
    """The configuration's factor on the logits."""
    logit_divisor: Factor = None
    """The configuration's divisor of the logits."""
    logit_cap: Factor = None
    """The configuration's bound of the logits, c tanh(x / c)."""


_LLAMA = Architecture(
    blocks="model.layers",
    embedding="model.embed_tokens",
    norm="model.norm",
    head="lm_head",
    mlp_out="mlp.down_proj",
    attention_out="self_attn.o_proj",
    rotary="model.rotary_emb",
)
_NORMS_BEHIND = replace(_LLAMA, mlp_norm="post_feedforward_layernorm", attention_norm="post_attention_layernorm")
_COHERE = replace(_LLAMA, parallel=True, logit_scale="logit_scale")
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": replace(_NORMS_BEHIND, logit_cap="final_logit_softcapping"),
    "gemma3_text": replace(_NORMS_BEHIND, logit_cap="final_logit_softcapping", rotary_by_type=True),
    "phi3": _LLAMA,
    "olmo2": _NORMS_BEHIND,
    "smollm3": _LLAMA,
    "granite": replace(
        _LLAMA,
        residual_scale="residual_multiplier",
        embedding_scale="embedding_multiplier",
        logit_divisor="logits_scaling",
    ),
    "cohere": _COHERE,
    "cohere2": _COHERE,
    "stablelm": replace(_LLAMA, parallel="use_parallel_residual"),
    "starcoder2": replace(_LLAMA, mlp_out="mlp.c_proj"),
    "phi": replace(
        _LLAMA, norm="model.final_layernorm", mlp_out="mlp.fc2", attention_out="self_attn.dense", parallel=True
    ),
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
    "opt": Architecture(
        blocks="model.decoder.layers",
        embedding="model.decoder.embed_tokens",
        norm="model.decoder.final_layer_norm",
        head="lm_head",
        mlp_out="fc2",
        attention_out="self_attn.out_proj",
        positions="model.decoder.embed_positions",
        first_position=2,
    ),
    "bloom": Architecture(
        blocks="transformer.h",
        embedding="transformer.word_embeddings",
        embedding_norm="transformer.word_embeddings_layernorm",
        norm="transformer.ln_f",
        head="lm_head",
        mlp_out="mlp.dense_4h_to_h",
        attention_out="self_attention.dense",
        alibi=True,
        dense=True,
    ),
    "falcon": Architecture(
        blocks="transformer.h",
        embedding="transformer.word_embeddings",
        norm="transformer.ln_f",
        head="lm_head",
        mlp_out="mlp.dense_4h_to_h",
        attention_out="self_attention.dense",
        parallel="parallel_attn",
        rotary="transformer.rotary_emb",
        alibi="alibi",
        dense=True,
    ),
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""What configurations call the number of an MLP's experts."""


_CONFIGURED = (
    "parallel",
    "alibi",
    "residual_scale",
    "embedding_scale",
    "logit_scale",
    "logit_divisor",
    "logit_cap",
)
"""Columns that may name a field of the configuration."""


def architecture_of(config) -> Architecture:
    """The table's row for a Hugging Face configuration, with its values where the table names its fields.

    Raises UserError, saying why or what to add, for a model that cannot be edited: its MLPs are mixtures of experts,
    its weights are quantised, or there is no row.
    """
    kind = config.model_type
    if any(getattr(config, name, None) for name in _EXPERTS):
        raise UserError(f"{kind}: an MLP that is a mixture of experts has no single W_O to edit")
    if getattr(config, "quantization_config", None):
        raise UserError(f"{kind}: quantised weights cannot be edited; take the model in float16, bfloat16 or float32")
    if kind not in ARCHITECTURES:
        raise UserError(
            f"architecture {kind!r} is unknown (known: {', '.join(ARCHITECTURES)}): "
            "add a row to ARCHITECTURES in jeep/model/architectures.py, see docs/adding.md"
        )
    row = ARCHITECTURES[kind]
    named = {column: getattr(row, column) for column in _CONFIGURED}
    return replace(row, **{column: getattr(config, name) for column, name in named.items() if isinstance(name, str)})


def config_in(folder: Path | str) -> PretrainedConfig:
    """The configuration of a checkpoint folder, of an architecture that can be edited. Raises UserError elsewhere."""
    with blamed_on(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    architecture_of(config)
    return config
