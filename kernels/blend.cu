// Put synthesised faces into their frames: multi-band blend in a window around each face.
//
//     enhanced n x 3 x h x w --resized to the box--> minus frame = D ]  one float4 (D blue, green, red, mask)
//     face box ------------- soft mask of the lower face ----------- ]  per window pixel: level 0
//
//     blend_start     level 0
//     blend_reduce    level k -> level k + 1, half the size, all four values
//     blend_band      level k minus expanded level k + 1, times mask; fine to coarse
//     blend_collapse  level k plus expanded level k + 1; coarse to fine
//     blend_finish    level 0 + frame, rounded once, into the frame
//
// Pyramids are linear, so the bands of D under the mask, added to the frame, are the blend of two pyramids at
// half the price, and a frame pixel that D does not reach keeps its bytes.
//
//     arena  `item_pixels` float4 per face: | level 0 | level 1 | level 2 | ...   each ceil(half) the size
//     items  int32 (n, 10): frame, face box, window, levels
//     thread (x, y, z)  ->  pixel (x, y) of face z's level; threads beyond the level, and levels beyond the
//                           item's own, do nothing, so one launch serves windows of many sizes
//
// Windows of one frame must not overlap within a launch. Reference: dubstream.kernels.blend (multiband, face_mask).
// Launcher: dubstream.kernels.launchers.
#include "pixels.cuh"
#include "blend.cuh"
#include "face_mask.cuh"

// The source samples along one axis that make one target sample, and what they weigh.
struct Span {
    int first, count;
    float first_weight, middle_weight, last_weight;  // area averages
    float cubic[4];                                  // cubic interpolation
};

// Area average: target pixel `position` covers source positions [from, to); cut samples count in part.
__device__ inline Span area_span(int position, int target, int source) {
    double scale = 1.0 / (static_cast<double>(target) / source);
    double from = position * scale, to = from + scale;
    double width = scale < source - from ? scale : source - from;
    int full_from = static_cast<int>(ceil(from)), full_to = static_cast<int>(floor(to));
    full_to = full_to < source - 1 ? full_to : source - 1;
    full_from = full_from < full_to ? full_from : full_to;
    Span span = {full_from, full_to - full_from, 0.0f, static_cast<float>(1.0 / width), 0.0f, {0, 0, 0, 0}};
    if (full_from - from > 1e-3) {
        span.first = full_from - 1;
        span.count += 1;
        span.first_weight = static_cast<float>((full_from - from) / width);
    } else {
        span.first_weight = span.middle_weight;
    }
    span.last_weight = span.middle_weight;
    if (to - full_to > 1e-3) {
        double rest = to - full_to < 1.0 ? to - full_to : 1.0;
        if (span.count == 0) span.first_weight = static_cast<float>((rest < width ? rest : width) / width);
        span.last_weight = static_cast<float>((rest < width ? rest : width) / width);
        span.count += 1;
    }
    return span;
}

// Cubic convolution with A = -0.75 over four samples, as OpenCV's INTER_CUBIC.
__device__ inline Span cubic_span(int position, int target, int source) {
    const float A = -0.75f;
    double scale = 1.0 / (static_cast<double>(target) / source);
    float at = static_cast<float>((position + 0.5) * scale - 0.5);
    int low = static_cast<int>(floorf(at));
    float x = at - static_cast<float>(low), y = 1.0f - x;
    Span span = {low - 1, 4, 0.0f, 0.0f, 0.0f, {0, 0, 0, 0}};
    span.cubic[0] = ((A * (x + 1.0f) - 5.0f * A) * (x + 1.0f) + 8.0f * A) * (x + 1.0f) - 4.0f * A;
    span.cubic[1] = ((A + 2.0f) * x - (A + 3.0f)) * x * x + 1.0f;
    span.cubic[2] = ((A + 2.0f) * y - (A + 3.0f)) * y * y + 1.0f;
    span.cubic[3] = 1.0f - span.cubic[0] - span.cubic[1] - span.cubic[2];
    return span;
}

