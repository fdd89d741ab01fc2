"""The classifier through Triton beside its ceiling, and NVIDIA v1's ways: one prompt a call, padding to the limit."""

from __future__ import annotations

from loadtest import bench_classifier
from loadtest.bench.lab import Lab, Outcome
from loadtest.local_triton import MODELS


def section(lab: Lab) -> Outcome:
    """Run `loadtest.bench_classifier` as part of the report; the variable CLASSIFIER chooses the version."""
    document = bench_classifier.run(MODELS, lab.rounds, lab.seconds, lab.say)
    return Outcome(
        title="The classifier beside its ceiling",
        text=f"```\n{bench_classifier.table(document)}\n```",
        figures=document,
        notes=["Batch 1 and padding to 512 tokens are what NVIDIA LLM Router v1 does."],
    )
