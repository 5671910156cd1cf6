"""A sweep file becomes exactly the cells that it asks for, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.sweep.plan import Plan, parse_shard, read_plan
from harness.sweep.runner import remaining


def plan_of(folder: Path, text: str) -> Plan:
    path = folder / "night.toml"
    path.write_text(text)
    return read_plan(path)


def names(plan: Plan) -> list[str]:
    return [one.cell.name for one in plan.cells]


MATRIX = """
launches = 2
[matrix]
model = ["digits", "resnet18"]
precision = ["fp32", "int8"]
batch_size = [1, 8]
"""


def test_a_matrix_is_every_combination(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, MATRIX)
    assert plan.name == "night"
    assert plan.launches == 2
    assert names(plan) == [
        f"{model}/onnxruntime/cpu/{precision}/b{batch}/latency"
        for model in ("digits", "resnet18")
        for precision in ("fp32", "int8")
        for batch in (1, 8)
    ]
    assert len({one.cell.key for one in plan.cells}) == 8


def test_exclude_takes_values_lists_globs_and_defaults(tmp_path: Path) -> None:
    text = """
[[exclude]]
model = "resnet*"
batch_size = [4, 8]
backend = "onnxruntime"
"""
    left = names(plan_of(tmp_path, MATRIX + text))
    assert len(left) == 6
    assert not any(name.startswith("resnet18") and "/b8/" in name for name in left)


def test_include_adds_a_cell_with_the_defaults(tmp_path: Path) -> None:
    text = """
[defaults]
duration_s = 2
[[include]]
model = "digits"
precision = "int8"
"""
    (one,) = plan_of(tmp_path, text).cells
    assert one.spec.precision == "int8"
    assert one.spec.duration_s == 2.0


def test_files_are_found_beside_the_sweep_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    monkeypatch.chdir("/")
    (one,) = plan_of(tmp_path, '[matrix]\nmodel = ["net.onnx"]\n').cells
    assert one.spec.model == str(tmp_path / "net.onnx")
    assert one.cell.name == "net/onnxruntime/cpu/fp32/b1/latency"


def test_files_that_are_not_there_are_not_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "net.onnx").write_bytes(b"another file of that name")
    monkeypatch.chdir(tmp_path)
    text = '[defaults]\ndataset = "d.npz"\n[matrix]\nmodel = ["net.onnx"]\n'
    (one,) = plan_of(tmp_path / "plan", text).cells
    assert one.spec.model == str(tmp_path / "plan" / "net.onnx")
    assert one.spec.dataset == str(tmp_path / "plan" / "d.npz")


def test_tables_lists_and_numbers_reach_the_run(tmp_path: Path) -> None:
    text = """
