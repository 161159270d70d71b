"""The original program's numbers, stage by stage, for regression: numpy, OpenCV and Pillow.

`dubstream dub --mode upstream` runs these (`dubstream.runtime.job.upstream`). The native mode improves on the
original; this package says exactly on what, so that a stage of ours, or a whole frame, can be compared with
what the public program computes from the same arrays. The quirks are kept: truncations, the squash to
512 x 512, binary masks, a different face in every stage.

What a stage needs of the networks is passed as arrays or callables; `networks` makes those.
Stages that the original shares with the native way are not repeated here:

| stage | where |
|---|---|
| 3.2 to 3.4 landmarks, source box, 3DMM cut | `landmarks`, `source`; `dubstream.runtime.faces.alignment` |
| 3.3, 6.1 crops and points of FAN-4, suppression | `dubstream.kernels.detection` |
| 3.5 to 3.7 coefficients, driving window, D-Net's pictures | `dubstream.runtime.coefficients`; `pixels` |
| 4 mel spectrogram and windows | `dubstream.runtime.audio`, rule ``upstream``; `boxes.shown_frames` |
| 5.1, 6.4 face enhancement | `enhancement` |
| 5.2 references | `references` |
| 5.3 face boxes | `boxes` |
| 5.4, 7.1 to 7.3 lip synthesis, upper face, paste | `lips` |
| 6.2, 6.3 detections and fits of five points | `five_points` |
| 6.5 Laplacian blend | `dubstream.kernels.upstream_blend` |
| 7.4, 7.5 mouth restoration and first blend | `mouth` |
| 5, 7 one frame | `frame.upstream_frame` |

What this is not. The numbers were checked against worked examples, and once against a literal restatement of
the public program's stages 5 to 7 with toy networks: 12 frames of three sizes were equal to the bit. (Between
stages an edited upper face differed by one level in up to 49 values: the original resizes it in torch.)
No trained outputs of the original were available, so no frame was compared with one of its own. Not covered:
dlib's detector and its 68 landmarks (any 68 points are taken), faces wider than 2048 pixels, which the
original mishandles, its fresh noise in every style layer, and its two encodes. OpenCV's and Pillow's
fixed-point interpolation differs by a level between versions. Where the original stops with a Python error
(no face in a frame, NaN landmarks) there is a named error here, or the frame passes unchanged, as each
function says.
"""
