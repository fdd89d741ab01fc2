"""The labels of the classifier's outputs, in the order in which every version answers them."""

from typing import Final

OUTCOMES: Final = ("both", "only_strong", "only_weak", "neither")

# NVIDIA's task types in NVIDIA's order, so that its controllers can read our ensemble.
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
