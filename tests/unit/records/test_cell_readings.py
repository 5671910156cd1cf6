"""How a user reads a model is a part of the cell, and changes no cell from before."""

from __future__ import annotations

from harness.records.cell import spec_cell
from harness.spec import RunSpec


def test_what_the_user_reads_into_a_model_makes_a_cell_of_its_own() -> None:
    plain = spec_cell(RunSpec())
    others = [RunSpec(batch_dim="n"), RunSpec(scores="logits"), RunSpec(inputs="a/real.npz")]
    assert len({plain.key, *(spec_cell(spec).key for spec in others)}) == 4
    assert spec_cell(RunSpec(inputs="b/real.npz")).key == spec_cell(others[2]).key
    assert spec_cell(RunSpec(allow_infinite=True)).key == plain.key


def test_cells_from_before_keep_their_key() -> None:
    assert spec_cell(RunSpec()).key == KEY


KEY = "32e0a02c42512934"
