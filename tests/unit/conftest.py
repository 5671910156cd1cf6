"""A room's tests may use the helpers that stand here, and those of other rooms, by their names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(path) for path in sorted(Path(__file__).parent.iterdir()) if path.is_dir()]
