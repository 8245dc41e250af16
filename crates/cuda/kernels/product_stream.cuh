// Products of a few rows.
//
// product_<rows>: up to so many rows by tiles of 384 / slices outputs. A block of 8 warps walks over the tiles of one part; each warp takes
// 48 outputs and one slice. Weights travel through a ring of three chunks (3 KB each) a warp in shared memory, across the ends of tiles.
// A lane reads what it fetched itself, so the ring needs no barrier: it is what registers would be, were there enough of them. x comes
// from the caches, three chunks ahead. Moves 2 n k bytes of weights and, from the caches, 2 rows k for each tile: tiles of 48 outputs
// rather than 16 for that, and as many more bytes on their way in a step.
//
// Grid: blocks, one a processor at the most, by parts. Shared memory: 72 KB of rings and 26 KB of sums. The rings fill before the previous
// kernel has ended. product_8 takes less than half of a processor, so that the next product's rings fill while this one ends; product_32
// shares its processor with nobody.
//
// Measured on an H200, a decode pass of one row at 2304 positions: weights in registers, four chunks ahead, three blocks a processor 2.33 ms;
// rings of 8 KB and tiles of 16 outputs 2.34, of 9 KB and 48 outputs 2.21. Asking the second-level cache for 16 KB a warp ahead made it slower.

template <int TR> DEVICE void product_stream(const Product& p) {
    constexpr int TF = 3, RING = 3;
    extern __shared__ uint4 stream_memory[];            // [warp][RING][TF][2][lane]
    __shared__ float sums[2][8][8][16 * TF + 4];        // [turn][warp][row][output]
    let_next_start();
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 slice = warp % p.slices, column = warp / p.slices, width = 128 * TF / p.slices;
    const u32 tiles = (p.n + width - 1) / width, padded = (p.n + 127) / 128 * 128, part = blockIdx.y, rows = *(const u32*)p.count;
    const u32 start = slice_start(p, part * p.slices + slice), end = slice_start(p, part * p.slices + slice + 1);
    const u16* x = (const u16*)p.x + (u64)g * p.k + t * 8;
    const uint4* ring = stream_memory + warp * RING * TF * 64 + lane;
    const u32 ring_to = (u32)__cvta_generic_to_shared(ring);

    struct Cursor {
        u32 tile, chunk;
    };
    auto fetch_w = [&](int i, const Cursor& c) {
        const u32 f = c.tile * width + column * 16 * TF;
        const u16* from = (const u16*)p.w + (u64)f * p.k + (c.chunk + i) * 512 + lane * 8;
#pragma unroll
        for (int m = 0; m < TF; m++)
            if (c.chunk + i < end && f + 16 * m < padded && c.tile < tiles) {
                fetch(ring_to + (i * TF + m) * 1024, from + (u64)16 * m * p.k, true);
                fetch(ring_to + (i * TF + m) * 1024 + 512, from + (u64)16 * m * p.k + 256, true);
            }
        fetch_commit();
    };
    auto advance = [&](Cursor& c) {
        c.chunk += RING;
        if (c.chunk >= end) c = Cursor{c.tile + gridDim.x, start};
    };
    uint4 b[RING][TR];
    auto load_x = [&](int i, u32 chunk) {
#pragma unroll
        for (int n = 0; n < TR; n++)
            b[i][n] = 8 * n + g < rows && chunk < end ? *(const uint4*)(x + (u64)8 * n * p.k + chunk * 32) : make_uint4(0, 0, 0, 0);
    };

    Cursor ahead = {blockIdx.x, start};
#pragma unroll
    for (int i = 0; i < RING; i++) fetch_w(i, ahead);
    advance(ahead);
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < RING; i++) load_x(i, start + i);

    u32 turn = 0;
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        float sum[TF][TR][4];
        clear(sum);
        for (u32 chunk = start; chunk < end; chunk += RING) {
            const u32 next = chunk + RING < end ? chunk + RING : start;
#pragma unroll
            for (int i = 0; i < RING; i++) {
                fetch_wait<RING - 1>();
                if (chunk + i < end) {
                    uint4 a[TF][2];
#pragma unroll
                    for (int m = 0; m < TF; m++) {
                        a[m][0] = ring[(i * TF + m) * 64];
                        a[m][1] = ring[(i * TF + m) * 64 + 32];
                    }
#pragma unroll
                    for (int m = 0; m < TF; m++)
#pragma unroll
                        for (int n = 0; n < TR; n++) multiply<0>(sum[m][n], a[m][0], b[i][n]);
#pragma unroll
                    for (int m = 0; m < TF; m++)
#pragma unroll
                        for (int n = 0; n < TR; n++) multiply<1>(sum[m][n], a[m][1], b[i][n]);
                }
                load_x(i, next + i);
                fetch_w(i, ahead);
            }
            advance(ahead);
        }
        const u32 f0 = tile * width;
#pragma unroll
        for (int n = 0; n < TR; n++, turn ^= 1) {       // eight rows at a time; while some warps still read one turn, others write the other
#pragma unroll
            for (int m = 0; m < TF; m++) {
                float(*to)[16 * TF + 4] = sums[turn][warp];
                to[2 * t][16 * m + g] = sum[m][n][0];
                to[2 * t + 1][16 * m + g] = sum[m][n][1];
                to[2 * t][16 * m + 8 + g] = sum[m][n][2];
                to[2 * t + 1][16 * m + 8 + g] = sum[m][n][3];
            }
            __syncthreads();
            const u32 r0 = 8 * n, live = rows > r0 ? min(8u, rows - r0) : 0;
            if (p.mode == HEAD) {                       // one slice
                for (u32 f = 0; f < width && f0 + f < p.n && warp < live; f += 128)
                    store_best(p, r0 + warp, f0 + f, [&](u32 i) { return 0.f + sums[turn][(f + i) / (16 * TF)][warp][(f + i) % (16 * TF)]; });
            } else {
                for (u32 i = threadIdx.x; i < live * width / 2; i += 256) {
                    const u32 r = i / (width / 2), f = 2 * (i % (width / 2));
                    float2 y = make_float2(0.f, 0.f);
                    for (u32 s = 0; s < p.slices; s++) {
                        const float2 v = *(const float2*)&sums[turn][f / (16 * TF) * p.slices + s][r][f % (16 * TF)];
                        y.x += v.x;
                        y.y += v.y;
                    }
                    if (f0 + f < p.n) store_pair(p, part, r0 + r, f0 + f, y.x, y.y);
                }
            }
        }
    }
}

KERNEL __launch_bounds__(256, 2) product_8(const __grid_constant__ Product p) { product_stream<1>(p); }
KERNEL __launch_bounds__(256, 1) product_32(const __grid_constant__ Product p) { product_stream<4>(p); }