__device__ inline float span_weight(const Span& span, bool cubic, int index) {
    if (cubic) return span.cubic[index];
    if (index == 0) return span.first_weight;
    return index == span.count - 1 ? span.last_weight : span.middle_weight;
}

// One plane of the face, clamped to [0, 1], at a place of the box, in levels 0..255.
__device__ inline float face_level(const float* plane, int width, int height, bool cubic, const Span& across,
                                   const Span& down) {
    float sum = 0.0f;
    for (int j = 0; j < down.count; ++j) {
        const float* row = plane + static_cast<long long>(clamp_int(down.first + j, 0, height - 1)) * width;
        float line = 0.0f;
        for (int i = 0; i < across.count; ++i) {
            float value = row[clamp_int(across.first + i, 0, width - 1)];
            value = value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;  // not a number: black
            line += span_weight(across, cubic, i) * (value * 255.0f);
        }
        sum += span_weight(down, cubic, j) * line;
    }
    return sum < 0.0f ? 0.0f : sum > 255.0f ? 255.0f : sum;
}

// Distances are fractions of the face box; see FaceMaskShape.
extern "C" __global__ void blend_start(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                       const int* __restrict__ items, const float* __restrict__ enhanced,
                                       int face_width, int face_height, float top, float top_feather, float side,
                                       float side_feather, float bottom, float bottom_feather,
                                       float4* __restrict__ arena, long long item_pixels) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Level level = level_of(arena, item_pixels, item, z, 0);
    if (x >= level.width || y >= level.height) return;
    int box_width = item.box_x2 - item.box_x1, box_height = item.box_y2 - item.box_y1;
    int box_x = item.x1 + x - item.box_x1, box_y = item.y1 + y - item.box_y1;
    float4 value = {0.0f, 0.0f, 0.0f, 0.0f};
    if (box_x >= 0 && box_y >= 0 && box_x < box_width && box_y < box_height) {
        const MaskShape shape = {top, top_feather, side, side_feather, bottom, bottom_feather};
        value.w = mask_in_box(box_x, box_y, box_width, box_height, shape);

        bool cubic = box_width > face_width || box_height > face_height;
        Span columns = cubic ? cubic_span(box_x, box_width, face_width) : area_span(box_x, box_width, face_width);
        Span rows = cubic ? cubic_span(box_y, box_height, face_height) : area_span(box_y, box_height, face_height);
        long long plane_pixels = static_cast<long long>(face_width) * face_height;
        const float* plane = enhanced + 3 * plane_pixels * z;
        const u8* pixel = frames + frame_offset(item.frame, frame_bytes, item.y1 + y, pitch_bytes, item.x1 + x);
        value.x = face_level(plane, face_width, face_height, cubic, columns, rows) - pixel[0];
        value.y = face_level(plane + plane_pixels, face_width, face_height, cubic, columns, rows) - pixel[1];
        value.z = face_level(plane + 2 * plane_pixels, face_width, face_height, cubic, columns, rows) - pixel[2];
    }
    level.pixels[static_cast<long long>(y) * level.width + x] = value;
}

// Index mirrored at both ends without repeating the edge: -2 -1 | 0 1 2  ->  2 1 | 0 1 2.
__device__ inline int mirror(int index, int size) {
    if (size == 1) return 0;
    while (index < 0 || index >= size) index = index < 0 ? -index : 2 * size - 2 - index;
    return index;
}

__device__ inline void add_scaled(float4& sum, const float4& value, float scale) {
    sum.x += scale * value.x;
    sum.y += scale * value.y;
    sum.z += scale * value.z;
    sum.w += scale * value.w;
}

