// Soft masks of a face and of its mouth, from what ParseNet says of the aligned face.
//
//     probabilities n x 512 x 512, face and mouth --4x4 means, border 0--> means n x 2 x 128 x 128
//     means --Gaussian of deviation 2, smoothstep--> masks n x 2 x 128 x 128, in [0, 1]
//
//     parse_planes     float32 planes; one that is no finite number counts 0, and the record remembers it
//     parse_pictures   uint8 pixels of two levels; their means are levels too
//     parse_masks      both masks, and whether a face was seen at all
//
//     thread (x, y, z)  ->  pixel (x, y) of both masks of face z
//
// Reference: dubstream.kernels.parse_mask (face_masks). Launcher: dubstream.kernels.finish_launchers.
#include "pixels.cuh"
#include "sampling.cuh"
#include "finish.cuh"

#define EDGE 5  // pixels of a mask along its border that stay 0

__device__ inline bool on_edge(int x, int y) {
    return x < EDGE || y < EDGE || x >= MASK_SIDE - EDGE || y >= MASK_SIDE - EDGE;
}

// parsed: uint8 (n), cleared here for parse_masks.
extern "C" __global__ void parse_planes(const float* __restrict__ probabilities, float* __restrict__ means,
                                        FinishState* __restrict__ states, u8* __restrict__ parsed) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= MASK_SIDE || y >= MASK_SIDE) return;
    if (x == 0 && y == 0) parsed[z] = 0;
    for (int c = 0; c < 2; ++c) {
        const float* first =
            probabilities + ((2LL * z + c) * ALIGNED + MASK_STEP * y) * ALIGNED + MASK_STEP * x;
        float sum = 0.0f;
        for (int j = 0; j < MASK_STEP; ++j)
            for (int i = 0; i < MASK_STEP; ++i) sum += first[j * ALIGNED + i];
        bool known = is_finite(sum);
        if (!known) states[z].broken = 1;
        means[((2LL * z + c) * MASK_SIDE + y) * MASK_SIDE + x] = known && !on_edge(x, y) ? sum * (1.0f / 16) : 0.0f;
    }
}

extern "C" __global__ void parse_pictures(const u8* __restrict__ probabilities, float* __restrict__ means,
                                          u8* __restrict__ parsed) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= MASK_SIDE || y >= MASK_SIDE) return;
    if (x == 0 && y == 0) parsed[z] = 0;
    const u8* first = probabilities + 2 * ((1LL * z * ALIGNED + MASK_STEP * y) * ALIGNED + MASK_STEP * x);
    for (int c = 0; c < 2; ++c) {
        int sum = 0;
        for (int j = 0; j < MASK_STEP; ++j)
            for (int i = 0; i < MASK_STEP; ++i) sum += first[2 * (j * ALIGNED + i) + c];
        float level = rintf(static_cast<float>(sum) * (1.0f / 16));
        means[((2LL * z + c) * MASK_SIDE + y) * MASK_SIDE + x] = on_edge(x, y) ? 0.0f : level;
    }
}

// exp(-i * i / 8) over the sum of all 17, i = 0 being the middle: OpenCV's kernel of deviation 2.
#define REACH 8

__device__ inline float gaussian(int distance) {
    const float weights[REACH + 1] = {0.19947464764118195f,    0.17603576183319092f,    0.12098748981952667f,
                                      0.06475993990898132f,    0.026995958760380745f,   0.008764304220676422f,
                                      0.002215963089838624f,   0.00043634901521727443f, 6.691629096167162e-05f};
    return weights[distance < 0 ? -distance : distance];
}

__device__ inline float blurred(const float* means, int x, int y) {
    float sum = 0.0f;
    for (int j = -REACH; j <= REACH; ++j) {
        const float* row = means + clamp_int(y + j, 0, MASK_SIDE - 1) * MASK_SIDE;
        float line = 0.0f;
        for (int i = -REACH; i <= REACH; ++i) line += gaussian(i) * row[clamp_int(x + i, 0, MASK_SIDE - 1)];
        sum += gaussian(j) * line;
    }
    return sum;
}

__device__ inline float smoothstep(float value) {
    float t = value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
    return t * t * (3.0f - 2.0f * t);
}

// white: the mean that stands for a probability of 1.
extern "C" __global__ void parse_masks(const float* __restrict__ means, float white, float* __restrict__ masks,
                                       u8* __restrict__ parsed) {
    int x = thread_x(), y = thread_y(), z = thread_z();
    if (x >= MASK_SIDE || y >= MASK_SIDE) return;
    long long first = 2LL * z * MASK_PIXELS, pixel = first + y * MASK_SIDE + x;
    // The face ends at its outline, where one half is left of it; the mouth is full there.
    float face = smoothstep(2.0f * (blurred(means + first, x, y) / white) - 1.0f);
    masks[pixel] = face;
    masks[pixel + MASK_PIXELS] = smoothstep(2.0f * (blurred(means + first + MASK_PIXELS, x, y) / white));
    if (face > 0.5f) parsed[z] = 1;  // many threads may, all the same
}
