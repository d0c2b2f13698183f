"""Measures are what their definitions say, and give CleanVision's verdicts."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.datasets import load_sample_image

from tasks.check import Params
from tasks.core.base import params
from tasks.core.validation import checks
from tasks.core.validation.derived_columns import number_near_sets, with_derived_columns
from tasks.core.validation.expectations import run
from tasks.core.validation.image_quality import measures, phash
from tests.images import scanned
from tests.structure import ROOT

P = params.read(ROOT / "params.yaml", Params).validate
QUALITIES = ("dark", "light", "blurry", "low_information", "odd_aspect_ratio", "odd_size")


def test_measures_of_images_one_can_reckon() -> None:
    black, white = (measures(Image.new("RGB", (32, 32), name)) for name in ("black", "white"))
    assert (black["brightness"], black["brightness_p99"], black["sharpness"]) == (0, 0, 0)
    assert (white["brightness"], white["brightness_p05"], white["contrast"], white["saturation"]) == (
        1,
        1,
        0,
        0,
    )
    board = Image.new("L", (32, 32))
    board.putdata([255 * ((x + y) % 2) for y in range(32) for x in range(32)])
    seen = measures(board.convert("RGB"), "L")
    assert (seen["brightness"], seen["contrast"], seen["entropy"]) == (0.5, 0.5, 1)
    assert measures(Image.new("RGB", (32, 32), "red"))["saturation"] == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3000, 2), (64, 64), (129, 127)])
def test_images_of_any_shape_are_measured(size: tuple[int, int]) -> None:
    seen = measures(Image.effect_noise(size, 50).convert("RGB"))
    assert all(np.isfinite(value) for name, value in seen.items() if name not in ("phash", "chroma"))
    assert len(bytes.fromhex(str(seen["chroma"]))) == 2 * 4 * 4
    assert len(str(seen["phash"])) == 16


def photographs() -> list[Image.Image]:
    return [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]


MEASURED = """
import json
import numpy as np
from PIL import Image
from tasks.core.validation.image_quality import measures
rng = np.random.default_rng(0)
images = [rng.integers(0, 256, (90, 130, 3)) for _ in range(40)]
images += [np.broadcast_to(rng.integers(0, 256, 3), (90, 130, 3)) for _ in range(40)]
images += [np.linspace(0, rng.integers(9, 256, 3), 99).repeat(70, 0).reshape(99, 70, 3) for _ in range(40)]
print(json.dumps([measures(Image.fromarray(image.astype(np.uint8))) for image in images]))
"""


def test_another_kind_of_cpu_measures_the_same() -> None:
    """Without this one's vector instructions, for NumPy and its BLAS; hashes of flat images were noise."""
    older = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL", "OPENBLAS_CORETYPE": "Prescott"}
    own, other = (
        subprocess.run(
            [sys.executable, "-c", MEASURED],
            cwd=ROOT,
            env=os.environ | settings,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for settings in ({}, older)
    )
    assert own == other
    assert len({each["phash"] for each in json.loads(own)[40:80]}) == 1, "of one colour each"


def test_the_hash_is_imagehashs() -> None:
    rng = np.random.default_rng(1)
    for photograph in photographs():
        for side in rng.integers(20, 300, 20):
            grey = photograph.crop((side, side, 2 * side, 2 * side)).convert("L")
            assert phash(grey) == str(imagehash.phash(grey))


def varied(count: int) -> list[Image.Image]:
    """Crops of photographs, many of them darkened, lightened, blurred, flattened or turned grey."""
    rng = np.random.default_rng(0)
    sources = photographs()
    images = []
    for number in range(count):
        width, height = rng.integers(40, 400, 2)
        left, top = rng.integers(0, 640 - width), rng.integers(0, 427 - height)
        image = sources[rng.integers(2)].crop((left, top, left + width, top + height))
        match number % 8:
            case 1:
                image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.05, 0.6)))
            case 2:
                image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(1.5, 8)))
            case 3:
                image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 40))))
            case 4:
                image = image.quantize(int(rng.integers(2, 12))).convert("RGB")
            case 5:
                image = image.convert("L").filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 40))))
            case 6:
                image = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0, 0.3)))
        images.append(image)
    return images


@pytest.mark.slow
def test_the_verdicts_are_cleanvisions(tmp_path: Path) -> None:
    from cleanvision import Imagelab

    for number, image in enumerate(varied(400)):
        label = tmp_path / "pictures" / "ab"[number % 2]
        label.mkdir(parents=True, exist_ok=True)
        if number % 3:
            image.save(label / f"{number:03d}.png")
        else:  # decoded at half of its size
            image.resize((3 * image.width, 3 * image.height)).save(label / f"{number:03d}.jpg", quality=92)
    (tmp_path / "labels.csv").write_text("path,label\n")
    frame = scanned(tmp_path / "pictures", tmp_path / "labels.csv")
    frame = with_derived_columns(frame, number_near_sets(frame, P), [])
    asked, _ = checks.checks(frame, P)
    outcomes = run(frame, asked, tmp_path / "site")
    ours = {outcome.kind: set(outcome.paths) for outcome in outcomes}
    lab = Imagelab(data_path=str(tmp_path / "pictures"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab.find_issues({kind: {} for kind in QUALITIES}, n_jobs=1, verbose=False)
    top = (tmp_path / "pictures").resolve()
    for kind in QUALITIES:
        theirs = {
            str(Path(path).relative_to(top)) for path in lab.issues.index[lab.issues[f"is_{kind}_issue"]]
        }
        assert len(ours[kind] ^ theirs) <= 2, f"{kind}: only what lies at the threshold may differ"
    assert len(ours["dark"]) > 20 and len(ours["blurry"]) > 20 and len(ours["low_information"]) > 5
