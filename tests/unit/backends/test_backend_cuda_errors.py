"""What PyTorch, ONNX Runtime and CUDA say of the same trouble, as one line with a remedy."""

from __future__ import annotations

import pytest

from harness.backends.device_events import EventTimer
from harness.engine.worker.main import _failure
from harness.errors import BackendUnavailable, HarnessError, MeasurementFailed
from harness.host.cuda_errors import cuda_failure

# runtime -> its wording, as found in its source or seen from it
OOM = {
    "torch": "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 7.9",
    "onnxruntime arena": "Non-zero status code returned while running Conv node: Failed to allocate"
    " memory for requested buffer of size 8589934592",
    "onnxruntime cuda": "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc",
    "runtime": "cudaErrorMemoryAllocation",
    "cublas": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
}
BUSY = {
    "torch": "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors",
    "older": "all CUDA-capable devices are busy or unavailable",
    "onnxruntime": "CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable ; GPU=-1",
    "runtime": "cudaErrorDevicesUnavailable",
}
GONE = {"torch": "CUDA error: invalid device ordinal", "onnxruntime": "Invalid device ID: 7"}
BUILD = {"torch": "CUDA error: no kernel image is available for execution on the device"}
DRIVER = {"torch": "The NVIDIA driver on your system is too old (found version 11040)"}
KERNEL = {
    "torch": "CUDA error: device-side assert triggered",
    "onnxruntime": "CUDA failure 700: an illegal memory access was encountered",
}


@pytest.mark.parametrize(
    ("wordings", "kind", "says", "remedy"),
    [
        (OOM, MeasurementFailed, "out of device memory", "--batch-size"),
        (BUSY, BackendUnavailable, "exclusive use", "nvidia-smi -c 0"),
        (GONE, BackendUnavailable, "no such device", "CUDA_VISIBLE_DEVICES"),
        (BUILD, BackendUnavailable, "no kernels for this GPU", "compute capability"),
        (DRIVER, BackendUnavailable, "driver is too old", "newer driver"),
        (KERNEL, MeasurementFailed, "a kernel of the model failed", "CUDA_LAUNCH_BLOCKING"),
    ],
)
def test_each_wording_is_known(
    wordings: dict[str, str], kind: type[HarnessError], says: str, remedy: str
) -> None:
    for text in wordings.values():
        found = cuda_failure(text, "loading")
        assert type(found) is kind, text
        assert found.message.startswith("loading: ")
        assert says in found.message.partition(" (")[0]
        assert remedy in found.remedy
        assert len(str(found)) < 320
        assert "\n" not in str(found)


@pytest.mark.parametrize("text", ["mat1 and mat2 shapes cannot be multiplied", "", "device"])
def test_other_errors_are_not_taken_for_these(text: str) -> None:
    assert cuda_failure(text, "loading") is None


def test_a_worker_words_it_alike_when_it_happens_in_the_timed_loop() -> None:
    found = _failure(RuntimeError(OOM["torch"]))
    assert found.kind == "MeasurementFailed"
    assert "out of device memory" in found.message
    assert "--batch-size" in found.remedy
    assert found.traceback == ""
    other = _failure(RuntimeError("out of memory"))  # of the host, or of nobody knows whom
    assert (other.kind, other.message) == ("", "RuntimeError: out of memory")


def test_events_are_made_beforehand_and_given_back() -> None:
    made: list[int] = []
    log: list[int] = []
    gone: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    timer = EventTimer(make, log.append, lambda start, end: 10.0 * end + start, gone.append)
    timer.arm(2)
    assert log == [0, 1, 2, 3]  # a runtime that creates them at their first record does it here
    log.clear()
    run = timer.timed(lambda: log.append(-1))
    for _ in range(3):
        run()
    assert log == [0, -1, 1, 2, -1, 3, -1]
    assert timer.times_ms().tolist() == [10.0, 32.0]
    timer.arm(0)
    assert gone == [0, 1, 2, 3]
    assert timer.times_ms().tolist() == []


def test_pairs_that_were_not_used_have_no_time() -> None:
    timer = EventTimer(object, lambda event: None, lambda start, end: 1.0)
    timer.arm(5)
    timer.timed(lambda: None)()
    assert timer.times_ms().tolist() == [1.0]
