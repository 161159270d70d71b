// The face a parser and a restorer are shown: frame plus masked difference, sampled into 512 x 512.
//
//     frame ------------------------------- sampled --+
//     level 0 of the blend's arena, D * m -- sampled --+ added --> aligned, n x 512 x 512
//
//     finish_plan    once per face: where every later kernel samples; clears the records
//     check_faces    marks faces whose planes hold a value that is no finite number
//     align_planes   float32 RGB planes in [-1, 1]          (align_pictures: uint8 BGR)
//
// Sampling is linear, so frame and change are sampled apart and added. The arena is as blend_start leaves it with
// the mask under which the face goes into the frame; beyond its window the change is 0. A value that is no number
// is black there; the record remembers it.
//
//     items       int32 (n, 10): frame, face box, window, levels, as the blend's
//     to_aligned  float64 (n, 2, 3): from a pixel of the frame to one of the aligned face
//     thread (x, y, z)  ->  pixel (x, y) of face z
//
// Reference: dubstream.kernels.finish (align_dubbed), face_align. Launcher: dubstream.kernels.finish_launchers.
#include "pixels.cuh"
#include "blend.cuh"
#include "sampling.cuh"
#include "finish.cuh"

// The part of the frame in which the reference forms the change: box and one pixel around, inside the frame.
__device__ inline Extent change_window(const Item& item, int frame_width, int frame_height) {
    return Extent{clamp_int(item.box_x1 - 1, 0, frame_width), clamp_int(item.box_y1 - 1, 0, frame_height),
                  clamp_int(item.box_x2 + 1, 0, frame_width), clamp_int(item.box_y2 + 1, 0, frame_height)};
}

// Thread (x, 0, 0): face x.
extern "C" __global__ void finish_plan(const int* __restrict__ items, const double* __restrict__ to_aligned, int count,
                                       int frame_width, int frame_height, FinishState* __restrict__ states) {
    int z = thread_x();
    if (z >= count || thread_y() > 0) return;
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    const Affine& forward = reinterpret_cast<const Affine*>(to_aligned)[z];
    FinishState& state = states[z];
    Affine back = inverse(forward);
    state.frame = sampling_of(back, ALIGNED, ALIGNED, frame_width, frame_height);
    Extent window = change_window(item, frame_width, frame_height);
    back.x0 -= window.left;
    back.y0 -= window.top;
    state.change =
        sampling_of(back, ALIGNED, ALIGNED, window.right - window.left, window.bottom - window.top);
    state.change.left += window.left - item.x1;
    state.change.top += window.top - item.y1;
    Affine to_mask = in_blocks(from_corner(forward, item.x1, item.y1), 0.0, 0.0, MASK_STEP);
    state.mask = sampling_of(to_mask, item.x2 - item.x1, item.y2 - item.y1, MASK_SIDE, MASK_SIDE);
    state.broken = 0;
}

// Thread (x, y, z): pixel (x, y) of the three planes of face z.
extern "C" __global__ void check_faces(const float* __restrict__ enhanced, int width, int height,
                                       FinishState* __restrict__ states) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= width || y >= height) return;
    for (int c = 0; c < 3; ++c)
        if (!is_finite(enhanced[((3LL * z + c) * height + y) * width + x])) states[z].broken = 1;
}

// The source.
struct FramePicture {
    const u8* frame;
    int pitch_bytes;
};

__device__ inline float4 pixel_of(const FramePicture& picture, int x, int y) {
    const u8* pixel = picture.frame + frame_offset(0, 0, y, picture.pitch_bytes, x);
    return float4{static_cast<float>(pixel[0]), static_cast<float>(pixel[1]), static_cast<float>(pixel[2]), 0.0f};
}

// Averages of bytes are bytes; those of 2 x 2 round halves up, others to even.
__device__ inline float level_mean(float sum, int across, int down) {
    if (across == 2 && down == 2) return floorf((sum + 2.0f) * 0.25f);
    return rintf(sum * (1.0f / static_cast<float>(across * down)));
}

__device__ inline float4 mean_of(const FramePicture&, const float4& sum, int across, int down) {
    return float4{level_mean(sum.x, across, down), level_mean(sum.y, across, down), level_mean(sum.z, across, down),
                  0.0f};
}

// What the face changes under its mask; pixels are counted from the window of the arena and may lie outside it.
struct ChangePicture {
    Level level;
};

__device__ inline float4 pixel_of(const ChangePicture& picture, int x, int y) {
    const Level& level = picture.level;
    if (x < 0 || y < 0 || x >= level.width || y >= level.height) return float4{0.0f, 0.0f, 0.0f, 0.0f};
    float4 value = level.pixels[static_cast<long long>(y) * level.width + x];
    return float4{value.x * value.w, value.y * value.w, value.z * value.w, 0.0f};
}

__device__ inline float4 mean_of(const ChangePicture&, const float4& sum, int across, int down) {
    return float_mean(sum, across, down);
}

__device__ inline float add_levels(float source, float change) {
    float level = floorf(source + 0.5f) + change;
    return level < 0.0f ? 0.0f : level > 255.0f ? 255.0f : level;
}

// Blue, green and red of a pixel of the aligned face, in levels 0..255.
__device__ inline float4 aligned_pixel(const u8* frames, long long frame_bytes, int pitch_bytes, const Item& item,
                                       const Level& level, const FinishState& state, int x, int y) {
    const float4 mean_picture = {135.0f, 133.0f, 132.0f, 0.0f}, nothing = {0.0f, 0.0f, 0.0f, 0.0f};
    FramePicture frame = {frames + item.frame * frame_bytes, pitch_bytes};
    float4 source = sampled(state.frame, x, y, frame, mean_picture);
    float4 change = sampled(state.change, x, y, ChangePicture{level}, nothing);
    return float4{add_levels(source.x, change.x), add_levels(source.y, change.y), add_levels(source.z, change.z), 0.0f};
}

extern "C" __global__ void align_planes(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                        const int* __restrict__ items, float4* __restrict__ arena,
                                        long long item_pixels, const FinishState* __restrict__ states,
                                        float* __restrict__ aligned) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= ALIGNED || y >= ALIGNED) return;
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Level level = level_of(arena, item_pixels, item, z, 0);
    float4 pixel = aligned_pixel(frames, frame_bytes, pitch_bytes, item, level, states[z], x, y);
    const float values[3] = {pixel.z, pixel.y, pixel.x};
    for (int c = 0; c < 3; ++c)
        aligned[((3LL * z + c) * ALIGNED + y) * ALIGNED + x] = values[c] * (2.0f / 255.0f) - 1.0f;
}

extern "C" __global__ void align_pictures(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                          const int* __restrict__ items, float4* __restrict__ arena,
                                          long long item_pixels, const FinishState* __restrict__ states,
                                          u8* __restrict__ aligned) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= ALIGNED || y >= ALIGNED) return;
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Level level = level_of(arena, item_pixels, item, z, 0);
    float4 pixel = aligned_pixel(frames, frame_bytes, pitch_bytes, item, level, states[z], x, y);
    u8* out = aligned + 3 * ((static_cast<long long>(z) * ALIGNED + y) * ALIGNED + x);
    out[0] = to_level(pixel.x);
    out[1] = to_level(pixel.y);
    out[2] = to_level(pixel.z);
}
