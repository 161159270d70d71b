// Sample a picture along an affine map: bilinear, after averages of blocks where that reduces to half or less.
// Reference: dubstream.kernels.face_align (sample). Positions are rounded to 1/32 pixel, blocks begin where the
// reference's do and uint8 averages are rounded as OpenCV rounds them, so that both read the same samples.
//
//     picture   |  left            block 0 |  block 1 |  ...         `across` x `down` pixels each
//     target    pixel (x, y) --to_blocks--> position among block centres, four blocks around it mixed
//
// A picture is a type with `pixel_of(picture, x, y)` and `mean_of(picture, sum, across, down)`, the mean of a block
// whose pixels add up to `sum`; both float4.
#pragma once

// From (x, y, 1) of the target to (x, y): float64 (2, 3), row-major.
struct Affine {
    double xx, xy, x0;
    double yx, yy, y0;
};

struct Sampling {
    Affine to_blocks;
    int left, top;      // first pixel of the first block
    int columns, rows;  // blocks; outside them is the border
    int across, down;   // pixels of a block
};

__device__ inline int whole(double value) {
    return static_cast<int>(value < -1e9 ? -1e9 : value > 1e9 ? 1e9 : value);
}

__device__ inline double smaller(double a, double b) { return a < b ? a : b; }
__device__ inline double larger(double a, double b) { return a > b ? a : b; }

__device__ inline Affine inverse(const Affine& map) {
    double determinant = map.xx * map.yy - map.xy * map.yx, scale = determinant != 0.0 ? 1.0 / determinant : 0.0;
    Affine back;
    back.xx = map.yy * scale;
    back.yy = map.xx * scale;
    back.xy = map.xy * -scale;
    back.yx = map.yx * -scale;
    back.x0 = -back.xx * map.x0 - back.xy * map.y0;
    back.y0 = -back.yx * map.x0 - back.yy * map.y0;
    return back;
}

// The map for positions counted from (x, y) of the space it reads.
__device__ inline Affine from_corner(Affine map, int x, int y) {
    map.x0 += map.xx * x + map.xy * y;
    map.y0 += map.yx * x + map.yy * y;
    return map;
}

// Positions in blocks of `size`, counted so that a centre is a whole number.
__device__ inline Affine in_blocks(Affine map, double first_x, double first_y, int size) {
    map.x0 += 0.5 - first_x;
    map.y0 += 0.5 - first_y;
    Affine moved = {map.xx / size, map.xy / size, map.x0 / size, map.yx / size, map.yy / size, map.y0 / size};
    moved.x0 -= 0.5;
    moved.y0 -= 0.5;
    return moved;
}

// Pixels of the picture to one of the target, 1 where it is enlarged.
__device__ inline int reduction(const Affine& map) {
    int pixels = whole(hypot(map.xx, map.yx));
    return pixels > 1 ? pixels : 1;
}

// What a target of width x height sees: whole pixels, ends exclusive, not cut to the picture.
struct Extent {
    int left, top, right, bottom;
};

__device__ inline Extent extent(const Affine& map, int width, int height) {
    double across = map.xx * width, down = map.xy * height;
    double low_x = smaller(0.0, across) + smaller(0.0, down), high_x = larger(0.0, across) + larger(0.0, down);
    across = map.yx * width, down = map.yy * height;
    double low_y = smaller(0.0, across) + smaller(0.0, down), high_y = larger(0.0, across) + larger(0.0, down);
    return Extent{whole(floor(low_x + map.x0)), whole(floor(low_y + map.y0)), whole(ceil(high_x + map.x0)),
                  whole(ceil(high_y + map.y0))};
}

// How a target of target_width x target_height samples a picture of width x height.
__device__ inline Sampling sampling_of(const Affine& map, int target_width, int target_height, int width, int height) {
    int size = reduction(map);
    if (size == 1) return Sampling{map, 0, 0, width, height, 1, 1};
    Extent seen = extent(map, target_width, target_height);
    int left = clamp_int(seen.left - 2 * size, 0, width - 1), top = clamp_int(seen.top - 2 * size, 0, height - 1);
    int right = clamp_int(seen.right + 2 * size, left + 1, width);
    int bottom = clamp_int(seen.bottom + 2 * size, top + 1, height);
    int columns = (right - left) / size, rows = (bottom - top) / size;
    Sampling found = {in_blocks(map, left, top, size), left, top, columns, rows, size, size};
    // A last strip narrower than a block is one block all the same.
    if (columns == 0) found.columns = 1, found.across = width - left;
    if (rows == 0) found.rows = 1, found.down = height - top;
    return found;
}

template <class Picture>
__device__ inline float4 block_mean(const Sampling& sampling, int column, int row, const Picture& picture) {
    int x = sampling.left + column * sampling.across, y = sampling.top + row * sampling.down;
    if (sampling.across * sampling.down == 1) return pixel_of(picture, x, y);
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int j = 0; j < sampling.down; ++j)
        for (int i = 0; i < sampling.across; ++i) {
            float4 value = pixel_of(picture, x + i, y + j);
            sum.x += value.x;
            sum.y += value.y;
            sum.z += value.z;
        }
    return mean_of(picture, sum, sampling.across, sampling.down);
}

// Three values at a target pixel; w is not used. Weights are multiples of 1/1024 and exact.
template <class Picture>
__device__ inline float4 sampled(const Sampling& sampling, int x, int y, const Picture& picture, float4 border) {
    const Affine& map = sampling.to_blocks;
    int fine_x = fine_position(map.xx, map.xy, map.x0, x, y), left = fine_x >> 5, right_weight = fine_x & 31;
    int fine_y = fine_position(map.yx, map.yy, map.y0, x, y), above = fine_y >> 5, low_weight = fine_y & 31;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int corner = 0; corner < 4; ++corner) {
        int dx = corner & 1, dy = corner >> 1, column = left + dx, row = above + dy;
        bool inside = column >= 0 && row >= 0 && column < sampling.columns && row < sampling.rows;
        float4 value = inside ? block_mean(sampling, column, row, picture) : border;
        int weight = (dx ? right_weight : 32 - right_weight) * (dy ? low_weight : 32 - low_weight);
        float share = static_cast<float>(weight) * (1.0f / 1024.0f);
        sum.x += share * value.x;
        sum.y += share * value.y;
        sum.z += share * value.z;
    }
    return sum;
}

// What float pictures do with a block.
__device__ inline float4 float_mean(const float4& sum, int across, int down) {
    float scale = 1.0f / static_cast<float>(across * down);
    return float4{sum.x * scale, sum.y * scale, sum.z * scale, 0.0f};
}
