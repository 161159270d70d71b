// What the kernels of a finish leave for one another, one record per face. Reference: dubstream.kernels.finish.
#pragma once

#define ALIGNED 512     // pixels, side of an aligned face
#define MASK_SIDE 128   // pixels, side of its masks
#define MASK_STEP 4     // aligned pixels to one of a mask
#define MASK_PIXELS (MASK_SIDE * MASK_SIDE)

// Written by finish_plan, the last two by mouth_plan and seam_gains; 8-byte aligned.
struct FinishState {
    Sampling frame;     // aligned face <- frame
    Sampling change;    // aligned face <- level 0 of the arena
    Sampling mask;      // window <- masks
    Sampling restored;  // mouth's bounds <- aligned face
    Extent mouth;       // where the mouth's mask is not 0, in the window; no pixel: right <= left
    float gains[3];     // blue, green, red
    int broken;         // a network's picture held a value that is no finite number
};

// numpy's side has this figure too: finish_launchers.STATE_BYTES.
static_assert(sizeof(FinishState) == 4 * 72 + 4 * 4 + 3 * 4 + 4, "a record of another size");

__device__ inline bool is_finite(float value) { return value - value == 0.0f; }

// One of a face's two masks.
struct MaskPicture {
    const float* pixels;
};

__device__ inline float4 pixel_of(const MaskPicture& picture, int x, int y) {
    return float4{picture.pixels[y * MASK_SIDE + x], 0.0f, 0.0f, 0.0f};
}

__device__ inline float4 mean_of(const MaskPicture&, const float4& sum, int across, int down) {
    return float_mean(sum, across, down);
}

// masks: float32 (n, 2, 128, 128), face and mouth.
__device__ inline float mask_at(const float* masks, int z, int which, const FinishState& state, int x, int y) {
    MaskPicture picture = {masks + (2LL * z + which) * MASK_PIXELS};
    return sampled(state.mask, x, y, picture, float4{0.0f, 0.0f, 0.0f, 0.0f}).x;
}
