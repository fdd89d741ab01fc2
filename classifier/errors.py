"""What a user of the command line can put right; each message says how.

ClassifierError
├── DataError        a file of training or evaluation data
├── CheckpointError  a checkpoint directory, or MiniLM's weights
├── ExportError      a model that must not be served
├── VersionError     a version directory or a Triton config beside it
├── PromotionError   a version that is not promoted, or was rolled back
└── TritonError      a running Triton that does not score
"""


class ClassifierError(Exception):
    """Base: the command line shows the message alone and exits with 1."""


class DataError(ClassifierError):
    """Names file, line, key, value seen and what is allowed. Never shows a prompt."""


class CheckpointError(ClassifierError):
    """Names the file and how to make it."""


class ExportError(ClassifierError):
    """Too large, or the graph does not compute what torch computes."""


class VersionError(ClassifierError):
    """Names the file and what is missing in it."""


class PromotionError(ClassifierError):
    """Says why, and which version serves now."""


class TritonError(ClassifierError):
    """Says where Triton is and what it answered."""
