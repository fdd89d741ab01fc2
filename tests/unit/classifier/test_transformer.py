"""A transformer encoder, its checkpoint and its export. Needs torch; the weights are small and random."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from classifier import checkpoint  # noqa: E402  # after the skip
from classifier.errors import CheckpointError  # noqa: E402  # after the skip
from classifier.export import export, parity  # noqa: E402  # after the skip
from classifier.labels import DIMENSIONS, OUTCOMES, TASK_TYPES  # noqa: E402  # after the skip
from classifier.transformer_graph import transformer_graph  # noqa: E402  # after the skip
from tests.unit.classifier.test_export import facts  # noqa: E402  # after the skip
from tests.unit.classifier.tiny import random_transformer as random_encoder  # noqa: E402  # after the skip
from tests.unit.classifier.tiny import tiny_tokenizer  # noqa: E402  # after the skip


def spec(*, dimensions: bool) -> dict[str, object]:
    return {
        "format": 1,
        "name": "tiny-transformer",
        "outcomes": list(OUTCOMES),
        "task_types": list(TASK_TYPES),
        "dimensions": list(DIMENSIONS) if dimensions else None,
        "encoder": {"kind": "transformer", "source": "random numbers"},
        "max_tokens": 256,
        "calibration": {"temperature": 1.0, "bias": [0, 0, 0, 0]},
        **facts(),
    }


def test_graph_and_torch_agree_on_batches_of_many_shapes() -> None:
    encoder = random_encoder()
    assert parity(encoder, transformer_graph(encoder, with_dimensions=True)) < 1e-5


def test_a_wrong_graph_would_be_noticed() -> None:
    assert parity(random_encoder(0), transformer_graph(random_encoder(1), with_dimensions=True)) > 0.1


def test_padding_changes_nothing_and_an_empty_row_is_finite() -> None:
    encoder = random_encoder()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        alone = encoder(ids, torch.ones_like(ids))
        padded = encoder(
            torch.cat([ids, torch.full((1, 20), 9)], dim=1), torch.tensor([[1] * 5 + [0] * 20], dtype=torch.int64)
        )
        nothing = encoder(ids, torch.zeros_like(ids))
    for one, other in zip(alone, padded, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert all(torch.isfinite(output).all() for output in nothing)


def test_the_order_of_words_matters() -> None:
    encoder = random_encoder()
    with torch.no_grad():
        forth, back = (
            encoder(torch.tensor([row]), torch.ones(1, 4, dtype=torch.int64))[0] for row in ([2, 5, 6, 3], [2, 6, 5, 3])
        )
    assert (forth - back).abs().max() > 1e-3


@pytest.mark.parametrize("dimensions", [True, False])
def test_export_declares_the_heads_that_the_graph_has(tmp_path: Path, dimensions: bool) -> None:
    checkpoint.save(tmp_path / "checkpoint", random_encoder(), spec(dimensions=dimensions), tiny_tokenizer().to_str())
    messages: list[str] = []
    export(tmp_path / "checkpoint", tmp_path / "2", messages.append)
    served = json.loads((tmp_path / "2" / "spec.json").read_text())
    assert (served["encoder"]["kind"], served["encoder"]["source"]) == ("transformer", "random numbers")
    import onnx

    outputs = [output.name for output in onnx.load(tmp_path / "2" / "model.onnx").graph.output]
    assert outputs == ["outcome_logits", "task_logits", *(["dimensions"] if dimensions else [])]
    assert any("parity with torch" in message for message in messages)
    card = (tmp_path / "2" / "README.md").read_text()
    assert ("There is no dimensions head" in card) is not dimensions
    assert (tmp_path / "2" / "scoring.py").is_file()


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    encoder = random_encoder()
    checkpoint.save(tmp_path, encoder, spec(dimensions=True), tiny_tokenizer().to_str())
    loaded, document = checkpoint.load(tmp_path)
    assert document["encoder"]["shape"]["layers"] == 2
    assert all(
        np.array_equal(one.numpy(), other.numpy())
        for one, other in zip(encoder.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("dimensions", [True, False])
def test_an_exported_version_is_read_back_into_the_same_weights(tmp_path: Path, dimensions: bool) -> None:
    encoder = random_encoder()
    checkpoint.save(tmp_path / "checkpoint", encoder, spec(dimensions=dimensions), tiny_tokenizer().to_str())
    export(tmp_path / "checkpoint", tmp_path / "2", lambda _: None)
    loaded, _ = checkpoint.load(tmp_path / "2")
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        heads = slice(3 if dimensions else 2)
        for one, other in zip(encoder(ids, ids * 0 + 1)[heads], loaded(ids, ids * 0 + 1)[heads], strict=True):
            assert torch.equal(one, other)


def test_an_unknown_kind_of_encoder_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, random_encoder(), spec(dimensions=True), tiny_tokenizer().to_str())
    document = json.loads((tmp_path / "spec.json").read_text())
    document["encoder"]["kind"] = "recurrent"
    (tmp_path / "spec.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"encoder.kind is 'recurrent'; static and transformer"):
        checkpoint.load(tmp_path)
