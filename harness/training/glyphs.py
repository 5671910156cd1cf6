"""Letters for pictures: a font of 5 x 7 dots, so that a training needs no library to label an axis.

A letter is five columns of seven dots, the lowest bit on top. What the font lacks is a box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT = 7  # dots, and a letter takes six with the gap behind it
_ADVANCE = 6
_FIRST = " "
_BOX = bytes.fromhex("7f4141417f")
# from the space to the tilde, as in ASCII
_COLUMNS = bytes.fromhex(
    "0000000000" "00005f0000" "0007000700" "147f147f14" "242a7f2a12" "2313086462" "3649552250"
    "0005030000" "001c224100" "0041221c00" "14083e0814" "08083e0808" "0050300000" "0808080808"
    "0060600000" "2010080402" "3e5149453e" "00427f4000" "4261514946" "2141454b31" "1814127f10"
    "2745454539" "3c4a494930" "0171090503" "3649494936" "064949291e" "0036360000" "0056360000"
    "0814224100" "1414141414" "0041221408" "0201510906" "324979413e" "7e1111117e" "7f49494936"
    "3e41414122" "7f4141221c" "7f49494941" "7f09090901" "3e4149497a" "7f0808087f" "00417f4100"
    "2040413f01" "7f08142241" "7f40404040" "7f020c027f" "7f0408107f" "3e4141413e" "7f09090906"
    "3e4151215e" "7f09192946" "4649494931" "01017f0101" "3f4040403f" "1f2040201f" "3f4038403f"
    "6314081463" "0708700807" "6151494543" "007f414100" "0204081020" "0041417f00" "0402010204"
    "4040404040" "0001020400" "2054545478" "7f48444438" "3844444420" "384444487f" "3854545418"
    "087e090102" "0c5252523e" "7f08040478" "00447d4000" "2040443d00" "7f10284400" "00417f4000"
    "7c04180478" "7c08040478" "3844444438" "7c14141408" "081414187c" "7c08040408" "4854545420"
    "043f444020" "3c4040207c" "1c2040201c" "3c4030403c" "4428102844" "0c5050503c" "4464544c44"
    "0008364100" "00007f0000" "0041360800" "0804081008"
)  # fmt: skip


def width(text: str, scale: int = 1) -> int:
    """Pixels from the first dot to the last."""
    return max(0, len(text) * _ADVANCE - 1) * scale


def dots(text: str, scale: int = 1) -> NDArray[np.bool_]:
    """[height, width]: where ``text`` is, each dot ``scale`` pixels wide and high."""
    drawn = np.zeros((HEIGHT, max(1, width(text))), bool)
    for at, letter in enumerate(text):
        start = 5 * (ord(letter) - ord(_FIRST))
        columns = _COLUMNS[start : start + 5] if 0 <= start < len(_COLUMNS) else _BOX
        for column, bits in enumerate(columns):
            drawn[:, at * _ADVANCE + column] = [bits >> row & 1 for row in range(HEIGHT)]
    return np.kron(drawn, np.ones((scale, scale), bool)).astype(bool)


def shortened(text: str, pixels: int, scale: int = 1) -> str:
    """``text``, or as much of it as fits, with two points for the rest."""
    if width(text, scale) <= pixels:
        return text
    most = max(0, (pixels // scale + 1) // _ADVANCE - 2)
    return f"{text[:most]}.." if most else ""


def write(
    sheet: NDArray[np.uint8],
    text: str,
    left: int,
    top: int,
    *,
    scale: int = 1,
    align: str = "left",
    colour: tuple[int, int, int] = (40, 40, 40),
) -> None:
    """Draw ``text`` into ``sheet``; what lies outside is left out. ``align``: what ``left`` is of
    it: left, centre or right."""
    mask = dots(text, scale)
    left -= {"left": 0, "centre": mask.shape[1] // 2, "right": mask.shape[1]}[align]
    low, high = max(0, left), min(sheet.shape[1], left + mask.shape[1])
    end = min(sheet.shape[0], top + mask.shape[0])
    if high <= low or end <= top or top < 0:
        return
    part = mask[: end - top, low - left : high - left]
    sheet[top:end, low:high][part] = colour
