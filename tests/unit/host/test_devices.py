"""Which device is which, asked of a driver library that the C compiler makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.host import gpus as devices
from harness.host.gpus import CudaDevice, cuda_device, cuda_devices
from harness.maybe import Unavailable, code_of, explain
from harness.testing.cuda import FakeCuda, FakeDevice, fake_uuid, has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason="no C compiler to build the stub with")

SLICE = "MIG-0a0a0a0a-1111-4222-8333-444444444444"
WHOLE = "GPU-99999999-0000-4000-8000-000000000000"
PAIR = (
    FakeDevice("NVIDIA L4", multiprocessors=58, compute_capability=(8, 9)),
    FakeDevice("NVIDIA H200", multiprocessors=132),
)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (devices.VISIBLE, devices.ORDER, devices._MEMO):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "_known", {})
    yield
    os.environ.pop(devices._MEMO, None)


def found(device: str, cuda: tuple[int, int] = (0, 0)) -> CudaDevice:
    answer = cuda_device(device, cuda)
    assert isinstance(answer, CudaDevice), answer
    return answer


def refused(device: str = "cuda:0", cuda: tuple[int, int] = (0, 0)) -> tuple[str | None, str]:
    """The code and the line that a user would read."""
    answer = cuda_device(device, cuda)
    assert isinstance(answer, Unavailable), answer
    assert answer.remedy
    line = explain(answer)
    assert "\n" not in line
    return code_of(answer), line


@pytest.mark.parametrize("text", ["cuda", "cuda:0"])
def test_everything_about_a_device(tmp_path: Path, text: str) -> None:
    with FakeCuda(tmp_path, driver=13020).environment():
        assert found(text) == CudaDevice(
            index=0,
            name="NVIDIA H200",
            uuid=fake_uuid(0),
            whole_uuid=fake_uuid(0),
            mig=False,
            compute_capability="9.0",
            pci_bus_id="0000:01:00.0",
            memory_bytes=150_754_820_096,
            multiprocessors=132,
            compute_mode="default",
            integrated=False,
            driver_cuda="13.2",
        )


def test_devices_count_in_pci_order_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeCuda(tmp_path, PAIR).environment():
        assert [found("cuda:0").name, found("cuda:1").name] == ["NVIDIA L4", "NVIDIA H200"]
        monkeypatch.setenv(devices.ORDER, "FASTEST_FIRST")
        assert [found("cuda:0").name, found("cuda:1").name] == ["NVIDIA H200", "NVIDIA L4"]


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        ("1", [fake_uuid(1)]),
        ("1,0", [fake_uuid(1), fake_uuid(0)]),
        (fake_uuid(1), [fake_uuid(1)]),
        ("GPU-00000001", [fake_uuid(1)]),
        ("0,-1,1", [fake_uuid(0)]),
    ],
)
def test_what_is_visible_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, uuids: list[str]
) -> None:
    monkeypatch.setenv(devices.VISIBLE, visible)
    with FakeCuda(tmp_path, PAIR).environment():
        shown = cuda_devices()
        assert not isinstance(shown, Unavailable)
        assert [device.uuid for device in shown] == uuids
        assert [device.index for device in shown] == list(range(len(uuids)))


def test_a_slice_and_the_gpu_it_is_part_of(tmp_path: Path) -> None:
    mig = FakeDevice("NVIDIA H200 MIG 1g.18gb", uuid=SLICE, whole_uuid=WHOLE)
    with FakeCuda(tmp_path, [mig]).environment():
        device = found("cuda")
    assert (device.mig, device.uuid, device.whole_uuid) == (True, SLICE, WHOLE)


def test_a_number_beyond_the_last_names_what_there_is(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, PAIR).environment():
        assert refused("cuda:7") == (
            "not_present",
            "there is no cuda:7: this machine has 2 CUDA devices (0 NVIDIA L4, 1 NVIDIA H200); "
            "give cuda:0 to cuda:1",
        )


def test_a_number_beyond_what_is_visible_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.VISIBLE, "1")
    with FakeCuda(tmp_path, PAIR).environment():
        assert refused("cuda:1")[1] == (
            "there is no cuda:1: CUDA_VISIBLE_DEVICES='1' shows 1 of 2 devices (0 NVIDIA H200); "
            "give cuda:0, or change CUDA_VISIBLE_DEVICES"
        )


@pytest.mark.parametrize("visible", ["", "-1", "9", "GPU-ffff", "nonsense"])
def test_everything_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv(devices.VISIBLE, visible)
    with FakeCuda(tmp_path, PAIR).environment():
        assert refused()[1] == (
            f"CUDA_VISIBLE_DEVICES={visible!r} hides the machine's 2 CUDA devices "
            "(0 NVIDIA L4, 1 NVIDIA H200); unset CUDA_VISIBLE_DEVICES, or use --device cpu"
        )


def test_a_slice_that_is_no_more_is_the_variables_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.VISIBLE, "MIG-gone")
    gone = f'if (getenv("{devices.VISIBLE}")) return 101;'
    with FakeCuda(tmp_path, PAIR, before_init=gone).environment():
        assert refused()[1].startswith("CUDA_VISIBLE_DEVICES='MIG-gone' hides the machine's 2")


def test_a_driver_without_a_device(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, []).environment():
        code, line = refused()
    assert (code, "the NVIDIA driver is there, but" in line) == ("not_present", True)


@pytest.mark.parametrize("code", sorted(devices._ERRORS))
def test_every_known_error_of_cuinit_has_its_own_line(tmp_path: Path, code: int) -> None:
    with FakeCuda(tmp_path, init=code).environment():
        line = refused()[1]
    assert line.startswith(devices._ERRORS[code][0])
    assert f"cuInit gave CUDA_ERROR_FAKE_{code} ({code})" in line


def test_an_error_nobody_foresaw_is_named(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, get=12345).environment():
        line = refused()[1]
    assert line.startswith("cuDeviceGet of the NVIDIA driver gave CUDA_ERROR_FAKE_12345 (12345);")


def test_a_driver_of_an_older_major_version(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, driver=12080).environment():
        assert found("cuda:0", cuda=(12, 9)).driver_cuda == "12.8"
        assert refused("cuda:0", cuda=(13, 0)) == (
            "not_supported",
            "the NVIDIA driver runs CUDA 12.8 at most, CUDA 13 is needed; "
            "install driver 580 or newer",
        )


def test_a_driver_from_before_slices(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, old=True).environment():
        assert "too old: its library has no cuDeviceGetUuid_v2" in refused()[1]


def test_a_device_that_nobody_may_use(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, [FakeDevice(compute_mode=2)]).environment():
        code, line = refused()
    assert code == "permission_denied"
    assert line.endswith("sudo nvidia-smi -i 0000:01:00.0 -c 0")


def test_a_driver_that_crashes_takes_nobody_with_it(tmp_path: Path) -> None:
    with FakeCuda(tmp_path, before_init="abort();").environment():
        assert refused()[1].startswith("asking the NVIDIA driver ended with signal 6")


def test_a_driver_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "ANSWER_S", 0.3)
    hang = "for (;;) ;"
    with FakeCuda(tmp_path, before_init=hang).environment():
        assert refused()[1].startswith("the NVIDIA driver did not answer within 0.3 s")


def test_a_driver_that_talks_is_understood_all_the_same(tmp_path: Path) -> None:
    noise = 'setvbuf(stdout, NULL, _IONBF, 0); printf("hello");'
    with FakeCuda(tmp_path, before_init=noise).environment():
        assert found("cuda:0").name == "NVIDIA H200"


def test_a_library_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert refused()[1].startswith("libcuda.so.1 cannot be loaded: ")


def test_a_process_is_told_what_the_one_that_started_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another setting it asks again; a memory that makes no sense is none."""
    with FakeCuda(tmp_path, PAIR).environment():
        before = cuda_devices()
        (tmp_path / "libcuda.so.1").unlink()
        devices._known.clear()
        assert cuda_devices() == before
        devices._known.clear()
        monkeypatch.setenv(devices.ORDER, "PCI_BUS_ID")  # what it was without being set
        assert cuda_devices() == before
        devices._known.clear()
        monkeypatch.setenv(devices.VISIBLE, "1")
        assert isinstance(cuda_devices(), Unavailable) or cuda_devices() != before
        monkeypatch.delenv(devices.VISIBLE)
        for text in ("", "{", '{"setting": 1}', '{"setting": "", "devices": []}'):
            monkeypatch.setenv(devices._MEMO, text)
            assert cuda_devices() != before


def card(root: Path, vendor: str = "0x10de", kind: str = "0x030200") -> None:
    folder = root / "sys/bus/pci/devices/0000:65:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(vendor)
    (folder / "class").write_text(kind)


def no_driver(root: Path) -> str:
    answer = cuda_devices(str(root))
    assert isinstance(answer, Unavailable)
    return explain(answer)


def test_what_the_absence_of_a_driver_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.devices_query, "LIBRARY", "libcuda.so.1")
    monkeypatch.setattr(devices, "_ask", lambda _: devices._Answer(failed="load"))
    assert no_driver(tmp_path) == (
        "no NVIDIA GPU and no NVIDIA driver (libcuda.so.1) is here; "
        "run on a machine with an NVIDIA GPU, or use --device cpu"
    )
    card(tmp_path)
    assert no_driver(tmp_path).startswith(
        "PCI device 0000:65:00.0 is an NVIDIA GPU, but has no driver; install NVIDIA's driver"
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert no_driver(tmp_path).startswith("the NVIDIA driver is loaded, but its library")


@pytest.mark.parametrize(("vendor", "kind"), [("0x1002", "0x030000"), ("0x10de", "0x040300")])
def test_other_cards_and_the_sound_of_a_gpu_are_no_gpu(
    tmp_path: Path, vendor: str, kind: str
) -> None:
    card(tmp_path, vendor, kind)
    assert devices._cards(str(tmp_path)) == ""


@pytest.mark.parametrize("text", ["cpu", "cuda:", "cuda:x", "cuda:-1", "gpu", "", "cuda:0\n"])
def test_text_that_names_no_cuda_device(text: str) -> None:
    with pytest.raises(UsageError, match="give cuda or cuda:N"):
        cuda_device(text)
