"""Versions of the precision recipes: one place, read by the exporting side and by whoever opens artifacts.

A recipe itself needs torch (`dubstream.export.precision`); that an artifact was made by an older one must
show on a machine that only dubs, too.
"""

from __future__ import annotations

FP32_RECIPE = "as-trained"

RECIPE_VERSIONS = {
    FP32_RECIPE: 1,
    "dnet-fp16": 1,
    "lnet-fp16": 1,
    "enet-fp16": 1,
    "recon-fp16": 1,
    "dnet-bf16": 1,
    "lnet-bf16": 1,
    "enet-bf16": 1,
    "recon-bf16": 1,
}
"""By recipe name. Raise a number when the artifacts of the older one are to be remade, be it for another
island or another deployable form."""
