"""What NVIDIA's reference implementation (nemo-curator, prompt_task_complexity.py) computes, and a tiny checkpoint.

The library that it stands on is the same, `transformers`; the formula of every score is written out here again.
"""

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model

TEXT = "write a poem prove the theorem in c with examples and why not"
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *TEXT.split()]
# The published body has these settings in greater sizes.
BODY: Final[dict[str, Any]] = {
    "vocab_size": 32,  # more than the tokenizer has, as in the published one
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 192,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
CONFIG: Final[dict[str, Any]] = {
    "base_model": "microsoft/DeBERTa-v3-base",
    "target_sizes": {
        "task_type": 3,
        "creativity_scope": 3,
        "reasoning": 2,
        "contextual_knowledge": 2,
        "number_of_few_shots": 6,
        "domain_knowledge": 4,
        "no_label_reason": 1,
        "constraint_ct": 2,
    },
    "task_type_map": {"0": "Brainstorming", "1": "Code Generation", "2": "Open QA"},
    "weights_map": {
        "creativity_scope": [2, 1, 0],
        "reasoning": [0, 1],
        "contextual_knowledge": [0, 1],
        "number_of_few_shots": [0, 1, 2, 3, 4, 5],
        "domain_knowledge": [3, 1, 2, 0],
        "no_label_reason": [0],
        "constraint_ct": [1, 0],
    },
    "divisor_map": {
        "creativity_scope": 2,
        "reasoning": 1,
        "contextual_knowledge": 1,
        "number_of_few_shots": 1,
        "domain_knowledge": 3,
        "no_label_reason": 1,
        "constraint_ct": 2,
    },
}
SHARES: Final = {
    "creativity_scope": 0.35,
    "reasoning": 0.25,
    "constraint_ct": 0.15,
    "domain_knowledge": 0.15,
    "contextual_knowledge": 0.05,
    "number_of_few_shots": 0.05,
}


class Head(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.fc(pooled)
        return logits


class Reference(nn.Module):
    """DeBERTa-v3, the mean of the last vectors, eight heads."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = DebertaV2Model(DebertaV2Config(**BODY))
        for place, classes in enumerate(CONFIG["target_sizes"].values()):
            self.add_module(f"head_{place}", Head(BODY["hidden_size"], classes))
        with torch.no_grad():
            for parameter in self.parameters():  # the defaults of norms and biases, 1 and 0, would hide a mistake
                parameter.add_(torch.randn_like(parameter) * 0.1)
        self.eval()

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, list[float]]]:
        """Task probabilities [n, tasks], and each of NVIDIA's scores by name."""
        hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        seen = mask.unsqueeze(-1).expand(hidden.size()).float()
        pooled = (hidden * seen).sum(1) / seen.sum(1).clamp(min=1e-9)
        logits = [self.get_submodule(f"head_{place}")(pooled) for place in range(8)]
        scores: dict[str, list[float]] = {}
        for place, name in enumerate(CONFIG["target_sizes"]):
            if name == "task_type":
                continue
            weights = torch.tensor(CONFIG["weights_map"][name], dtype=torch.float64)
            values = (torch.softmax(logits[place], dim=1) * weights).sum(dim=1) / CONFIG["divisor_map"][name]
            scores[name] = [round(value, 4) for value in values.tolist()]
        scores["number_of_few_shots"] = [value if value >= 0.05 else 0 for value in scores["number_of_few_shots"]]
        scores["prompt_complexity_score"] = [
            round(sum(share * value for share, value in zip(SHARES.values(), values, strict=True)), 5)
            for values in zip(*(scores[name] for name in SHARES), strict=True)
        ]
        return torch.softmax(logits[0], dim=1), scores


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return made


def write_checkpoint(directory: Path, model: Reference) -> Path:
    """The files of the published one."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, directory / "model.safetensors"
    )
    (directory / "config.json").write_text(json.dumps(CONFIG))
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory
