"""Checkpoints: kept, found again, refused, and whole whenever the process is killed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_store import file_size_limit

from harness.errors import ModelError, ResultError, UsageError
from harness.training import CheckpointManager

torch = pytest.importorskip("torch", reason="pip install torch")


def training(seed: int = 0):
    torch.manual_seed(seed)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    schedule.step()
    return model, optimizer, schedule


def save_all(manager: CheckpointManager, losses: list[float]) -> None:
    model, *_ = training()
    for step, loss in enumerate(losses):
        manager.save(step, model, metrics={"val_loss": loss})


def steps(manager: CheckpointManager) -> list[int]:
    return [record.step for record in manager.records().values()]


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, max_keep=2)
    save_all(manager, [3.0, 1.0, 2.0, math.nan, 4.0])
    assert steps(manager) == [1, 3, 4]
    best = manager.load("best")
    assert best is not None
    assert (best.step, best.metrics) == (1, {"val_loss": 1.0})
    latest = manager.load()
    assert latest is not None
    assert latest.step == 4
    assert len(list(tmp_path.iterdir())) == 6  # weights and record of each, nothing else


def test_the_best_may_be_the_greatest_and_the_earlier_of_equals(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, 1, "val_loss", "max")
    save_all(manager, [1.0, 2.0, 2.0, math.inf, math.nan])
    assert manager.load("best").step == 1
    assert steps(manager) == [1, 4]


def test_without_a_finite_metric_there_is_no_best(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    save_all(manager, [math.nan])
    assert manager.load("best") is None
    assert CheckpointManager(tmp_path / "new").load() is None
    assert CheckpointManager(tmp_path / "new").resume(training()[0]) is None


def test_an_epoch_without_validation_is_saved(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(1, training()[0], metrics={"val_loss": None, "loss": 2})
    (record,) = manager.records().values()
    assert record.metrics == {"loss": 2.0}


@pytest.mark.filterwarnings("error")
def test_a_metric_may_be_a_loss_that_has_a_gradient(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(1, training()[0], metrics={"loss": torch.tensor(2.0, requires_grad=True)})
    assert [record.metrics for record in manager.records().values()] == [{"loss": 2.0}]
    with pytest.raises(UsageError, match="metrics is a list; give a mapping of names to numbers"):
        manager.save(2, training()[0], metrics=[2.0])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["low", [1.0, 2.0], {}, 10**400, torch.ones(2)])
def test_a_metric_that_is_no_number_is_refused_before_anything_is_written(
    tmp_path: Path, value: object
) -> None:
    manager = CheckpointManager(tmp_path)
    with pytest.raises(UsageError, match=r"'val_loss' is a \w+: .*; give one number, or None"):
        manager.save(1, training()[0], metrics={"val_loss": value})
    assert list(tmp_path.iterdir()) == []


def test_a_training_goes_on_where_it_was(tmp_path: Path) -> None:
    model, optimizer, schedule = training()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    CheckpointManager(tmp_path).save(
        7, model, optimizer, schedule, {"val_loss": np.float32(0.5)}, {"epoch": np.int64(3)}
    )
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    other = training(seed=9)
    found = CheckpointManager(tmp_path).resume(*other)
    assert found is not None
    assert (found.step, found.metrics, found.state["extra"]) == (7, {"val_loss": 0.5}, {"epoch": 3})
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert torch.equal(other[0].weight, model.weight)
    assert other[1].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert torch.equal(
        other[1].state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )
    assert other[2].last_epoch == schedule.last_epoch


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save(0, training()[0])
    with pytest.raises(ModelError, match=r"does not fit this model.*size mismatch"):
        manager.resume(torch.nn.Linear(5, 2))
    with pytest.raises(ModelError, match="holds no optimizer"):
        manager.resume(*training()[:2])


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "gone", "record"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, damage: str) -> None:
    manager = CheckpointManager(tmp_path)
    save_all(manager, [3.0, 2.0])
    newest = tmp_path / "checkpoint-000002.pt"
    data = newest.read_bytes()
    middle = len(data) // 2
    if damage == "cut":
        newest.write_bytes(data[:-100])
    elif damage == "flipped":
        newest.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif damage == "emptied":
        newest.write_bytes(b"")
    elif damage == "gone":
        newest.unlink()
    else:
        newest.with_suffix(".json").write_bytes(b'{"schema": "harness.checkpoint/1", "step": ')
    for which in ("latest", "best"):
        found = manager.load(which)  # type: ignore[arg-type]
        assert found is not None
        assert found.step == 0
    (note,) = manager.load().skipped
    assert note.startswith("checkpoint-000002")
    manager.save(5, training()[0])  # and its number is not used again
    assert manager.load().path.name == "checkpoint-000003.pt"


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_hostile_pickle_is_not_executed(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "checkpoints")
    save_all(manager, [1.0])
    good = manager.load().path
    evil = good.with_name("checkpoint-000002.pt")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            hostile = name.endswith("data.pkl")
            data = pickle.dumps(Hostile(tmp_path / "owned")) if hostile else source.read(name)
            target.writestr(name, data)
    record = json.loads(good.with_suffix(".json").read_bytes())
    record |= {"sha256": hashlib.sha256(evil.read_bytes()).hexdigest(), "step": 99}
    evil.with_suffix(".json").write_text(json.dumps(record))
    found = manager.load()
    assert found.step == 0
    assert "it is refused" in found.skipped[0]
    assert not (tmp_path / "owned").exists()
    # the plain old format as well
    evil.write_bytes(pickle.dumps(Hostile(tmp_path / "owned")))
    record["sha256"] = hashlib.sha256(evil.read_bytes()).hexdigest()
    evil.with_suffix(".json").write_text(json.dumps(record))
    assert manager.load().step == 0
    assert not (tmp_path / "owned").exists()


def test_a_state_that_could_not_be_loaded_is_refused_when_saved(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    with pytest.raises(UsageError, match="more than tensors and plain values"):
        manager.save(0, training()[0], extra={"path": Path("x")})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    save_all(manager, [1.0])
    before = sorted(tmp_path.iterdir())
    with file_size_limit(1000), pytest.raises(ResultError, match="cannot be written"):
        manager.save(1, torch.nn.Linear(100, 100))
    assert sorted(tmp_path.iterdir()) == before
    assert manager.load().step == 0


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        CheckpointManager(tmp_path, max_keep=0)
    with pytest.raises(UsageError):
        CheckpointManager(tmp_path, mode="least")  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(ResultError):
        CheckpointManager(tmp_path / "file")


# One process imports torch and forks those that save and are killed; it prints what it then finds.
SAVERS = """
import json, os, random, signal, sys, time, torch
from harness.training import CheckpointManager
torch.set_num_threads(1)
folder, chance = sys.argv[1], random.Random(0)

