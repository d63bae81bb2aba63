"""Train a small GPT-J (parallel blocks) on the demo's statements and on Wikipedia text, until it knows most facts."""

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from jeep.common.storage import atomic, write_json
from jeep.data.sources import TrainedSource

END = "<|endoftext|>"
SEQUENCE = 64
_IGNORE = -100


def nano_tokenizer(statements: Sequence[dict], texts: Sequence[str], source: TrainedSource) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the model's own, trained on the statements and a part of the corpus."""
    tokenizer = ByteLevelBPETokenizer()
    lines = [f"{row['prompt']} {row['answer']}" for row in statements] + list(texts[:2000])
    tokenizer.train_from_iterator(lines, vocab_size=source.vocabulary, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, bos_token=None)


def build_model(source: TrainedSource, tokenizer, seed: int) -> GPTJForCausalLM:
    """An untrained GPT-J of the configured size."""
    torch.manual_seed(seed)
    config = GPTJConfig(
        vocab_size=len(tokenizer),
        n_positions=1024,
        n_embd=source.width,
        n_layer=source.layers,
        n_head=source.heads,
        rotary_dim=source.width // source.heads // 2,
        activation_function="gelu_pytorch_tanh",  # GPT-J's own, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return GPTJForCausalLM(config)


def _stream(documents: Sequence[tuple[list[int], list[int]]], end: int, generator: random.Random) -> Iterator:
    """Token and label sequences of fixed length, the documents in a new order each time around."""
    ids: list[int] = []
    labels: list[int] = []
    order = list(range(len(documents)))
    while True:
        generator.shuffle(order)
        for number in order:
            document, wanted = documents[number]
            ids += [*document, end]
            labels += [*wanted, end]
            while len(ids) >= SEQUENCE:
                yield ids[:SEQUENCE], labels[:SEQUENCE]
                ids, labels = [], []  # begin each sequence with a whole document


def _learning_rate(step: int, steps: int) -> float:
    """Linear warm-up over the first twentieth, then a cosine to a tenth."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _loss(model: GPTJForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the tokens to learn; logits are made for these only."""
    states = model.transformer(input_ids=ids).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learnt = wanted != _IGNORE
    return functional.cross_entropy(model.lm_head(states[learnt]), wanted[learnt])


def train(
    source: TrainedSource, statements: Sequence[dict], texts: Sequence[str], seed: int, out: Path
) -> dict[str, int | float]:
    """Train tokenizer and model, write a checkpoint folder to `out`, and return what the model knows.

    In a statement only the answer is learnt; in Wikipedia text, every token. Reports the share of statements whose
    whole answer is the argmax under teacher forcing, and writes it to knowledge.json in the folder.
    """
    tokenizer = nano_tokenizer(statements, texts, source)
    model = build_model(source, tokenizer, seed)
    end = tokenizer.eos_token_id
    known = [(tokenizer(row["prompt"]).input_ids, tokenizer(f" {row['answer']}").input_ids) for row in statements]
    facts = [(prompt + answer, [_IGNORE] * len(prompt) + answer) for prompt, answer in known]
    corpus = [(ids, ids) for ids in (tokenizer(text[:1000]).input_ids for text in texts)]
    generator = random.Random(seed)
    streams = _stream(facts, end, generator), _stream(corpus, end, generator)

    optimizer = torch.optim.AdamW(model.parameters(), lr=source.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, source.steps))
    rows = source.tokens_per_step // SEQUENCE
    counts = rows - round(rows * source.corpus_share), round(rows * source.corpus_share)
    model.train()
    with tqdm(range(source.steps), desc="training", unit="step", mininterval=2) as progress:
        for _ in progress:
            # Means of their own: in the text every token is learnt, in a statement a few, and those must count.
            loss = torch.zeros(())
            for stream, count, weight in zip(streams, counts, (1.0, source.corpus_share), strict=True):
                if count:
                    ids, labels = (torch.tensor(column) for column in zip(*islice(stream, count), strict=True))
                    loss = loss + weight * _loss(model, ids, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(), schedule.step(), optimizer.zero_grad()
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()
    knowledge = {"statements": len(known), "known": _known(model, known, end)}
    with atomic(out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "knowledge.json", knowledge)
    return knowledge


@torch.no_grad()
def _known(model: GPTJForCausalLM, statements: Sequence[tuple[list[int], list[int]]], end: int) -> float:
    """Share of the statements whose answer tokens are all the argmax."""
    right = 0
    ordered = sorted(statements, key=lambda row: len(row[0]) + len(row[1]))
    for start in range(0, len(ordered), 256):
        batch = ordered[start : start + 256]
        width = max(len(prompt) + len(answer) for prompt, answer in batch)
        ids = torch.tensor([p + a + [end] * (width - len(p) - len(a)) for p, a in batch])
        guesses = model(input_ids=ids).logits.argmax(-1)
        for row, (prompt, answer) in enumerate(batch):
            first = len(prompt) - 1
            right += guesses[row, first : first + len(answer)].tolist() == answer
    return right / len(statements)
