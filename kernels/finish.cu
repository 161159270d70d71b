// Finish a dubbed frame between blend_start and blend_reduce, on level 0 of the blend's arena (D, m):
//
//     D  + restored minus aligned, under the mouth's mask     mouth_bounds, mouth_columns, mouth_plan, mouth_planes
//     m  * the face's mask                                    mask_face
//     D  * gains that match the colours along m's edge        seam_sums, seam_columns, seam_gains, seam_apply
//
// and after blend_finish    finish_broken: faces with a value that is no finite number black, for all to see
//
// Sums over a window are taken in three steps, always in the same order, so that they come out the same on every
// run and every GPU, and without floating-point atomics:
//
//     128 x 32 threads, each every 128th column and 32nd row --> 128 threads, each 32 sums --> 1 thread
//     partials   n x (32 + 1) x 128
//
//     items, arena       as the blend's (blend.cu)
//     thread (x, y, z)  ->  pixel (x, y) of face z's window, where nothing else is said
//
// Reference: dubstream.kernels.finish (finish_face), parse_mask (mask_in_window), restore_paste, colour_match.
// Launcher: dubstream.kernels.finish_launchers.
#include "pixels.cuh"
#include "blend.cuh"
#include "sampling.cuh"
#include "finish.cuh"

#define ACROSS 128
#define DOWN 32
#define PARTIALS (ACROSS * (DOWN + 1))

enum { FACE_MASK, MOUTH_MASK };

__device__ inline Extent joined(const Extent& a, const Extent& b) {
    if (a.right <= a.left) return b;
    if (b.right <= b.left) return a;
    return Extent{a.left < b.left ? a.left : b.left, a.top < b.top ? a.top : b.top,
                  a.right > b.right ? a.right : b.right, a.bottom > b.bottom ? a.bottom : b.bottom};
}

// Thread (x, y, z): part (x, y) of face z's window.
extern "C" __global__ void mouth_bounds(const int* __restrict__ items, const float* __restrict__ masks,
                                        const FinishState* __restrict__ states, Extent* __restrict__ partials) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= ACROSS || y >= DOWN) return;
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Extent found = {0, 0, 0, 0};
    for (int row = y; row < item.y2 - item.y1; row += DOWN)
        for (int column = x; column < item.x2 - item.x1; column += ACROSS)
            if (mask_at(masks, z, MOUTH_MASK, states[z], column, row) > 0.0f)
                found = joined(found, Extent{column, row, column + 1, row + 1});
    partials[1LL * z * PARTIALS + y * ACROSS + x] = found;
}

// Thread (x, 0, z): column x of face z's parts.
extern "C" __global__ void mouth_columns(Extent* __restrict__ partials) {
    int x = thread_x(), z = thread_z();
    if (x >= ACROSS || thread_y() > 0) return;
    Extent* column = partials + 1LL * z * PARTIALS + x;
    Extent found = column[0];
    for (int j = 1; j < DOWN; ++j) found = joined(found, column[j * ACROSS]);
    column[DOWN * ACROSS] = found;
}

// Thread (0, 0, z): where face z's mouth is, and how the aligned face is sampled there.
extern "C" __global__ void mouth_plan(const int* __restrict__ items, const double* __restrict__ to_aligned,
                                      const Extent* __restrict__ partials, FinishState* __restrict__ states) {
    int z = thread_z();
    if (thread_x() > 0 || thread_y() > 0) return;
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    const Extent* columns = partials + 1LL * z * PARTIALS + DOWN * ACROSS;
    Extent mouth = columns[0];
    for (int i = 1; i < ACROSS; ++i) mouth = joined(mouth, columns[i]);
    FinishState& state = states[z];
    state.mouth = mouth;
    if (mouth.right <= mouth.left) return;
    int width = mouth.right - mouth.left, height = mouth.bottom - mouth.top;
    Affine map = from_corner(reinterpret_cast<const Affine*>(to_aligned)[z], item.x1 + mouth.left, item.y1 + mouth.top);
    // The reference cuts the part that is looked at out first, and its blocks begin there.
    Extent seen = extent(map, width, height);
    int spare = 2 * reduction(map) + 2;
    int left = clamp_int(seen.left - spare, 0, ALIGNED - 1), top = clamp_int(seen.top - spare, 0, ALIGNED - 1);
    int right = clamp_int(seen.right + spare, left + 1, ALIGNED);
    int bottom = clamp_int(seen.bottom + spare, top + 1, ALIGNED);
    map.x0 -= left;
    map.y0 -= top;
    state.restored = sampling_of(map, width, height, right - left, bottom - top);
    state.restored.left += left;
    state.restored.top += top;
}