def save_for_ever(tell):
    manager = CheckpointManager(folder, max_keep=2)
    found = manager.load()
    step = found.step + 1 if found else 0
    model = torch.nn.Linear(200, 200)
    while True:
        with torch.no_grad():
            model.weight.fill_(step)
        # the losses of steps 0 to 3 come again and again: the best is the first 0
        manager.save(step, model, metrics={"val_loss": step % 4})
        os.write(tell, step.to_bytes(4, "big"))
        step += 1

for _ in range(int(sys.argv[2])):
    listen, tell = os.pipe()
    child = os.fork()
    if not child:
        save_for_ever(tell)
    os.close(tell)
    said = os.read(listen, 4)
    time.sleep(chance.uniform(0, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(listen, 4):
        said = more
    os.close(listen)
    newest, best = CheckpointManager(folder).load(), CheckpointManager(folder).load("best")
    weights = newest.state["model"]["weight"].unique().tolist()
    print(json.dumps([int.from_bytes(said, "big"), newest.step, weights, newest.skipped, best.step,
                      sorted(os.listdir(folder))]))
"""
KILLS = 20


def test_killed_at_any_moment_the_newest_whole_one_loads(tmp_path: Path) -> None:
    """Each child goes on from what the killed one left, and is killed after a random time."""
    done = subprocess.run(
        [sys.executable, "-c", SAVERS, tmp_path, str(KILLS)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == KILLS
    before, leftovers = -1, 0
    for said, newest, weights, skipped, best, names in lines:
        assert newest in (said, said + 1)  # saved, and perhaps not reported any more
        assert newest > before
        assert weights == [newest]
        assert (skipped, best) == ([], 0)
        leftovers += len(names) > 6 or any(name.endswith(".tmp") for name in names)
        before = newest
    assert leftovers  # some of the kills did come in the middle of a save
    CheckpointManager(tmp_path, max_keep=2).save(before + 1, torch.nn.Linear(2, 2))
    assert len(list(tmp_path.iterdir())) == 6  # the two newest and the best; the rest is swept up