[matrix]
options = [{execution_mode = "parallel"}, {}]
[defaults]
input_shapes = {image = [1, 3, 8, 8]}
cpus = [0, 1]
precision_goal = "2%"
overhead_check = true
"""
    first, second = plan_of(tmp_path, text).cells
    assert first.spec.options == {"execution_mode": "parallel"}
    assert second.spec.options == {}
    assert first.cell.name == second.cell.name
    assert first.cell.key != second.cell.key
    assert first.spec.input_shapes == {"image": (1, 3, 8, 8)}
    assert first.spec.cpus == (0, 1)
    assert first.spec.precision_goal == 0.02
    assert first.spec.overhead_check


def test_calibration_of_a_matrix_goes_with_its_int8_cells_alone(tmp_path: Path) -> None:
    text = '[defaults]\ncalibration_method = "entropy"\n[matrix]\nprecision = ["fp32", "int8"]\n'
    fp32, int8 = plan_of(tmp_path, text).cells
    assert "calibration_method" not in fp32.fields
    assert int8.spec.calibration_method == "entropy"


def test_shards_share_the_cells_and_lose_none(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, MATRIX)
    shards = [names(plan.shard(index, 3)) for index in (1, 2, 3)]
    assert [len(shard) for shard in shards] == [3, 3, 2]
    assert sorted(name for shard in shards for name in shard) == sorted(names(plan))


def test_launches_are_interleaved_and_every_other_round_goes_backwards(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, MATRIX).only(["digits/*/fp32/*"])
    a, b = (one.cell.key for one in plan.cells)
    assert [(one.cell.key, launch) for (one,), launch in remaining(plan, set())] == [
        (a, 1), (b, 1), (b, 2), (a, 2),
    ]  # fmt: skip
    assert [(one.cell.key, launch) for (one,), launch in remaining(plan, {(a, 1), (b, 2)})] == [
        (b, 1), (a, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[matrix]\nmodell = ['a']", "unknown field in [matrix] 'modell'; did you mean 'model'?"),
        ("[matrix]\nduration = [1]", "unknown field in [matrix] 'duration'; did you mean"),
        ("launch = 3\n[matrix]\nmodel=['a']", "unknown key 'launch'; did you mean 'launches'?"),
        ("[defaults]\nout = 'x'\n[matrix]\nmodel=['a']", "unknown field in [defaults] 'out'"),
        ("[matrix]\nmodel = 'a'", "matrix.model is 'a'; give a list of values"),
        ("[matrix]\nmodel = []", "matrix.model is []; give a list of values"),
        ("name = 'x'", "it asks for no cell"),
        ("matrix = 3", "matrix is 3; give it as a table"),
        ("include = 3", "include is 3; give [[include]] tables"),
        ("include = [3]", "include is 3; give it as a table"),
        ("launches = 0\n[matrix]\nmodel=['a']", "launches is '0'"),
        ("launches = true\n[matrix]\nmodel=['a']", "launches is 'True'"),
        ("[matrix]\nbatch_size = [0]", "--batch-size is '0'"),
        ("[matrix]\nprecision = ['int4']", "--precision is 'int4'"),
        ("[matrix]\nmodel = ['a', 'a']", "the cell a/onnxruntime/cpu/fp32/b1/latency comes twice"),
        ("[matrix]\nmodel = ['p/x/a.onnx', 'q/x/a.onnx']", "comes twice"),
        ("[matrix]\nmodel = ['a']\n[[exclude]]\nmodel = 'b'", "matches no cell of the matrix"),
        ("[matrix]\nmodel = ['a']\n[[exclude]]\n", "exclude {} matches no cell"),
        ("[matrix]\nmodel = ['a']\n[[exclude]]\nmodel = 'a'", "every cell is excluded"),
        ("name = ['x']\n[matrix]\nmodel = ['a']", "name is ['x']; give letters and digits"),
        ("[matrix]\nmodel = [['a', 'b']]", "give a text or a number"),
        ("[matrix]\nmodel = [{a = 1}]", "model is \"{'a': 1}\"; give a text or a number"),
        ("[matrix]\nseed = [2026-11-21]", "seed is '2026-11-21'; give a text or a number"),
        (
            "[defaults]\noverhead_check = 'no'\n[matrix]\nmodel = ['a']",
            "overhead_check is 'no'; give true or false",
        ),
        ("name = '/'\n[matrix]\nmodel = ['a']", "name is '/'; give letters and digits"),
        ("a = [" * 5000, "is no TOML"),
    ],
)
def test_nonsense_is_one_line_with_what_to_do(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(tmp_path, text)
    assert told in str(caught.value)
    assert "night.toml" in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_bytes(b"\xff\x00")
    with pytest.raises(UsageError, match="is no TOML"):
        read_plan(tmp_path / "night.toml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_plan(tmp_path)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_shard_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--shard is"):
        parse_shard(text)


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'resnet50/\\*' matches no cell"):
        plan_of(tmp_path, MATRIX).only(["digits/*", "resnet50/*"])


def test_two_models_of_one_file_name_are_two_cells(tmp_path: Path) -> None:
    """As exports lie: model.onnx in a folder for each model, or in one called onnx within that."""
    for folders in (("small", "large"), ("small/onnx", "large/onnx")):
        models = [f"{folder}/model.onnx" for folder in folders]
        plan = plan_of(tmp_path, f"[matrix]\nmodel = {models}\nprecision = ['fp32', 'int8']")
        names = [one.cell.name for one in plan.cells]
        assert len({one.cell.key for one in plan.cells}) == 4
        assert names[0] == f"{folders[0]}/model/onnxruntime/cpu/fp32/b1/latency"
        assert [one.cell.name for one in plan.only([f"{folders[1]}/*"]).cells] == names[2:]
        assert len(plan.only(["model/*"]).cells) == 4  # the name that all of them have


def test_files_that_count_as_one_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(tmp_path, "[matrix]\nmodel = ['p/x/a.onnx', 'q/x/a.onnx']")
    assert "p/x/a.onnx' and '" in str(caught.value)
    assert "count as one model: name their folders differently" in str(caught.value)


# -- cells that take turns -----------------------------------------------------------------------

PAIRED = MATRIX.replace("launches = 2", 'launches = 2\npaired = "precision"')
ALONE = """
[[include]]
model = "bert_base"
[[exclude]]
model = "resnet18"
precision = "int8"
batch_size = 8
"""


def test_cells_that_differ_in_one_field_take_turns(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PAIRED + ALONE)
    assert [[one.cell.name for one in unit] for unit in plan.units] == [
        ["digits/onnxruntime/cpu/fp32/b1/latency@turns",
         "digits/onnxruntime/cpu/int8/b1/latency@turns"],
        ["digits/onnxruntime/cpu/fp32/b8/latency@turns",
         "digits/onnxruntime/cpu/int8/b8/latency@turns"],
        ["resnet18/onnxruntime/cpu/fp32/b1/latency@turns",
         "resnet18/onnxruntime/cpu/int8/b1/latency@turns"],
        ["resnet18/onnxruntime/cpu/fp32/b8/latency"],  # its partner is excluded
        ["bert_base/onnxruntime/cpu/fp32/b1/latency"],
    ]  # fmt: skip
    assert [one.variant for one in plan.units[0]] == ["fp32", "int8"]
    assert all(one.spec.in_turns for unit in plan.units[:3] for one in unit)
    assert plan.cells[0].cell.key != plan_of(tmp_path, MATRIX).cells[0].cell.key


def test_a_duel_is_one_step_of_the_first_round_and_done_with_all_its_cells(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PAIRED + ALONE).only(["digits/*/int8/b1/*", "bert*"])
    assert [len(unit) for unit in plan.units] == [2, 1]  # the partner comes along
    (fp32, int8), (bert,) = plan.units
    assert [(left.cells, left.launch) for left in remaining(plan, set())] == [
        ((fp32, int8), 1), ((bert,), 1), ((bert,), 2),
    ]  # fmt: skip
    half = {(fp32.cell.key, 1), (bert.cell.key, 1), (bert.cell.key, 2)}
    assert [left.cells for left in remaining(plan, half)] == [(fp32, int8)]
    assert remaining(plan, half | {(int8.cell.key, 1)}) == []


def test_shards_keep_those_that_take_turns_together(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, PAIRED)
    shards = [plan.shard(index, 3) for index in (1, 2, 3)]
    assert [len(shard.cells) for shard in shards] == [4, 2, 2]
    shared = [unit for shard in shards for unit in shard.units]
    assert len(shared) == 4 and all(unit in shared for unit in plan.units)


def test_each_takes_what_belongs_to_the_field_along(tmp_path: Path) -> None:
    text = """
paired = "backend"
[matrix]
backend = ["onnxruntime", "pytorch"]
precision = ["fp32", "int8"]
"""
    plan = plan_of(tmp_path, text)
    assert [[(o.variant, o.spec.precision) for o in unit] for unit in plan.units] == [
        [("onnxruntime", "fp32"), ("pytorch", "fp32")],
        [("onnxruntime", "int8"), ("pytorch", "int8")],
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'paired = "backend"',
            "paired is 'backend', and cells take turns that differ in one field",
        ),
        ('paired = "duration_s"', "name one of model, precision, batch_size"),
        ("paired = 1", "paired is '1'"),
        ("paired = []", "paired is '[]'"),
        ('paired = "precision"\n[defaults]\niterations = 5', "cannot take turns: a duel counts"),
        (
            'paired = "precision"\n[defaults]\nscenario = "throughput"\nconcurrency = 2',
            "cannot take turns: a duel counts rounds, of one inference at a time",
        ),
    ],
)
def test_a_pairing_that_makes_no_sense_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan_of(tmp_path, MATRIX.replace("launches = 2", text))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
