// The soft mask of a face box. Reference: dubstream.kernels.face_mask.
#pragma once

// Fractions of the box; see FaceMaskShape.
struct MaskShape {
    float top, top_feather, side, side_feather, bottom, bottom_feather;
};

// Smoothstep from 0 at distance 0 to 1 at `width`; a step where the width is 0.
__device__ inline float ramp(float distance, float width) {
    float t = distance / (width > 1e-9f ? width : 1e-9f);
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    return t * t * (3.0f - 2.0f * t);
}

// At a pixel counted from the box's corner, which may lie outside: 0 there.
__device__ inline float mask_in_box(int x, int y, int width, int height, const MaskShape& shape) {
    if (x < 0 || y < 0 || x >= width || y >= height) return 0.0f;
    float across = (static_cast<float>(x) + 0.5f) / static_cast<float>(width);
    float down = (static_cast<float>(y) + 0.5f) / static_cast<float>(height);
    float above = ramp(down - shape.top, shape.top_feather);
    float below = ramp(1.0f - shape.bottom - down, shape.bottom_feather);
    float nearest = across < 1.0f - across ? across : 1.0f - across;
    return (above < below ? above : below) * ramp(nearest - shape.side, shape.side_feather);
}
