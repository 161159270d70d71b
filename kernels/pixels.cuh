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
