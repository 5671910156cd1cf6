"""What TensorRT's Python module has: read from the real bindings, or from names kept as data.

The bindings are a small wheel, and need the three TensorRT libraries to be loaded. Empty ones will
do for looking: nine C functions are all that is imported from them, so the C compiler makes stubs.
Every class, enum and signature is then the real one, while creating an object fails.

    python tests/unit/tensorrt_names.py FOLDER_OF_A_WHEEL > tests/data/tensorrt-10.16-names.json

writes down the names of another version, whose wheel is unpacked in a folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CLASSES = (
    "Builder", "INetworkDefinition", "ITensor", "OnnxParser", "ParserError", "IBuilderConfig",
    "IOptimizationProfile", "ITimingCache", "Runtime", "ICudaEngine", "IExecutionContext",
    "EngineInspector",
)  # fmt: skip
ENUMS = (
    "NetworkDefinitionCreationFlag", "BuilderFlag", "MemoryPoolType", "ProfilingVerbosity",
    "LayerInformationFormat", "TensorIOMode", "TensorLocation", "DataType",
)  # fmt: skip
# what TensorRT for RTX has besides
RTX_CLASSES = ("IRuntimeConfig", "IRuntimeCache")
RTX_ENUMS = ("ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy")
BASES = ("ILogger", "IProfiler", "IOutputAllocator")  # that a program derives from
FUNCTIONS = ("init_libnvinfer_plugins", "get_nv_onnx_parser_version")
LIBRARIES = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}
Names = dict[str, Any]


def compile_stubs(folder: Path, major: int) -> list[Path]:
    """Three shared libraries whose functions return null, under the names of the real ones."""
    made = []
    for library, functions in LIBRARIES.items():
        soname = f"lib{library}.so.{major}"
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
        target = folder / soname
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", target, source]
        subprocess.run(command, check=True, capture_output=True)
        made.append(target)
    return made


def load_bindings(folder: Path, major: int = 11) -> Any:
    """The real module ``tensorrt_bindings``, over stubs that are compiled in ``folder``."""
    for path in compile_stubs(folder, major):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_bindings")


def read_names(module: Any, classes: tuple[str, ...] = (), enums: tuple[str, ...] = ()) -> Names:
    """Every member of the classes that matter and of ``classes``, with its signatures and types."""
    bases = {name: _hooks(getattr(module, name)) for name in BASES}
    return {
        "version": module.__version__,
        "enums": {
            name: {key: int(value) for key, value in getattr(module, name).__members__.items()}
            for name in (*ENUMS, *enums)
        },
        "severities": {
            key: int(value) for key, value in module.ILogger.Severity.__members__.items()
        },
        "bases": bases,
        "functions": {name: signatures(getattr(module, name), name) for name in FUNCTIONS},
        "classes": {name: _members(getattr(module, name)) for name in (*CLASSES, *classes)},
    }


def _hooks(kind: Any) -> dict[str, list[str]]:
    """The methods that a class derived from ``kind`` is to have: its documentation shows them."""
    shown = re.findall(r"def (\w+)\(self(?:, ([^)]*))?\)", kind.__doc__ or "")
    return {name: args.split(", ") for name, args in shown if name != "__init__"}


def _members(kind: Any) -> Names:
    methods, properties = {}, {}
    for name, member in vars(kind).items():
        if name.startswith("add_") and name != "add_optimization_profile":
            continue  # the layers of a network: an ONNX file brings its own
        if isinstance(member, property):
            setter = member.fset and signatures(member.fset, "")
            properties[name] = setter[0][1][1] if setter else None
        elif name == "__init__" or not name.startswith("_"):
            found = signatures(member, name)
            if found:
                methods[name] = [signature[1:] for signature in found]  # without self
    return {"methods": methods, "properties": properties}


def signatures(function: Any, name: str) -> list[list[tuple[str, str, bool]]]:
    """(name, type, has a default) of each parameter, for each overload, from the docstring."""
    text = re.sub(
        r"tensorrt_(rtx_)?bindings\.tensorrt(_rtx)?\.", "", getattr(function, "__doc__", None) or ""
    )
    lines = re.findall(rf"^\s*(?:\d+\. )?{re.escape(name)}\s*\((.*)\) ->", text, re.MULTILINE)
    return [_parameters(line) for line in lines]


def _parameters(text: str) -> list[tuple[str, str, bool]]:
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "[(<") - (char in "])>")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    found = []
    for part in filter(str.strip, parts):
        name, _, rest = part.strip().partition(":")
        kind, equals, _ = rest.partition(" = ")
        found.append((name, kind.strip(), bool(equals)))
    return found


def installed_names() -> Names:
    """The names of the wheel that is installed here, read in a process of its own.

    Raises `ImportError` where there is none, `FileNotFoundError` where no C compiler is.
    """
    if importlib.util.find_spec("tensorrt_bindings") is None:
        raise ImportError("tensorrt-cu13-bindings is not installed")
    if shutil.which("cc") is None:
        raise FileNotFoundError("there is no C compiler (cc) to make stub libraries with")
    done = subprocess.run([sys.executable, __file__], check=True, capture_output=True, text=True)
    names: Names = json.loads(done.stdout)
    return names


def rtx_names() -> Names:
    """The names of TensorRT for RTX, whose libraries come with it: nothing stands in for them.

    Raises `ImportError` where it is not installed.
    """
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        raise ImportError("tensorrt-rtx-cu13-bindings is not installed: the extra tensorrt-rtx")
    done = subprocess.run(
        [sys.executable, __file__, "rtx"], check=True, capture_output=True, text=True
    )
    names: Names = json.loads(done.stdout)
    return names


def _print_rtx() -> None:
    module = importlib.import_module("tensorrt_rtx_bindings")
    print(json.dumps(read_names(module, RTX_CLASSES, RTX_ENUMS)))


def _main(folder: Path | None) -> None:
    """Print the names of the wheel unpacked in ``folder``, or of the installed one."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    package = Path(str(importlib.util.find_spec("tensorrt_bindings").origin)).parent
    (wheel,) = (path.stem for path in package.parent.glob("tensorrt_cu*.dist-info"))
    sha256 = hashlib.sha256((package / "tensorrt.so").read_bytes()).hexdigest()
    source = f"the wheel {wheel} on PyPI: docstrings of its tensorrt.so, sha256 {sha256}"
    major = int(wheel.partition("-")[2].partition(".")[0])
    with tempfile.TemporaryDirectory() as stubs:
        names = read_names(load_bindings(Path(stubs), major))
    print(json.dumps({"source": source, **names}, separators=(",", ":"), sort_keys=True))


if __name__ == "__main__" and sys.argv[1:] == ["rtx"]:
    _print_rtx()
elif __name__ == "__main__":
    _main(Path(sys.argv[1]) if sys.argv[1:] else None)
