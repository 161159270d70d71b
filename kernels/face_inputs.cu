// What the lip and the enhancement network see of a frame, for many faces at once.
//
//     frame[face box] ---------------------------> faces       n x 384 x 384 x 3, rows 192.. black
//     frame with reference pasted [face box] ----> references  n x 384 x 384 x 3      (face_pictures)
//
//     faces, references -- mean of 2x2 centres --> n x 6 x 96 x 96, 0..1              (lip_planes)
//     references --------------------------------> n x 3 x 384 x 384, 0..1            (picture_planes)
//
// The pasted frame never exists: a pixel of it is read from the frame, or made from the reference picture
// when it lies in the crop box. Networks that take uint8 pictures need the first kernel only.
//
// Reference: dubstream.kernels.face_inputs. Launcher: dubstream.kernels.launchers.
#include "pixels.cuh"

#define FACE 384
#define VISIBLE 192
#define REFERENCE 256
#define LIPS 96

struct Face {
    int frame;
    int crop_x1, crop_y1, crop_x2, crop_y2;
    int face_x1, face_y1, face_x2, face_y2;
};

// A pixel of the frame as it would be with the reference resized into the crop box.
__device__ inline u8 pasted_pixel(u8 source, const u8* reference, const Face& item, int x, int y, int channel) {
    if (x < item.crop_x1 || x >= item.crop_x2 || y < item.crop_y1 || y >= item.crop_y2) return source;
    Tap across = bilinear_tap(x - item.crop_x1, item.crop_x2 - item.crop_x1, REFERENCE);
    Tap down = bilinear_tap(y - item.crop_y1, item.crop_y2 - item.crop_y1, REFERENCE);
    return sample_picture(reference, REFERENCE, channel, across, down);
}

// items: int32 (n, 9): frame, crop box, face box. Thread (x, y, z): pixel (x, y) of both pictures of face z.
extern "C" __global__ void face_pictures(const u8* __restrict__ frames, long long frame_bytes, int pitch_bytes,
                                         int frame_width, int frame_height, const u8* __restrict__ stabilised,
                                         const int* __restrict__ items, u8* __restrict__ faces,
                                         u8* __restrict__ references) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= FACE || y >= FACE) return;
    const Face& item = reinterpret_cast<const Face*>(items)[z];
    const u8* reference = stabilised + 3LL * REFERENCE * REFERENCE * z;
    Tap across = bilinear_tap(x, FACE, item.face_x2 - item.face_x1);
    Tap down = bilinear_tap(y, FACE, item.face_y2 - item.face_y1);
    int columns[2] = {clamp_int(item.face_x1 + across.low, 0, frame_width - 1),
                      clamp_int(item.face_x1 + across.high, 0, frame_width - 1)};
    int rows[2] = {clamp_int(item.face_y1 + down.low, 0, frame_height - 1),
                   clamp_int(item.face_y1 + down.high, 0, frame_height - 1)};
    long long pixel = 3 * ((static_cast<long long>(z) * FACE + y) * FACE + x);
    for (int c = 0; c < 3; ++c) {
        int plain[4], pasted[4];
        for (int corner = 0; corner < 4; ++corner) {
            int column = columns[corner & 1], row = rows[corner >> 1];
            u8 source = frames[frame_offset(item.frame, frame_bytes, row, pitch_bytes, column) + c];
            plain[corner] = source;
            pasted[corner] = pasted_pixel(source, reference, item, column, row, c);
        }
        faces[pixel + c] = y < VISIBLE ? mix_bilinear(plain[0], plain[1], plain[2], plain[3], across, down) : 0;
        references[pixel + c] = mix_bilinear(pasted[0], pasted[1], pasted[2], pasted[3], across, down);
    }
}

// Thread (x, y, z): all six channels of pixel (x, y) of face z.
extern "C" __global__ void lip_planes(const u8* __restrict__ faces, const u8* __restrict__ references,
                                      float* __restrict__ out) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= LIPS || y >= LIPS) return;
    const int step = FACE / LIPS, row_bytes = 3 * FACE;
    long long first = ((static_cast<long long>(z) * FACE + step * y + 1) * FACE + step * x + 1) * 3;
    for (int c = 0; c < 6; ++c) {
        const u8* at = (c < 3 ? faces : references) + first + c % 3;
        int total = at[0] + at[3] + at[row_bytes] + at[row_bytes + 3];
        out[((z * 6LL + c) * LIPS + y) * LIPS + x] = static_cast<float>(total) / (4.0f * 255.0f);
    }
}

// Thread (x, y, z): the three planes of pixel (x, y) of picture z.
extern "C" __global__ void picture_planes(const u8* __restrict__ pictures, int width, int height,
                                          float* __restrict__ out) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= width || y >= height) return;
    const u8* pixel = pictures + 3 * ((static_cast<long long>(z) * height + y) * width + x);
    for (int c = 0; c < 3; ++c)
        out[((z * 3LL + c) * height + y) * width + x] = static_cast<float>(pixel[c]) / 255.0f;
}
