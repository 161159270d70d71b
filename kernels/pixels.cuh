// What several kernels share: thread positions, clamping, and OpenCV's bilinear rule for uint8 pictures.
#pragma once

#ifdef DUBSTREAM_ON_CPU
#include "cpu_launch.h"
#endif

typedef unsigned char u8;

__device__ inline int thread_x() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ inline int thread_y() { return static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y); }
__device__ inline int thread_z() { return static_cast<int>(blockIdx.z * blockDim.z + threadIdx.z); }

__device__ inline int clamp_int(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

// The nearest level of a value in levels, halves to even, as numpy's rint.
__device__ inline u8 to_level(float value) {
    float nearest = rintf(value);
    return static_cast<u8>(nearest < 0.0f ? 0.0f : nearest > 255.0f ? 255.0f : nearest);
}

// First byte of pixel (x, y) of frame `frame` in a stack of frames.
__device__ inline long long frame_offset(int frame, long long frame_bytes, int y, int pitch_bytes, int x) {
    return frame * frame_bytes + static_cast<long long>(y) * pitch_bytes + 3LL * x;
}

// One axis of a bilinear resize: the two samples and their weights in 1/2048.
//
//     source   |  low  |  high |        position + 0.5 in target pixels maps to
//     target       ^ position           (position + 0.5) * source / target in source pixels
struct Tap {
    int low, high, weight_low, weight_high;
};

// Rounded step by step as OpenCV's INTER_LINEAR does it, so that equal bytes come out.
__device__ inline Tap bilinear_tap(int position, int target, int source) {
    double scale = 1.0 / (static_cast<double>(target) / source);
    float at = static_cast<float>((position + 0.5) * scale - 0.5);
    int low = static_cast<int>(floorf(at));
    float part = at - static_cast<float>(low);
    Tap tap;
    tap.low = clamp_int(low, 0, source - 1);
    tap.high = clamp_int(low + 1, 0, source - 1);
    tap.weight_low = static_cast<int>(rintf((1.0f - part) * 2048.0f));
    tap.weight_high = static_cast<int>(rintf(part * 2048.0f));
    return tap;
}

// Four neighbours under two taps; the shifts are OpenCV's, and drop the same bits.
__device__ inline u8 mix_bilinear(int p00, int p01, int p10, int p11, Tap across, Tap down) {
    int upper = p00 * across.weight_low + p01 * across.weight_high;
    int lower = p10 * across.weight_low + p11 * across.weight_high;
    int upper_part = (down.weight_low * (upper >> 4)) >> 16;
    int lower_part = (down.weight_high * (lower >> 4)) >> 16;
    return static_cast<u8>((upper_part + lower_part + 2) >> 2);
}

// One channel of a packed (height, width, 3) picture at the place the taps name.
__device__ inline u8 sample_picture(const u8* picture, int width, int channel, Tap across, Tap down) {
    const u8* upper = picture + 3LL * down.low * width + channel;
    const u8* lower = picture + 3LL * down.high * width + channel;
    return mix_bilinear(upper[3 * across.low], upper[3 * across.high], lower[3 * across.low],
                        lower[3 * across.high], across, down);
}

// Where one pixel of a resized box comes from. A box that leaves its frame repeats the frame's edge.
struct BoxTap {
    const u8 *upper, *lower;  // rows
    int left, right;
    Tap across, down;
};

// item: frame, x1, y1, x2, y2. Pixel (x, y) of the box at width x height.
__device__ inline BoxTap box_tap(const u8* frames, long long frame_bytes, int pitch_bytes, int frame_width,
                                 int frame_height, const int* item, int x, int y, int width, int height) {
    BoxTap tap;
    tap.across = bilinear_tap(x, width, item[3] - item[1]);
    tap.down = bilinear_tap(y, height, item[4] - item[2]);
    tap.left = clamp_int(item[1] + tap.across.low, 0, frame_width - 1);
    tap.right = clamp_int(item[1] + tap.across.high, 0, frame_width - 1);
    int above = clamp_int(item[2] + tap.down.low, 0, frame_height - 1);
    int below = clamp_int(item[2] + tap.down.high, 0, frame_height - 1);
    tap.upper = frames + frame_offset(item[0], frame_bytes, above, pitch_bytes, 0);
    tap.lower = frames + frame_offset(item[0], frame_bytes, below, pitch_bytes, 0);
    return tap;
}

__device__ inline u8 sample_box(const BoxTap& tap, int channel) {
    return mix_bilinear(tap.upper[3 * tap.left + channel], tap.upper[3 * tap.right + channel],
                        tap.lower[3 * tap.left + channel], tap.lower[3 * tap.right + channel], tap.across, tap.down);
}

// Position of an affine map in 1/32 pixel, from products rounded to 1/1024: OpenCV's rule.
__device__ inline int fine_position(double by_x, double by_y, double offset, int x, int y) {
    int along_x = static_cast<int>(rint(by_x * x * 1024.0));
    int along_y = static_cast<int>(rint((by_y * y + offset) * 1024.0));
    return (along_y + 16 + along_x) >> 5;
}
