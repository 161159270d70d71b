// What moves brows and eyes of a frame: the network's view of a face, and what it changed put back.
//
//     frame[face box] -- 384 x 384, middle of every 3 x 3 --> planes n x 3 x 128 x 128, -1..1   (upper_face_planes)
//
//     after - before -- enlarged to the box, x strength, x mask of its upper half --> added to the frame
//                                                                (change_by_planes, change_by_pictures)
//
// Networks that take uint8 pictures see those of `crop_resize`. A frame pixel under no mask keeps its byte, and
// one whose change is no number too; `finite` tells which faces have such.
//
//     items  int32 (n, 5): frame, face box inside it
//     thread (x, y, z)  ->  pixel (x, y) of plane or box z, all three channels
//
// Reference: dubstream.kernels.upper_face. Launcher: dubstream.kernels.launchers.
#include "pixels.cuh"
#include "face_mask.cuh"

#define FACE_SIDE 384
#define SEEN_SIDE 128

// finite: uint8 (n), set to 1 for `change_by_planes` behind it to clear.
extern "C" __global__ void upper_face_planes(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                             int frame_width, int frame_height, const int* __restrict__ items,
                                             float* __restrict__ out, u8* __restrict__ finite) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= SEEN_SIDE || y >= SEEN_SIDE) return;
    if (x == 0 && y == 0) finite[z] = 1;
    const int step = FACE_SIDE / SEEN_SIDE;
    BoxTap tap = box_tap(frames, frame_bytes, pitch_bytes, frame_width, frame_height, items + 5 * z,
                         step * x + step / 2, step * y + step / 2, FACE_SIDE, FACE_SIDE);
    for (int c = 0; c < 3; ++c) {
        float level = static_cast<float>(sample_box(tap, c));
        out[((z * 3LL + c) * SEEN_SIDE + y) * SEEN_SIDE + x] = level / 255.0f * 2.0f - 1.0f;
    }
}

// A network's input and output.
struct Planes {
    const float *before, *after;  // 3 x side x side, -1..1
    int side;
};

struct Pictures {
    const u8 *before, *after;  // side x side x 3
    int side;
};

// What the network changed at a pixel, in levels.
__device__ inline float changed(const Planes& face, int x, int y, int channel) {
    long long place = (static_cast<long long>(channel) * face.side + y) * face.side + x;
    return (face.after[place] - face.before[place]) * 127.5f;
}

__device__ inline float changed(const Pictures& face, int x, int y, int channel) {
    long long place = 3 * (static_cast<long long>(y) * face.side + x) + channel;
    return static_cast<float>(face.after[place]) - static_cast<float>(face.before[place]);
}

// One axis of a bilinear resize of floats: beyond the outer samples' middles the outer sample alone.
struct FloatTap {
    int low, high;
    float part;  // of the higher sample
};

__device__ inline FloatTap float_tap(int position, int target, int source) {
    double scale = 1.0 / (static_cast<double>(target) / source);
    float at = static_cast<float>((position + 0.5) * scale - 0.5);
    int low = static_cast<int>(floorf(at));
    if (low < 0) return FloatTap{0, 0, 0.0f};
    if (low >= source - 1) return FloatTap{source - 1, source - 1, 0.0f};
    return FloatTap{low, low + 1, at - static_cast<float>(low)};
}

template <class Face>
__device__ inline float enlarged(const Face& face, const FloatTap& across, const FloatTap& down, int channel) {
    float upper = changed(face, across.low, down.low, channel) * (1.0f - across.part) +
                  changed(face, across.high, down.low, channel) * across.part;
    float lower = changed(face, across.low, down.high, channel) * (1.0f - across.part) +
                  changed(face, across.high, down.high, channel) * across.part;
    return upper * (1.0f - down.part) + lower * down.part;
}

// Whether all of it could be added to pixel (x, y) of the box.
template <class Face>
__device__ inline bool add_change(u8* frames, long long frame_bytes, int pitch_bytes, const int* item, int x, int y,
                                  const Face& face, float strength, const MaskShape& shape) {
    int width = item[3] - item[1], height = item[4] - item[2];
    float weight = mask_in_box(x, y, width, height, shape) * strength;
    if (weight == 0.0f) return true;
    FloatTap across = float_tap(x, width, face.side), down = float_tap(y, height, face.side);
    u8* pixel = frames + frame_offset(item[0], frame_bytes, item[2] + y, pitch_bytes, item[1] + x);
    bool finite = true;
    for (int c = 0; c < 3; ++c) {
        float levels = enlarged(face, across, down, c);
        if (levels - levels == 0.0f)
            pixel[c] = to_level(levels * weight + static_cast<float>(pixel[c]));
        else
            finite = false;
    }
    return finite;
}

extern "C" __global__ void change_by_planes(u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                            const int* __restrict__ items, const float* __restrict__ before,
                                            const float* __restrict__ after, int side, float strength, float top,
                                            float top_feather, float side_edge, float side_feather, float bottom,
                                            float bottom_feather, u8* __restrict__ finite) {
    int z = thread_z();
    long long first = 3LL * side * side * z;
    const Planes face = {before + first, after + first, side};
    const MaskShape shape = {top, top_feather, side_edge, side_feather, bottom, bottom_feather};
    // Threads that find something all write the same.
    if (!add_change(frames, frame_bytes, pitch_bytes, items + 5 * z, thread_x(), thread_y(), face, strength, shape))
        finite[z] = 0;
}

extern "C" __global__ void change_by_pictures(u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                              const int* __restrict__ items, const u8* __restrict__ before,
                                              const u8* __restrict__ after, int side, float strength, float top,
                                              float top_feather, float side_edge, float side_feather, float bottom,
                                              float bottom_feather) {
    int z = thread_z();
    long long first = 3LL * side * side * z;
    const Pictures face = {before + first, after + first, side};
    const MaskShape shape = {top, top_feather, side_edge, side_feather, bottom, bottom_feather};
    add_change(frames, frame_bytes, pitch_bytes, items + 5 * z, thread_x(), thread_y(), face, strength, shape);
}
