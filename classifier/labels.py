"""The labels of the classifier's outputs, in the order in which every version answers them, and the graph's tensors."""

from typing import Final

OUTCOMES: Final = ("both", "only_strong", "only_weak", "neither")

# NVIDIA's task types in NVIDIA's order, so that its controllers can read our ensemble; a version may have others.
TASK_TYPES: Final = (
    "Brainstorming",
    "Chatbot",
    "Classification",
    "Closed QA",
    "Code Generation",
    "Extraction",
    "Open QA",
    "Other",
    "Rewrite",
    "Summarization",
    "Text Generation",
    "Unknown",
)

DIMENSIONS: Final = ("creativity", "reasoning", "contextual_knowledge", "domain_knowledge", "constraints", "few_shots")

# The graph's tensors, and the key of the spec that is null where a version has no such head.
INPUTS: Final = ("input_ids", "attention_mask")
OUTPUTS: Final = ("outcome_logits", "task_logits", "dimensions")
SPEC_KEYS: Final = {"outcome_logits": "outcomes", "task_logits": "task_types", "dimensions": "dimensions"}
