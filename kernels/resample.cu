// Cut boxes or turned squares out of frames, many at once.
//
//     frames  N x H x W x 3 uint8, rows `pitch_bytes` apart, frames `frame_bytes` apart
//     items   one row each, in the order of the pictures that come out
//     out     items x out_height x out_width x 3 uint8, packed
//
//     thread (x, y, z)  ->  pixel (x, y) of picture z, all three channels
//
// Reference: dubstream.kernels.resample (crop_resize, warp_affine). Launcher: dubstream.kernels.launchers.
#include "pixels.cuh"

// items: int32 (n, 5): frame, x1, y1, x2, y2.
extern "C" __global__ void crop_resize(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                       int frame_width, int frame_height, const int* __restrict__ items,
                                       u8* __restrict__ out, int out_width, int out_height) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= out_width || y >= out_height) return;
    BoxTap tap = box_tap(frames, frame_bytes, pitch_bytes, frame_width, frame_height, items + 5 * z, x, y, out_width,
                         out_height);
    u8* pixel = out + 3 * ((static_cast<long long>(z) * out_height + y) * out_width + x);
    for (int c = 0; c < 3; ++c) pixel[c] = sample_box(tap, c);
}

// One channel of a frame, or the border's colour outside it.
__device__ inline int frame_or_border(const u8* frame, int pitch_bytes, int width, int height, int x, int y,
                                      int channel, int border) {
    if (x < 0 || y < 0 || x >= width || y >= height) return border;
    return frame[static_cast<long long>(y) * pitch_bytes + 3 * x + channel];
}

// frame_of: int32 (n). maps: float64 (n, 6), row-major 2x3, from a pixel of the picture to one of the frame.
extern "C" __global__ void warp_affine(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                       int frame_width, int frame_height, const int* __restrict__ frame_of,
                                       const double* __restrict__ maps, u8* __restrict__ out, int out_width,
                                       int out_height, int border_blue, int border_green, int border_red) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= out_width || y >= out_height) return;
    const double* map = maps + 6 * z;
    int fine_x = fine_position(map[0], map[1], map[2], x, y), left = fine_x >> 5, right_weight = fine_x & 31;
    int fine_y = fine_position(map[3], map[4], map[5], x, y), above = fine_y >> 5, low_weight = fine_y & 31;
    const u8* frame = frames + frame_of[z] * frame_bytes;
    const int border[3] = {border_blue, border_green, border_red};
    u8* pixel = out + 3 * ((static_cast<long long>(z) * out_height + y) * out_width + x);
    for (int c = 0; c < 3; ++c) {
        int sum = 0;
        for (int corner = 0; corner < 4; ++corner) {
            int dx = corner & 1, dy = corner >> 1;
            int weight = (dx ? right_weight : 32 - right_weight) * (dy ? low_weight : 32 - low_weight);
            sum += weight * frame_or_border(frame, pitch_bytes, frame_width, frame_height, left + dx, above + dy, c,
                                            border[c]);
        }
        pixel[c] = static_cast<u8>((sum + 512) >> 10);
    }
}
