// Products of a few rows.
//
// product_<rows>: tiles of so many rows by 128 TF / slices outputs. A block of 8 warps walks over tiles; each warp takes 16 TF outputs
// and one slice, weights straight from memory to registers, DEPTH chunks (TF KB each) ahead, across the end of a tile too. Grid: blocks
// by tiles of rows. Moves 2 n k bytes for each tile of rows; x, read once a tile, comes from the caches.
//
// Measured on an H200, a decode pass of one row at 2300 positions: weights in fragments 2.66 ms, in rows 2.72; asking the second-level
// cache for 16 KB a warp ahead of the input 2.43, without 2.28.

template <int TF, int TR, int DEPTH> DEVICE void product_stream(const Product& p) {
    __shared__ float sums[2][8][8][16 * TF + 4];        // [turn][warp][row][output]
    let_next_start();
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 slice = warp % p.slices, part = warp / p.slices, width = 128 * TF / p.slices;
    const u32 tiles = (p.n + width - 1) / width, row0 = blockIdx.y * 8 * TR, padded = (p.n + 127) / 128 * 128;
    const u32 start = slice_start(p, slice), end = slice_start(p, slice + 1), rounds = (end - start + DEPTH - 1) / DEPTH;
    const u32 all = *(const u32*)p.count, rows = all > row0 ? all - row0 : 0;
    const u16* x = (const u16*)p.x + (u64)(row0 + g) * p.k + t * 8;

    uint4 a[DEPTH][TF][2], b[DEPTH][TR];
    const uint4 zero = make_uint4(0, 0, 0, 0);
    auto first = [&](u32 tile) { return tile * width + part * 16 * TF; };           // of the warp's outputs
    auto weights = [&](u32 tile) { return (const u16*)p.w + (u64)first(tile) * p.k + lane * 8; };
    auto load_w = [&](int i, const u16* from, u32 chunk, bool live) {
#pragma unroll
        for (int m = 0; m < TF; m++) {
            const u16* at = from + (u64)16 * m * p.k + chunk * 512;
            a[i][m][0] = live ? load_weight(at) : zero;
            a[i][m][1] = live ? load_weight(at + 256) : zero;
        }
    };
    auto load_x = [&](int i, u32 chunk, bool live) {
#pragma unroll
        for (int n = 0; n < TR; n++) b[i][n] = live && 8 * n + g < rows ? *(const uint4*)(x + (u64)8 * n * p.k + chunk * 32) : zero;
    };

    u32 tile = blockIdx.x, stop = first(tile) < padded && rows ? end : 0;
    const u16* w = weights(tile);
#pragma unroll
    for (int i = 0; i < DEPTH; i++) load_w(i, w, start + i, start + i < stop);
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < DEPTH; i++) load_x(i, start + i, start + i < stop);

    u32 turn = 0;
    for (; tile < tiles && rows; tile += gridDim.x) {
        float sum[TF][TR][4];
#pragma unroll
        for (int m = 0; m < TF; m++)
#pragma unroll
            for (int n = 0; n < TR; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) sum[m][n][c] = 0.f;
        const u32 next = tile + gridDim.x, next_stop = next < tiles && first(next) < padded ? end : 0;
        for (u32 round = 1; round <= rounds; round++) {
            const bool wrap = round == rounds;          // then the loads are the next tile's first
            const u16* from = wrap ? weights(next) : w;
            const u32 chunk = wrap ? start : start + round * DEPTH;
            if (wrap) stop = next_stop;
#pragma unroll
            for (int i = 0; i < DEPTH; i++) {           // chunks past the end are zeros and add nothing
#pragma unroll
                for (int m = 0; m < TF; m++)
#pragma unroll
                    for (int n = 0; n < TR; n++) multiply<0>(sum[m][n], a[i][m][0], b[i][n]);
#pragma unroll
                for (int m = 0; m < TF; m++)
#pragma unroll
                    for (int n = 0; n < TR; n++) multiply<1>(sum[m][n], a[i][m][1], b[i][n]);
                load_w(i, from, chunk + i, chunk + i < stop);
                load_x(i, chunk + i, chunk + i < stop);
            }
        }
        w = weights(next);
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
            const u32 live = rows > 8 * n ? min(8u, rows - 8 * n) : 0, r0 = row0 + 8 * n;
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
                    if (f0 + f < p.n) store_pair(p, r0 + r, f0 + f, y.x, y.y);
                }
            }
        }
    }
}

KERNEL __launch_bounds__(256, 3) product_8(const __grid_constant__ Product p) { product_stream<1, 1, 4>(p); }
KERNEL __launch_bounds__(256, 2) product_16(const __grid_constant__ Product p) { product_stream<2, 2, 3>(p); }
KERNEL __launch_bounds__(256, 1) product_32(const __grid_constant__ Product p) { product_stream<4, 4, 2>(p); }
// Half as wide, for products that would leave processors idle.
KERNEL __launch_bounds__(256, 1) product_32_few(const __grid_constant__ Product p) { product_stream<2, 4, 4>(p); }