// Restored minus aligned, blue, green and red in levels. Marks values that are no finite numbers; they are black.
struct RestoredPlanes {
    const float *restored, *aligned;  // 3 x 512 x 512, RGB in [-1, 1]
    int* broken;
};

__device__ inline float restored_level(const RestoredPlanes& planes, int at) {
    float value = planes.restored[at];
    if (!is_finite(value)) *planes.broken = 1;
    value = value > -1.0f ? (value < 1.0f ? value : 1.0f) : -1.0f;
    return (value - planes.aligned[at]) * 127.5f;
}

__device__ inline float4 pixel_of(const RestoredPlanes& planes, int x, int y) {
    int at = y * ALIGNED + x;
    return float4{restored_level(planes, at + 2 * ALIGNED * ALIGNED), restored_level(planes, at + ALIGNED * ALIGNED),
                  restored_level(planes, at), 0.0f};
}

__device__ inline float4 mean_of(const RestoredPlanes&, const float4& sum, int across, int down) {
    return float_mean(sum, across, down);
}

struct RestoredPictures {
    const u8 *restored, *aligned;  // 512 x 512 x 3, BGR
};

__device__ inline float4 pixel_of(const RestoredPictures& pictures, int x, int y) {
    const u8 *after = pictures.restored + 3 * (y * ALIGNED + x), *before = pictures.aligned + 3 * (y * ALIGNED + x);
    return float4{static_cast<float>(after[0] - before[0]), static_cast<float>(after[1] - before[1]),
                  static_cast<float>(after[2] - before[2]), 0.0f};
}

__device__ inline float4 mean_of(const RestoredPictures&, const float4& sum, int across, int down) {
    return float_mean(sum, across, down);
}

// Adds the change at pixel (x, y) of the mouth's bounds.
template <class Picture>
__device__ inline void add_mouth(const Level& level, const float* masks, int z, const FinishState& state, int x, int y,
                                 const Picture& picture) {
    int column = state.mouth.left + x, row = state.mouth.top + y;
    if (column >= state.mouth.right || row >= state.mouth.bottom) return;
    float share = mask_at(masks, z, MOUTH_MASK, state, column, row);
    if (share == 0.0f) return;
    float4 change = sampled(state.restored, x, y, picture, float4{0.0f, 0.0f, 0.0f, 0.0f});
    float4& pixel = level.pixels[1LL * row * level.width + column];
    pixel.x += change.x * share;
    pixel.y += change.y * share;
    pixel.z += change.z * share;
}

// Thread (x, y, z): pixel (x, y) of the bounds of face z's mouth.
extern "C" __global__ void mouth_planes(const int* __restrict__ items, const float* __restrict__ masks,
                                        const float* __restrict__ restored, const float* __restrict__ aligned,
                                        FinishState* __restrict__ states, float4* __restrict__ arena,
                                        long long item_pixels) {
    int z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    long long first = 3LL * z * ALIGNED * ALIGNED;
    RestoredPlanes planes = {restored + first, aligned + first, &states[z].broken};
    add_mouth(level_of(arena, item_pixels, item, z, 0), masks, z, states[z], thread_x(), thread_y(), planes);
}

// The same from uint8 pictures.
extern "C" __global__ void mouth_pictures(const int* __restrict__ items, const float* __restrict__ masks,
                                          const u8* __restrict__ restored, const u8* __restrict__ aligned,
                                          const FinishState* __restrict__ states, float4* __restrict__ arena,
                                          long long item_pixels) {
    int z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    long long first = 3LL * z * ALIGNED * ALIGNED;
    RestoredPictures pictures = {restored + first, aligned + first};
    add_mouth(level_of(arena, item_pixels, item, z, 0), masks, z, states[z], thread_x(), thread_y(), pictures);
}

extern "C" __global__ void mask_face(const int* __restrict__ items, const float* __restrict__ masks,
                                     const FinishState* __restrict__ states, float4* __restrict__ arena,
                                     long long item_pixels) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Level level = level_of(arena, item_pixels, item, z, 0);
    if (x >= level.width || y >= level.height) return;
    level.pixels[1LL * y * level.width + x].w *= mask_at(masks, z, FACE_MASK, states[z], x, y);
}

// Sums along the edge of the mask, weighted with m (1 - m): blue, green, red.
struct Seam {
    double weight;
    double source[3], difference[3];
};

