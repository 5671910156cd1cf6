"""Log what compressing a few models gained and cost, from figures of your own, without harness run.

    python examples/compression_writer.py [--logdir results]

The figures here are made up, in place of what your own benchmark says. Afterwards
`harness board --results results` shows them at the tab COMPRESSION, and
`harness report results -o report.html` in one file.
"""

from __future__ import annotations

import argparse

import numpy as np

from harness.board import CompressionWriter

MODELS = {
    # model: accuracy, latency in ms, size in MB at FP32, and what INT8 and FP16 change of it
    "resnet18": (0.698, 22.0, 46.8),
    "mobilenet_v2": (0.719, 9.1, 14.2),
}
PRECISIONS = {"int8": (0.994, 0.41, 0.26), "fp16": (1.0, 0.83, 0.5)}


def figures(accuracy: float, latency_ms: float, size_mb: float) -> dict[str, float]:
    """Accuracy is a share of 1, a latency is in milliseconds, 1 MB is 10^6 bytes."""
    return {"accuracy": accuracy, "latency_ms": latency_ms, "model_size_mb": size_mb}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--logdir", default="results")
    logdir = parser.parse_args().logdir
    draw = np.random.default_rng(0)
    with CompressionWriter(logdir) as board:
        for model, (accuracy, latency_ms, size_mb) in MODELS.items():
            fp32 = figures(accuracy, latency_ms, size_mb)
            for precision, (kept, time, size) in PRECISIONS.items():
                made = figures(accuracy * kept, latency_ms * time, size_mb * size)
                pair = ("fp32", precision)
                board.log_compression_comparison(model, fp32, made, precisions=pair)
                before, after = draw.gamma(400, 1 / 400, (2, 2000))
                board.log_latency_distribution(
                    model, latency_ms * before, latency_ms * time * after, precisions=pair
                )
            board.log_model_metadata(
                model, {"library": "torchvision", "input_shape": (1, 3, 224, 224)}
            )
            board.log_hparams(model, {"bits": 8, "scheme": "static", "calibration": "minmax"})
            score = board.log_aurora(model)
            if score is not None:
                print(f"{model}: AURORA {score.score:.1f} of {score.components}")
    print(f"harness board --results {logdir}")


if __name__ == "__main__":
    main()
