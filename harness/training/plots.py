"""Pictures with axes: a reliability diagram, and a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.training.glyphs import HEIGHT, shortened, write
from harness.training.measures import Array, Calibration
from harness.training.pictures import Colour, Picture

_BLUE, _OVER, _UNDER, _GREY = (66, 133, 244), (229, 115, 115), (129, 199, 132), (150, 150, 150)
_LINE = (200, 200, 200)
_FULL = 10  # samples of a bin whose accuracy means something
PLOT, LEFT, TOP = 300, 52, 56  # pixels: the square of the reliability picture, and where it begins
_STRIP = 60
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_CLASSES = 40  # of a confusion matrix whose cells can be told apart
_NAMES = 84  # pixels for the names of classes


def reliability(found: Calibration) -> Picture:
    """Accuracy over confidence by bin, and below it how many samples each bin holds.

    Blue up to the lesser of accuracy and confidence; between the two, red where the model is too
    sure of itself and green where it is not sure enough. Bins of few samples are paler.
    """
    strip_top = TOP + PLOT + 44
    sheet = np.full((strip_top + _STRIP + 20, LEFT + PLOT + 20, 3), 255, np.uint8)
    plot = sheet[TOP : TOP + PLOT, LEFT : LEFT + PLOT]
    strip = sheet[strip_top : strip_top + _STRIP, LEFT : LEFT + PLOT]
    total, most = sum(found.counts), max(found.counts)
    _bars(plot, strip, found, most)
    write(sheet, f"ECE {found.error:.4f}, {total} samples", LEFT, 8, scale=2)
    write(sheet, f"confidence - accuracy {found.gap:+.4f}; red: too sure", LEFT, 28)
    for tick in _TICKS:
        across, down = LEFT + round(tick * (PLOT - 1)), TOP + round((1 - tick) * (PLOT - 1))
        write(sheet, f"{tick:g}", across, TOP + PLOT + 6, align="centre")
        write(sheet, f"{tick:g}", LEFT - 6, down - HEIGHT // 2, align="right")
        sheet[TOP + PLOT : TOP + PLOT + 4, across] = sheet[down, LEFT - 4 : LEFT] = 0
    write(sheet, "confidence", LEFT + PLOT // 2, TOP + PLOT + 20, align="centre")
    write(sheet, "accuracy", 4, TOP - 12)
    write(sheet, f"{most}", LEFT - 6, strip_top, align="right")
    write(sheet, "0", LEFT - 6, strip_top + _STRIP - HEIGHT, align="right")
    write(sheet, "samples in each bin", LEFT, strip_top + _STRIP + 6)
    return sheet


def _bars(plot: Picture, strip: Picture, found: Calibration, most: int) -> None:
    edges = np.linspace(0, PLOT, len(found.counts) + 1).round().astype(int)
    for tick in _TICKS:
        plot[min(PLOT - 1, round((1 - tick) * PLOT))] = _LINE
    for left, right, count, confidence, accuracy in zip(
        edges[:-1], edges[1:], found.counts, found.confidence, found.accuracy, strict=True
    ):
        if count:
            bar, low, high = slice(left, right - 1), *sorted((accuracy, confidence))
            _column(plot, bar, 0.0, low, _faded(_BLUE, count))
            _column(plot, bar, low, high, _faded(_OVER if low == accuracy else _UNDER, count))
            _column(strip, bar, 0.0, count / most, _GREY)
    diagonal = np.arange(PLOT)
    plot[PLOT - 1 - diagonal, diagonal] = 0
    for frame in (plot, strip):
        frame[[0, -1], :] = frame[:, [0, -1]] = 0


def _faded(colour: Colour, count: int) -> Colour:
    """Towards white for a bin of less than `_FULL` samples."""
    share = 0.25 + 0.75 * min(1.0, count / _FULL)
    red, green, blue = (round(255 - share * (255 - part)) for part in colour)
    return red, green, blue


def _column(area: Picture, bar: slice, low: float, high: float, colour: Colour) -> None:
    """Fill from share ``low`` to share ``high`` of the height, counted from below."""
    height = len(area)
    top, bottom = sorted((round(height * (1 - low)), round(height * (1 - high))))
    area[top:bottom, bar] = colour


def confusion(counts: Array, names: Sequence[str]) -> Picture:
    """``counts`` [target, predicted] as cells, darker the greater the share of their row.

    What is right lies on the diagonal, in blue; what is not is red. At most `MOST_CLASSES`.
    """
    classes = len(counts)
    size = max(16, min(48, 480 // classes))
    left, top = _NAMES + 20, 62
    sheet = np.full((top + classes * size + 26, left + classes * size + 20, 3), 255, np.uint8)
    total, right = int(counts.sum()), int(np.trace(counts))
    write(sheet, f"{right} of {total} right", 8, 8, scale=2)
    write(sheet, "targets down, predictions across", 8, 30)
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    for target in range(classes):
        y = top + target * size
        middle = y + (size - HEIGHT) // 2
        write(sheet, shortened(names[target], _NAMES), left - 8, middle, align="right")
        for predicted in range(classes):
            x = left + predicted * size
            share = float(shares[target, predicted])
            colour = _BLUE if target == predicted else _OVER
            cell = [round(255 - share * (255 - part)) for part in colour]
            sheet[y : y + size - 1, x : x + size - 1] = cell
            count = int(counts[target, predicted])
            if count and size >= 6 * len(f"{count}") + 2:
                write(sheet, f"{count}", x + size // 2, middle, align="centre")
    for predicted in range(classes):
        label = shortened(names[predicted], size)
        write(sheet, label, left + predicted * size + size // 2, top - 12, align="centre")
    return sheet
