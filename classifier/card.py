"""The model card: what a version is, how it was made and how well it does, all from its spec."""

from typing import Any, Final

from classifier.labels import DIMENSIONS, TASK_TYPES
from classifier.metrics import GAIN_SHARE


def model_card(spec: dict[str, Any], size: int) -> str:
    """Markdown for the version's README.md; `spec` is the checkpoint's, `size` that of model.onnx in bytes."""
    test = spec["metrics"]["test_split"]
    held_out = spec["metrics"].get("leave_one_source_out")
    parts = [
        _HEAD.format(name=spec["name"]),
        _KINDS[spec["encoder"]["kind"]].format(
            source=spec["encoder"]["source"], megabytes=size / 1e6, **spec["encoder"]["shape"]
        ),
        _heads(spec),
        _making(spec),
        "## Figures on its own test split: prompts that it never saw\n",
        *_figures(test, spec["metrics"].get("test_split_int8", {})),
    ]
    if held_out is not None:
        parts += [
            f"## Out of domain: each source judged by a model that saw none of it ({held_out['rows']:,} prompts)\n",
            *([f"{held_out['note']}\n"] if "note" in held_out else []),
            routing_table(held_out),
            source_table(held_out["sources"]),
        ]
    return "\n".join([*parts, _TAIL])


def routing_table(figures: dict[str, Any], int8: dict[str, Any] | None = None) -> str:
    """The model beside prompt length and chance, as Markdown; `int8` are its figures as a CPU serves it."""
    lines = [
        "| score | APGR (95% interval) | CPT50 | CPT80 | strong calls for 95% quality | AUC | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| random | 0.500 | 50% | 80% | | 0.500 | |",
    ]
    rows = [("prompt length", figures["prompt_length"]), ("need_strong", figures["need_strong"])]
    rows += [("gain", figures["gain"])] if "gain" in figures else []
    rows += [("need_strong, as int8 on a CPU", int8["need_strong"])] if int8 and "need_strong" in int8 else []
    for name, seen in rows:
        interval = f"{_figure(seen, 'apgr')} ({_figure(seen, 'apgr_low')} to {_figure(seen, 'apgr_high')})"
        shares = " | ".join(_share(seen, share) for share in ("cpt50", "cpt80", "strong_for_95"))
        lines.append(f"| {name} | {interval} | {shares} | {_figure(seen, 'auc')} | {_figure(seen, 'ece')} |")
    return "\n".join(lines) + "\n"


def source_table(sources: dict[str, Any]) -> str:
    """APGR per source, as Markdown."""
    lines = ["| source | prompts | prompt length | need_strong |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {seen['rows']:,} | {_figure(seen, 'prompt_length_apgr')} | {_figure(seen, 'apgr')} |"
        for name, seen in sorted(sources.items())
    ]
    return "\n".join(lines) + "\n"


def _figures(test: dict[str, Any], int8: dict[str, Any]) -> list[str]:
    parts = []
    if "need_strong" in test:
        parts += [
            f"{test['rows']:,} prompts with outcomes. The cheap model alone scores {test['always_cheap']:.3f}, the "
            f"expensive one {test['always_strong']:.3f}.\n",
            routing_table(test, int8),
            source_table(test["sources"]),
        ]
    for key, what in (("task", "templates and other sources"), ("own_task", "the project's own prompts")):
        if key in test:
            seen = test[key]
            parts.append(
                f"Task type, {what}: right on {seen['accuracy']:.1%} of {seen['rows']:,}; always answering the most "
                f"frequent type would be right on {seen['majority']:.1%}.\n"
            )
    if "dimensions" in test:
        ranks = test["dimensions"]["spearman"]
        parts.append(
            f"Dimensions, {test['dimensions']['rows']:,} prompts, Spearman's correlation with the labels: "
            + ", ".join(f"{name} {_figure(ranks, name)}" for name in DIMENSIONS)
            + ".\n"
        )
    return parts


def _heads(spec: dict[str, Any]) -> str:
    dimensions = (
        "**Dimensions head**: NVIDIA's six, each 0 to 1."
        if spec.get("dimensions") is not None
        else "There is no dimensions head: its output is NaN."
    )
    names = spec["task_types"]
    tasks = "NVIDIA's task types" if names == list(TASK_TYPES) else f"{len(names)} task types, `spec.json` names them"
    return _HEADS.format(tasks=tasks, dimensions=dimensions, max_tokens=spec["max_tokens"])


def _making(spec: dict[str, Any]) -> str:
    data, training = spec["training_data"], spec["training"]
    return _MAKING.format(
        command="\n".join(training["commands"]),
        seed=training["seed"],
        minutes=training["minutes"],
        rows=data["rows"],
        sha256=data["sha256"],
    )


def _figure(figures: dict[str, Any], key: str) -> str:
    value = figures.get(key)
    return "" if value is None else f"{value:.3f}"


def _share(figures: dict[str, Any], key: str) -> str:
    return f"{figures[key]:.0%}" if key in figures else ""


_HEAD: Final = """\
# {name}

Written by `python -m classifier export`; do not edit.

Scores a prompt before any LLM sees it: will a cheap model's answer suffice, and an expensive one's?
"""

_KINDS: Final = {
    "static": """\
A static encoder, no attention: {megabytes:.1f} MB of fp16 weights.

- **Dense expert**: the idf-weighted mean of {dimensions}-dimensional token vectors. They are {source}'s: each
  vocabulary entry alone through it, then principal components.
- **Sparse expert**: logits for each token and for neighbours hashed into {bigrams:,} rows.
- Both know the prompt's length. Each is a linear model of its own; their logits are averaged.""",
    "transformer": """\
A transformer averaged with a sparse expert; {megabytes:.1f} MB of fp16 weights. On a CPU its matrices run as int8.

- **Transformer**: {source}, fine-tuned, {layers} layers of width {width}. Its heads see the mean of the last vectors.
- **Sparse expert**: a linear model of its own, with logits for each token, for neighbours hashed into {bigrams:,} rows
  and for the prompt's length.""",
}

_HEADS: Final = """\
- **Outcome head**: both suffice, only the strong, only the weak, neither. **Task head**: {tasks}.
  {dimensions}
- At most {max_tokens} tokens are read, from the beginning.
"""

_MAKING: Final = """\
## How it was made

```
{command}
```

Seed {seed}, {minutes:g} minutes of training. {rows:,} prompts (SHA-256 over prompts and labels `{sha256}`), split by
near-duplicate group (5-word shingles): 80% train, 5% calibrate, 15% test. No text of outcome data is in the repository.
"""

_TAIL: Final = f"""\
The score is need_strong = {GAIN_SHARE:g} gain + {1 - GAIN_SHARE:g} (1 - p_weak); APGR, CPT and their kin are
RouteLLM's. Pooled over sources, the level of each source counts as much as the order within it.

What the shipped weights were trained on, where they fail and what did not help: docs/classifier-lab.md. Calibrate on
your own traffic before you trust a threshold: on unknown sources the ECE grows.
"""