// Binomial 1 4 6 4 1 on both axes, every second pixel. Thread (x, y, z): pixel (x, y) of the coarser level.
extern "C" __global__ void blend_reduce(const int* __restrict__ items, float4* __restrict__ arena,
                                        long long item_pixels, int level) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    if (level + 1 >= item.levels) return;
    Level fine = level_of(arena, item_pixels, item, z, level);
    Level coarse = level_of(arena, item_pixels, item, z, level + 1);
    if (x >= coarse.width || y >= coarse.height) return;
    const float taps[5] = {1.0f / 16, 4.0f / 16, 6.0f / 16, 4.0f / 16, 1.0f / 16};
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int j = 0; j < 5; ++j) {
        const float4* row = fine.pixels + static_cast<long long>(mirror(2 * y + j - 2, fine.height)) * fine.width;
        for (int i = 0; i < 5; ++i) add_scaled(sum, row[mirror(2 * x + i - 2, fine.width)], taps[j] * taps[i]);
    }
    coarse.pixels[static_cast<long long>(y) * coarse.width + x] = sum;
}

// One axis of the expansion: even positions weigh 1 6 1 over three samples, odd ones 1 1 over two.
struct Expansion {
    int index[3];
    float weight[3];
};

__device__ inline Expansion expansion(int position, int coarse_size) {
    int here = position / 2, after = here + 1 < coarse_size ? here + 1 : coarse_size - 1;
    if (position & 1) return Expansion{{here, here, after}, {0.0f, 0.5f, 0.5f}};
    return Expansion{{mirror(here - 1, coarse_size), here, after}, {0.125f, 0.75f, 0.125f}};
}

// The coarser level at a pixel of the finer one.
__device__ inline float4 expanded(const Level& coarse, int x, int y) {
    Expansion across = expansion(x, coarse.width), down = expansion(y, coarse.height);
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int j = 0; j < 3; ++j) {
        const float4* row = coarse.pixels + static_cast<long long>(down.index[j]) * coarse.width;
        for (int i = 0; i < 3; ++i) add_scaled(sum, row[across.index[i]], down.weight[j] * across.weight[i]);
    }
    return sum;
}

extern "C" __global__ void blend_band(const int* __restrict__ items, float4* __restrict__ arena,
                                      long long item_pixels, int level) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    if (level >= item.levels) return;
    Level fine = level_of(arena, item_pixels, item, z, level);
    if (x >= fine.width || y >= fine.height) return;
    float4& pixel = fine.pixels[static_cast<long long>(y) * fine.width + x];
    float4 low = {0.0f, 0.0f, 0.0f, 0.0f};
    if (level + 1 < item.levels) low = expanded(level_of(arena, item_pixels, item, z, level + 1), x, y);
    pixel.x = (pixel.x - low.x) * pixel.w;
    pixel.y = (pixel.y - low.y) * pixel.w;
    pixel.z = (pixel.z - low.z) * pixel.w;
}

extern "C" __global__ void blend_collapse(const int* __restrict__ items, float4* __restrict__ arena,
                                          long long item_pixels, int level) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    if (level + 1 >= item.levels) return;
    Level fine = level_of(arena, item_pixels, item, z, level);
    if (x >= fine.width || y >= fine.height) return;
    float4 low = expanded(level_of(arena, item_pixels, item, z, level + 1), x, y);
    float4& pixel = fine.pixels[static_cast<long long>(y) * fine.width + x];
    pixel.x += low.x;
    pixel.y += low.y;
    pixel.z += low.z;
}

extern "C" __global__ void blend_finish(u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                        const int* __restrict__ items, float4* __restrict__ arena,
                                        long long item_pixels) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Level level = level_of(arena, item_pixels, item, z, 0);
    if (x >= level.width || y >= level.height) return;
    float4 change = level.pixels[static_cast<long long>(y) * level.width + x];
    u8* pixel = frames + frame_offset(item.frame, frame_bytes, item.y1 + y, pitch_bytes, item.x1 + x);
    pixel[0] = to_level(change.x + pixel[0]);
    pixel[1] = to_level(change.y + pixel[1]);
    pixel[2] = to_level(change.z + pixel[2]);
}
