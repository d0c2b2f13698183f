"""The manifest: one row an image."""

import pandas as pd
import pyarrow as pa

# Of quality, as `image_quality.measures` gives them: these make slices, drift and the plots of the page too.
MEASURES = ("brightness", "contrast", "saturation", "sharpness", "entropy")

_TEXT, _NUMBER = pa.string(), pa.float64()
SCHEMA = pa.schema(
    [
        ("path", _TEXT),
        ("label", _TEXT),
        ("group", _TEXT),  # what no split may part: the given one, else that of its near-duplicates
        ("given_group", _TEXT),  # of the labels file
        ("split_hint", _TEXT),
        ("sha256", _TEXT),
        ("phash", _TEXT),
        ("chroma", _TEXT),
        ("bytes", pa.int64()),
        ("format", _TEXT),
        ("mode", _TEXT),
        ("width", pa.int32()),
        ("height", pa.int32()),
        *((measure, _NUMBER) for measure in MEASURES),
        ("brightness_p05", _NUMBER),
        ("brightness_p99", _NUMBER),
        ("blur_score", _NUMBER),
        ("error", _TEXT),
    ]
)


def readable(manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows whose images can be used, numbered from 0; those of a manifest that are all so as they are."""
    sound = manifest["error"].isna()
    return manifest if sound.all() else manifest[sound].reset_index(drop=True)
