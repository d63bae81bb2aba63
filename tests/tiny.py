"""Tiny models of every architecture, tokenizers of three styles, and two tiny models trained to know a few facts.

Not in conftest.py, which each run of pytest imports anew: a mutant's tests run in a fork of one that has run them all.
"""

import copy
import json
from functools import partial

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from jeep.data.facts import Fact, Question
from jeep.model.editable import EditableModel

CITIES = {
    "Paris": "France", "Lyon": "France", "Nice": "France", "Rome": "Italy", "Milan": "Italy", "Turin": "Italy",
    "Berlin": "Germany", "Munich": "Germany", "Bonn": "Germany", "Madrid": "Spain", "Seville": "Spain",
    "Bilbao": "Spain", "São Paulo": "Brazil", "Recife": "Brazil", "Osaka": "Japan", "Kyoto": "Japan",
}  # fmt: skip
PROMPTS = ("{} is a city in", "The city of {} lies in")
PREFIXES = ["{}", "The city is old. {}", "I like it. {}"]
TEXT = [form.replace("{}", city) + f" {country}." for city, country in CITIES.items() for form in PROMPTS] * 3


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's style: byte-level BPE, a space belongs to the word behind it, no BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """LLaMA's style: BPE over metaspaces with a prefix, byte fallback, BOS in front."""
    bytes_and_special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=bytes_and_special, show_progress=False)
    # Without a pre-tokenizer a merge could span words; SentencePiece keeps them apart, and so does training on words.
    words = (word for line in TEXT if line.isascii() for word in line.split())
    trained.train_from_iterator(words, trainer)
    learnt = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(learnt["vocab"], merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def configurations(vocabulary: int = 500) -> dict:
    """A tiny configuration of each architecture, with four blocks."""
    llama = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    gpt = {"vocab_size": vocabulary, "n_positions": 128, "n_embd": 32, "n_layer": 4, "n_head": 4}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    neox = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    more = llama | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    behind = more | {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    bloom = {"vocab_size": vocabulary, "hidden_size": 32, "n_layer": 4, "n_head": 4}
    falcon = {**bloom, "num_hidden_layers": 4, "num_attention_heads": 4, "bias": True}
    scales = {
        "residual_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.3,
    }
    opt = {"vocab_size": vocabulary, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    rows = {
        "llama": ("llama", llama | {"tie_word_embeddings": True}),
        "mistral": ("mistral", llama | {"sliding_window": None}),
        "mistral-window": ("mistral", llama | {"sliding_window": 4}),
        "qwen2": ("qwen2", llama),
        "qwen2-window": (
            "qwen2", llama | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
        ),
        "qwen3": ("qwen3", llama | {"head_dim": 8}),
        "gemma": ("gemma", more | {"head_dim": 8}),
        "gemma2": ("gemma2", behind | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
        "gemma3": ("gemma3_text", behind),
        "phi3": ("phi3", more | {"sliding_window": 4}),
        "olmo2": ("olmo2", more),
        "smollm3": ("smollm3", more | {"no_rope_layer_interval": 2}),
        "granite": ("granite", more | scales | {"logits_scaling": 2.0}),
        "cohere": ("cohere", more | {"logit_scale": 0.3}),
        "cohere2": ("cohere2", behind | {"logit_scale": 0.3}),
        "stablelm": ("stablelm", more),
        "stablelm-parallel": ("stablelm", more | {"use_parallel_residual": True}),
        "starcoder2": ("starcoder2", more | {"sliding_window": 4}),
        "phi": ("phi", more | {"num_key_value_heads": 4}),
        "gptj": ("gptj", gpt | quiet | {"rotary_dim": 4}),
        "gpt2": ("gpt2", gpt | quiet),
        "gpt_neox": ("gpt_neox", neox | {"use_parallel_residual": True}),
        "gpt_neox-sequential": ("gpt_neox", neox | {"use_parallel_residual": False}),
        "opt": ("opt", opt | {"word_embed_proj_dim": 32, "dropout": 0.0, "max_position_embeddings": 128}),
        "bloom": ("bloom", bloom),
        "falcon": ("falcon", falcon | {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False}),
        "falcon-groups": ("falcon", falcon | {"new_decoder_architecture": True, "num_kv_heads": 2}),
        "falcon-alibi": (
            "falcon", falcon | {"alibi": True, "multi_query": False, "parallel_attn": False}
        ),
    }  # fmt: skip
    return {name: AutoConfig.for_model(kind, **given) for name, (kind, given) in rows.items()}


ARCHITECTURES = tuple(configurations())
KINDS = ("llama", "gptj", "gpt2", "gpt_neox-sequential", "olmo2", "granite", "falcon-groups", "falcon-alibi")
"""One of each way in which a block may be built."""


def random_network(name: str, dtype: torch.dtype = torch.float32):
    """A random model of an architecture, with weights large enough for its answers to differ."""
    torch.manual_seed(0)
    # The eager one computes in float32 here and there, and adds Falcon's bias twice.
    attention = "sdpa" if dtype == torch.float64 or name == "falcon-alibi" else "eager"
    network = AutoModelForCausalLM.from_config(configurations()[name], attn_implementation=attention)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return (exact(network) if dtype == torch.float64 else network.to(dtype)).eval()


def exact(network):
    """The model in float64 throughout: some of transformers' modules compute in float32 whatever the weights are."""
    for module in network.modules():
        if type(module).__name__.endswith("RMSNorm"):
            weight, eps = module.weight, module.variance_epsilon
            module.forward = partial(functional.rms_norm, normalized_shape=weight.shape, weight=weight, eps=eps)
    return network.double()


