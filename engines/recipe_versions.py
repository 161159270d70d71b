"""Versions of the precision recipes: one place, read by the exporting side and by whoever opens artifacts.

A recipe itself needs torch (`dubstream.export.precision`); that an artifact was made by an older one must
show on a machine that only dubs, too.
"""

from __future__ import annotations

FP32_RECIPE = "as-trained"

RECIPE_VERSIONS = {
    FP32_RECIPE: 2,
    "dnet-fp16": 2,
    "lnet-fp16": 2,
    "enet-fp16": 2,
    "recon-fp16": 2,
    "s3fd-fp16": 2,
    "retinaface-fp16": 2,
    "fan4-fp16": 2,
    "gfpgan-fp16": 2,
    "gpen-fp16": 2,
    "parsenet-fp16": 3,
    "ganimation-fp16": 2,
    "dnet-bf16": 2,
    "lnet-bf16": 2,
    "enet-bf16": 2,
    "recon-bf16": 2,
    "s3fd-bf16": 2,
    "retinaface-bf16": 2,
    "fan4-bf16": 2,
    "gfpgan-bf16": 2,
    "gpen-bf16": 2,
    "parsenet-bf16": 3,
    "ganimation-bf16": 2,
}
"""By recipe name. Raise a number when the artifacts of the older one are to be remade, be it for another
island or another deployable form. Version 2: constants of nearly nothing, such as the epsilon under a root,
stay in the graph. Version 3 of ParseNet's: its ten residual blocks are float32."""
