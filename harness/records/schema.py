"""Generate the JSON Schema of a result from its types: ``python -m harness.records.schema``.

The file ships in the package; a test fails when it is not current.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness import maybe
from harness.records.result import SCHEMA, Result

PATH = Path(__file__).with_name("result.schema.json")


def generate() -> str:
    """The text of the schema file."""
    schema = {"title": SCHEMA, **maybe.json_schema(Result)}
    schema["$defs"]["Result"]["properties"]["schema"] = {"const": SCHEMA}
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(generate(), encoding="utf-8")
