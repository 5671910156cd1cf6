"""In a clone that it is not installed from, the plug-in is taken from here."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("harness_openvino") is None:
    sys.path.insert(0, str(Path(__file__).parent))
