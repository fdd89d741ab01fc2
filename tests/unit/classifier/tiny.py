"""A tiny tokenizer, prompts whose labels follow from their words, and encoders of random weights. Needs torch."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from classifier.corpus import OWN_SET
from classifier.export import rounded
from classifier.labelled import Outcome, Row
from classifier.static_encoder import Shape, StaticEncoder
from classifier.transformer_encoder import TransformerEncoder, TransformerShape

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "add", "prove", "theorem", "name", "city", "colour", "why", "code"]
HARD, EASY = ("prove", "theorem", "why"), ("name", "city", "colour")
SHAPE = TransformerShape(
    vocabulary=len(WORDS), width=16, layers=2, attention_heads=4, inner=32, positions=512, bigrams=31
)


def tiny_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def labelled_rows(rows: int = 240, seed: int = 0) -> list[Row]:
    """Hard prompts need the strong model, reasoning and are about code; easy ones nothing and are Open QA."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(rows):
        hard = bool(rng.random() < 0.5)
        words = rng.choice(HARD if hard else EASY, size=rng.integers(3, 9))
        prompt = " ".join(f"{word} {number}x{place}" for place, word in enumerate(words))  # no two are near-duplicates
        found.append(
            Row(
                prompt, "s", Outcome(float(not hard), 1.0, {"weak": float(not hard), "strong": 1.0}), group=f"r{number}"
            )
        )
        code = " ".join(f"code {number}y{place}" for place in range(rng.integers(2, 6))) if hard else f"name {prompt}"
        found.append(
            Row(
                code,
                OWN_SET,
                task_type="Code Generation" if hard else "Open QA",
                dimensions=(0.0, float(hard), 0.0, float(hard), 0.0, 0.0),
                group=f"t{number}",
            )
        )
    return found


def random_static(seed: int = 0) -> StaticEncoder:
    generator = torch.Generator().manual_seed(seed)
    model = StaticEncoder(Shape(vocabulary=len(WORDS), dimensions=5, bigrams=31))
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator).half().float())
    model.token_weight.copy_((torch.rand(len(WORDS), generator=generator) + 0.5).half().float())
    model.token_weight[[0, 2, 3]] = 0
    return model.eval()


def random_transformer(seed: int = 0) -> TransformerEncoder:
    torch.manual_seed(seed)
    encoder = TransformerEncoder(SHAPE)
    with torch.no_grad():
        for parameter in encoder.parameters():  # the defaults of norms and biases, 1 and 0, would hide a mistake
            parameter.add_(torch.randn_like(parameter) * 0.3)
        encoder.visible.copy_(torch.ones(len(WORDS)))
        encoder.visible[[0, 2, 3]] = 0
    return rounded(encoder.eval())
