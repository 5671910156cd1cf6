"""Train `digits` and write what ships in ``assets/``: ``python -m harness.models.train_digits``.

Needs torch, onnx, onnxscript and scikit-learn; a run needs none of them. Seeded, on one thread,
so the same library versions give the same weights. The 1,797 images are split, by class, into 1,257
to train on (the first 256 of them calibrate quantizers, inputs only) and 540 to test on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from harness.models.onnx_export import export_onnx
from harness.protocols import Declared
from harness.zoo.digits import Digits
from harness.zoo.shipped import ASSETS, FILES, Manifest

SEED = 0
EPOCHS = 40
BATCH = 64
CALIBRATION = 256
TEST = 540


def split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train images, train labels, test images, test labels; pixels scaled to [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(images, labels, test_size=TEST, stratify=labels, random_state=SEED)
    train_x, test_x, train_y, test_y = (torch.from_numpy(np.ascontiguousarray(p)) for p in parts)
    return train_x, train_y, test_x, test_y


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by at most one pixel each way: handwriting is not centred."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, moves, strict=True)]
    )


def train(images: Tensor, labels: Tensor) -> Digits:
    """The trained network, in eval mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    loss = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - BATCH + 1, BATCH):
            batch = order[start : start + BATCH]
            optimizer.zero_grad()
            loss(model(shifted(images[batch], generator)), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return model


def write_manifest(model: Digits, accuracy: float) -> None:
    """``manifest.json``: what a run must know without opening the other files."""
    manifest = Manifest(
        inputs=(Declared(name="images", dtype="float32", dims=("batch", 1, 8, 8)),),
        outputs=(Declared(name="logits", dtype="float32", dims=("batch", 10)),),
        parameters=sum(p.numel() for p in model.parameters()),
        test_accuracy=accuracy,
        test_samples=TEST,
        calibration_samples=CALIBRATION,
        sha256={f: hashlib.sha256((ASSETS / f).read_bytes()).hexdigest() for f in FILES},
    )
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (ASSETS / "manifest.json").write_bytes(text + b"\n")


def save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, **arrays)


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    train_x, train_y, test_x, test_y = split()
    model = train(train_x, train_y)
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).double().mean().item()
    ASSETS.mkdir(exist_ok=True)
    save(ASSETS / "digits.npz", {k: v.numpy() for k, v in model.state_dict().items()})
    save(ASSETS / "digits_calibration.npz", {"images": train_x[:CALIBRATION]})
    save(ASSETS / "digits_test.npz", {"images": test_x, "labels": test_y})
    export_onnx(model, (test_x[:2],), ASSETS / "digits.onnx", ["images"], ["logits"], batched=True)
    write_manifest(model, accuracy)
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
