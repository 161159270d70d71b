// Lets a .cu file run as plain C++: the words of CUDA as far as these kernels use them, and a launch that
// walks the grid one thread after the other. No shared memory, no synchronisation: no kernel here needs them.
//
// Compile with -DDUBSTREAM_ON_CPU -ffp-contract=off. With contraction off here and --fmad=false for the GPU
// the arithmetic is IEEE on both sides, operation by operation.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>

#define __global__
#define __device__ static
#define __restrict__ __restrict

struct dim3 {
    unsigned x, y, z;
};
struct float4 {
    float x, y, z, w;
};

static thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

template <class Kernel, std::size_t... I, class... Args>
static void call_kernel(Kernel kernel, void** arguments, std::index_sequence<I...>, void (*)(Args...)) {
    kernel(*static_cast<Args*>(arguments[I])...);
}

// `arguments` as for cuLaunchKernel: the address of each kernel argument.
template <class... Args>
static void run_grid(void (*kernel)(Args...), dim3 grid, dim3 block, void** arguments) {
    gridDim = grid;
    blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block.z; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x)
                            call_kernel(kernel, arguments, std::index_sequence_for<Args...>{}, kernel);
}
