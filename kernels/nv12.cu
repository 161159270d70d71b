// Between NV12, as video decoders and encoders keep it, and BGR pictures.
//
//     luma    height rows of width bytes, `pitch_bytes` apart          Y Y Y Y      chroma sample (i, j) sits at
//     chroma  ceil(height / 2) rows of ceil(width / 2) pairs U V       Y Y Y Y      luma column 2i, between luma
//                                                                      UV  UV       rows 2j and 2j + 1
//     picture height x width x 3 uint8, packed
//
// `red` and `blue` are the luma weights of the matrix (BT.601: 0.299, 0.114; BT.709: 0.2126, 0.0722);
// `full_range` is 0 for Y 16..235, C 16..240 and 1 for 0..255.
//
// Reference: dubstream.kernels.nv12. Launcher: dubstream.kernels.launchers.
#include "pixels.cuh"

// One chroma component between its samples: exact on even columns, halfway on odd ones; 3:1 between rows.
__device__ inline float chroma_at(const u8* chroma, int pitch_bytes, int width, int height, int x, int y, int which) {
    int columns = (width + 1) / 2, rows = (height + 1) / 2;
    int left = x / 2, right = clamp_int(left + (x & 1), 0, columns - 1);
    int near_row = y / 2, far_row = clamp_int(near_row + ((y & 1) ? 1 : -1), 0, rows - 1);
    const u8* near = chroma + static_cast<long long>(near_row) * pitch_bytes + which;
    const u8* far = chroma + static_cast<long long>(far_row) * pitch_bytes + which;
    int sum = 3 * (near[2 * left] + near[2 * right]) + far[2 * left] + far[2 * right];
    return static_cast<float>(sum) / 8.0f;
}

// Thread (x, y): one pixel.
extern "C" __global__ void nv12_to_bgr(const u8* __restrict__ luma, const u8* __restrict__ chroma, int pitch_bytes,
                                       int width, int height, float red, float blue, int full_range,
                                       u8* __restrict__ picture) {
    int x = thread_x(), y = thread_y();
    if (x >= width || y >= height) return;
    float light = static_cast<float>(luma[static_cast<long long>(y) * pitch_bytes + x]);
    float u = chroma_at(chroma, pitch_bytes, width, height, x, y, 0) - 128.0f;
    float v = chroma_at(chroma, pitch_bytes, width, height, x, y, 1) - 128.0f;
    if (!full_range) {
        light = (light - 16.0f) * (255.0f / 219.0f);
        u = u * (255.0f / 224.0f);
        v = v * (255.0f / 224.0f);
    }
    float green = 1.0f - red - blue;
    float from_u = 2.0f * (1.0f - blue) * u, from_v = 2.0f * (1.0f - red) * v;
    u8* pixel = picture + 3 * (static_cast<long long>(y) * width + x);
    pixel[0] = to_level(light + from_u);
    pixel[1] = to_level(light - (blue * from_u + red * from_v) / green);
    pixel[2] = to_level(light + from_v);
}

// Thread (i, j): one chroma pair and the up to four luma samples over it.
extern "C" __global__ void bgr_to_nv12(const u8* __restrict__ picture, int width, int height, float red, float blue,
                                       int full_range, u8* __restrict__ luma, u8* __restrict__ chroma,
                                       int pitch_bytes) {
    int i = thread_x(), j = thread_y();
    if (i >= (width + 1) / 2 || j >= (height + 1) / 2) return;
    float green = 1.0f - red - blue;
    float luma_scale = full_range ? 1.0f : 219.0f / 255.0f, luma_zero = full_range ? 0.0f : 16.0f;
    float chroma_scale = full_range ? 1.0f : 224.0f / 255.0f;
    for (int y = 2 * j; y < 2 * j + 2 && y < height; ++y)
        for (int x = 2 * i; x < 2 * i + 2 && x < width; ++x) {
            const u8* pixel = picture + 3 * (static_cast<long long>(y) * width + x);
            float light = red * static_cast<float>(pixel[2]) + green * static_cast<float>(pixel[1]) +
                          blue * static_cast<float>(pixel[0]);
            luma[static_cast<long long>(y) * pitch_bytes + x] = to_level(light * luma_scale + luma_zero);
        }
    float mean[3];  // columns 2i - 1, 2i, 2i + 1 weigh 1 : 2 : 1, both rows the same
    for (int c = 0; c < 3; ++c) {
        int sum = 0;
        for (int row = 0; row < 2; ++row) {
            int y = clamp_int(2 * j + row, 0, height - 1);
            const u8* line = picture + 3 * static_cast<long long>(y) * width + c;
            sum += line[3 * clamp_int(2 * i - 1, 0, width - 1)] + 2 * line[6 * i] +
                   line[3 * clamp_int(2 * i + 1, 0, width - 1)];
        }
        mean[c] = static_cast<float>(sum) / 8.0f;
    }
    float light = red * mean[2] + green * mean[1] + blue * mean[0];
    u8* pair = chroma + static_cast<long long>(j) * pitch_bytes + 2 * i;
    pair[0] = to_level((mean[0] - light) / (2.0f * (1.0f - blue)) * chroma_scale + 128.0f);
    pair[1] = to_level((mean[2] - light) / (2.0f * (1.0f - red)) * chroma_scale + 128.0f);
}
