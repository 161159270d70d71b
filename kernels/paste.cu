// Write pictures into boxes of frames.
//
//     pictures  n x h x w x 3 uint8, packed, one per item
//     items     int32 (n, 5): frame, x1, y1, x2, y2
//     thread (x, y, z)  ->  pixel (x1 + x, y1 + y) of item z's frame, if box and frame hold it
//
// Boxes of one frame must not overlap: their order is not defined.
//
// Reference: dubstream.kernels.paste. Launcher: dubstream.kernels.launchers.
#include "pixels.cuh"

extern "C" __global__ void paste(u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                 int frame_width, int frame_height, const int* __restrict__ items,
                                 const u8* __restrict__ pictures, int width, int height) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    const int* item = items + 5 * z;
    int box_width = item[3] - item[1], box_height = item[4] - item[2];
    int column = item[1] + x, row = item[2] + y;
    if (x >= box_width || y >= box_height) return;
    if (column < 0 || row < 0 || column >= frame_width || row >= frame_height) return;
    Tap across = bilinear_tap(x, box_width, width), down = bilinear_tap(y, box_height, height);
    const u8* picture = pictures + 3LL * width * height * z;
    u8* pixel = frames + frame_offset(item[0], frame_bytes, row, pitch_bytes, column);
    for (int c = 0; c < 3; ++c) pixel[c] = sample_picture(picture, width, c, across, down);
}