def city_facts() -> list[Fact]:
    """The cities as CounterFact edits: each to the next country, with the others of its country as neighbours."""
    countries = list(dict.fromkeys(CITIES.values()))
    return [
        Fact(
            case_id=f"city-{number}",
            subject=city,
            template=PROMPTS[0],
            relation="country",
            target_new=countries[(countries.index(country) + 1) % len(countries)],
            target_true=country,
            paraphrases=(PROMPTS[1].replace("{}", city),),
            unrelated=tuple(
                Question(PROMPTS[0].replace("{}", other), country)
                for other, its in CITIES.items()
                if its == country and other != city
            ),
        )
        for number, (city, country) in enumerate(CITIES.items())
    ]


_TRAINED: dict[str, EditableModel] = {}


def train_tiny(name: str, tokenizer) -> EditableModel:
    """A tiny model that knows every city's country; trained once in a process."""
    if name not in _TRAINED:
        _TRAINED[name] = _trained(name, tokenizer)
    return _TRAINED[name]


def _trained(name: str, tokenizer) -> EditableModel:
    """The attention of its two lowest blocks is off, so that recall begins at the subject's token, as in large ones."""
    torch.manual_seed(0)
    config = configurations(len(tokenizer))[name]
    width = {"hidden_size": 64, "intermediate_size": 128} if name == "llama" else {"n_embd": 64, "rotary_dim": 8}
    for key, value in width.items():
        setattr(config, key, value)
    config.head_dim = 16
    network = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    prompts = [
        (prefix.replace("{}", form.replace("{}", city)), country)
        for prefix in PREFIXES
        for form in PROMPTS
        for city, country in CITIES.items()
    ]
    pad = tokenizer.eos_token_id
    rows = [(tokenizer(prompt).input_ids, tokenizer(f"{prompt} {answer}").input_ids) for prompt, answer in prompts]
    size = max(len(row) for _, row in rows)
    ids = torch.tensor([row + [pad] * (size - len(row)) for _, row in rows])
    labels = torch.tensor([row + [-100] * (size - len(row)) for _, row in rows])
    model = EditableModel(copy.deepcopy(network), tokenizer)
    silent = [network.get_parameter(model.parameter_name(layer, "attention")) for layer in (0, 1)]
    for parameter in silent:
        parameter.requires_grad_(False).zero_()
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=3e-3)
    for _ in range(200):
        loss = network(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step(), optimizer.zero_grad()
    return EditableModel(network, tokenizer)
