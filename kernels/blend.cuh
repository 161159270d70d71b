// The blend's table and arena, as every kernel sees them that works on a window before its bands are blended.
#pragma once

struct Item {
    int frame;
    int box_x1, box_y1, box_x2, box_y2;
    int x1, y1, x2, y2;  // window
    int levels;
};

struct Level {
    float4* pixels;
    int width, height;
};

__device__ inline Level level_of(float4* arena, long long item_pixels, const Item& item, int z, int level) {
    Level found = {arena + z * item_pixels, item.x2 - item.x1, item.y2 - item.y1};
    for (int k = 0; k < level; ++k) {
        found.pixels += static_cast<long long>(found.width) * found.height;
        found.width = (found.width + 1) / 2;
        found.height = (found.height + 1) / 2;
    }
    return found;
}