__device__ inline void add_seam(Seam& sum, const Seam& more) {
    sum.weight += more.weight;
    for (int c = 0; c < 3; ++c) {
        sum.source[c] += more.source[c];
        sum.difference[c] += more.difference[c];
    }
}

// Thread (x, y, z): part (x, y) of face z's window.
extern "C" __global__ void seam_sums(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                     const int* __restrict__ items, float4* __restrict__ arena, long long item_pixels,
                                     Seam* __restrict__ partials) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= ACROSS || y >= DOWN) return;
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    Level level = level_of(arena, item_pixels, item, z, 0);
    Seam sum = {0.0, {0.0, 0.0, 0.0}, {0.0, 0.0, 0.0}};
    for (int row = y; row < level.height; row += DOWN)
        for (int column = x; column < level.width; column += ACROSS) {
            float4 value = level.pixels[1LL * row * level.width + column];
            float weight = (1.0f - value.w) * value.w;
            const float difference[3] = {value.x, value.y, value.z};
            const u8* pixel =
                frames + frame_offset(item.frame, frame_bytes, item.y1 + row, pitch_bytes, item.x1 + column);
            sum.weight += weight;
            for (int c = 0; c < 3; ++c) {
                sum.source[c] += weight * static_cast<float>(pixel[c]);
                sum.difference[c] += weight * difference[c];
            }
        }
    partials[1LL * z * PARTIALS + y * ACROSS + x] = sum;
}

// Thread (x, 0, z): column x of face z's parts.
extern "C" __global__ void seam_columns(Seam* __restrict__ partials) {
    int x = thread_x(), z = thread_z();
    if (x >= ACROSS || thread_y() > 0) return;
    Seam* column = partials + 1LL * z * PARTIALS + x;
    Seam sum = column[0];
    for (int j = 1; j < DOWN; ++j) add_seam(sum, column[j * ACROSS]);
    column[DOWN * ACROSS] = sum;
}

// Thread (0, 0, z): the gains of face z. With less than `least` along the edge there is nothing to compare.
extern "C" __global__ void seam_gains(const Seam* __restrict__ partials, float least, float lowest, float highest,
                                      FinishState* __restrict__ states) {
    int z = thread_z();
    if (thread_x() > 0 || thread_y() > 0) return;
    const Seam* columns = partials + 1LL * z * PARTIALS + DOWN * ACROSS;
    Seam sum = columns[0];
    for (int i = 1; i < ACROSS; ++i) add_seam(sum, columns[i]);
    for (int c = 0; c < 3; ++c) {
        // One level on both sides: black on black is a gain of 1.
        double wanted = sum.source[c] / sum.weight + 1.0, found = wanted + sum.difference[c] / sum.weight;
        double gain = wanted / (found > 1.0 ? found : 1.0);
        gain = gain < lowest ? lowest : gain > highest ? highest : gain;
        states[z].gains[c] = sum.weight < least ? 1.0f : static_cast<float>(gain);
    }
}

extern "C" __global__ void seam_apply(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                      const int* __restrict__ items, const FinishState* __restrict__ states,
                                      float4* __restrict__ arena, long long item_pixels) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    const float* gains = states[z].gains;
    Level level = level_of(arena, item_pixels, item, z, 0);
    if (x >= level.width || y >= level.height) return;
    if (gains[0] == 1.0f && gains[1] == 1.0f && gains[2] == 1.0f) return;  // exactly as it was
    const u8* source = frames + frame_offset(item.frame, frame_bytes, item.y1 + y, pitch_bytes, item.x1 + x);
    float4& pixel = level.pixels[1LL * y * level.width + x];
    pixel.x = (pixel.x + source[0]) * gains[0] - source[0];
    pixel.y = (pixel.y + source[1]) * gains[1] - source[1];
    pixel.z = (pixel.z + source[2]) * gains[2] - source[2];
}

// No mask, nor what a parser makes of a black face, may hide that a network failed.
extern "C" __global__ void finish_broken(u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                         const int* __restrict__ items, const FinishState* __restrict__ states) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const Item& item = reinterpret_cast<const Item*>(items)[z];
    int column = item.x1 + x, row = item.y1 + y;
    if (!states[z].broken || column >= item.x2 || row >= item.y2) return;
    if (column < item.box_x1 || row < item.box_y1 || column >= item.box_x2 || row >= item.box_y2) return;
    u8* pixel = frames + frame_offset(item.frame, frame_bytes, row, pitch_bytes, column);
    pixel[0] = pixel[1] = pixel[2] = 0;
}
