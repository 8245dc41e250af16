// y[r, f] = sum_k w[f, k] x[r, k] (+ bias, and what Mode says)                                   twin: tests/gpu.rs, `product`
//
// w bf16 [n, k], x bf16 [rows, k], sums f32. The order of additions of an output depends on w's shape alone, never on the number of
// rows: k is cut into `slices` runs of 32-wide chunks; a slice is one chain of mma instructions, two a chunk; the slices are then added
// first to last. Weights are the 16-row operand and activations the 8-column one, so that a few rows waste little.
//
// product_skinny: up to 8 rows. A block of 8 warps takes 128 / slices outputs at a time; each warp 16 outputs and one slice, weights
//   straight from memory to registers, DEPTH chunks (1 KB each) ahead, across the end of a tile too. Moves 2 n k bytes once; x comes
//   from the caches.
// product_tile_32, product_tile_64: any number of rows, in tiles of 128 outputs by 32 or 64 rows, copied to shared memory STAGES - 1
//   steps of 64 k ahead (the weights by the copy engine where there is one). A block takes all slices of a tile, or only one: then the block that finishes last adds them up.

DEVICE u32 slice_start(const Product& p, u32 slice) { return p.k / 32 * slice / p.slices; }

template <int DEPTH> DEVICE void product_skinny(const Product& p) {
    __shared__ float sums[2][8][8][20];                 // [turn][warp][row][output]
    __shared__ float best[8 * 132];
    let_next_start();
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 slice = warp % p.slices, part = warp / p.slices, width = 128 / p.slices;
    const u32 tiles = (p.n + width - 1) / width;
    const u32 start = slice_start(p, slice), end = slice_start(p, slice + 1), rounds = (end - start + DEPTH - 1) / DEPTH;
    const u16* w = (const u16*)p.w + (u64)(blockIdx.x * width + part * 16) * p.k + lane * 8;
    const u64 step = (u64)gridDim.x * width * p.k;
    const u16* x = (const u16*)p.x + (u64)g * p.k + t * 8;
    const u32 rows = *(const u32*)p.count;

    uint4 a[DEPTH][2], b[DEPTH];
    const uint4 zero = make_uint4(0, 0, 0, 0);
    auto load_w = [&](int i, const u16* from, u32 chunk, bool live) {
        a[i][0] = live ? load_weight(from + chunk * 512) : zero;
        a[i][1] = live ? load_weight(from + chunk * 512 + 256) : zero;
    };
    auto load_x = [&](int i, u32 chunk, bool live) { b[i] = live && g < rows ? *(const uint4*)(x + chunk * 32) : zero; };

#pragma unroll
    for (int i = 0; i < DEPTH; i++) load_w(i, w, start + i, start + i < end);
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < DEPTH; i++) load_x(i, start + i, start + i < end);

    u32 turn = 0;
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
        float sum[4] = {0.f, 0.f, 0.f, 0.f};
        for (u32 round = 1; round <= rounds; round++) {
            const bool wrap = round == rounds;          // then the loads are the next tile's first
            const u16* from = wrap ? w + step : w;
            const u32 chunk = wrap ? start : start + round * DEPTH, stop = wrap && tile + gridDim.x >= tiles ? 0 : end;
#pragma unroll
            for (int i = 0; i < DEPTH; i++) {           // chunks past the end are zeros and add nothing
                mma_first(sum, a[i][0], a[i][1], b[i]);
                mma_second(sum, a[i][0], a[i][1], b[i]);
                load_w(i, from, chunk + i, chunk + i < stop);
                load_x(i, chunk + i, chunk + i < stop);
            }
        }
        w += step;
        sums[turn][warp][2 * t][g] = sum[0];
        sums[turn][warp][2 * t + 1][g] = sum[1];
        sums[turn][warp][2 * t][g + 8] = sum[2];
        sums[turn][warp][2 * t + 1][g + 8] = sum[3];
        __syncthreads();
        const u32 f0 = tile * width;
        auto total = [&](u32 r, u32 f) {
            float v = 0.f;
            for (u32 s = 0; s < p.slices; s++) v += sums[turn][f / 16 * p.slices + s][r][f % 16];
            return v;
        };
        if (p.mode == HEAD) {
            for (u32 i = threadIdx.x; i < rows * 128; i += 256) best[i / 128 * 132 + i % 128] = total(i / 128, i % 128);
            __syncthreads();
            if (warp < rows) store_best(p, warp, f0, best + warp * 132);
        } else {
            for (u32 i = threadIdx.x; i < rows * width / 2; i += 256) {
                const u32 r = i / (width / 2), f = 2 * (i % (width / 2));
                if (f0 + f < p.n) store_pair(p, r, f0 + f, total(r, f), total(r, f + 1));
            }
        }
    }
}

// Shared memory of one step, 64 k: 128 outputs as fragments [8 groups][2 chunks], then ROWS rows as [2 chunks][rows][64 bytes]. Rows
// of the second chunk are swapped in pairs, so that the eight threads that copy 128 bytes of one row meet different banks.
DEVICE u32 row_offset(u32 chunk, u32 row, u32 t, u32 rows) { return (chunk * rows + (row ^ chunk)) * 64 + t * 16; }

template <int ROWS, int WARPS_F, int WARPS_R, int STAGES> DEVICE void product_tile(const Product& p) {
    constexpr int TF = 128 / WARPS_F / 16, TR = ROWS / WARPS_R / 8;     // instruction tiles of a warp: outputs, rows
    constexpr u32 STAGE_W = 2 * 128 * 64, STAGE = STAGE_W + 2 * ROWS * 64;
    extern __shared__ uint4 shared[];
    let_next_start();
    const u32 tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
    const u32 tile = blockIdx.x, f0 = tile / p.row_tiles * 128, row0 = tile % p.row_tiles * ROWS;
    const u32 rows = *(const u32*)p.count;
    if (row0 >= rows) {
        wait_for_previous();
        return;
    }
    u32 slice = p.sliced ? blockIdx.y : 0;
    const u32 start = slice_start(p, slice), end = slice_start(p, p.sliced ? slice + 1 : p.slices);
    const u32 steps = (end - start + 1) / 2;

    const u32 base = (u32)__cvta_generic_to_shared(shared);
    const u16* w = (const u16*)p.w + (u64)f0 * p.k;
#if __CUDA_ARCH__ >= 900
    __shared__ u64 arrived[STAGES];
    const u32 barrier = (u32)__cvta_generic_to_shared(arrived);
    if (tid == 0) {
        for (int s = 0; s < STAGES; s++) barrier_init(barrier + 8 * s);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    auto copy_w = [&](u32 step) {
        if (tid != 0) return;
        const u32 chunk = start + 2 * step, to = base + step % STAGES * STAGE, bytes = min(2u, end - chunk) * 1024;
        barrier_expect(barrier + step % STAGES * 8, 8 * bytes);
        for (int i = 0; i < 8; i++) copy_bulk(to + 2048 * i, w + (u64)16 * i * p.k + chunk * 512, bytes, barrier + step % STAGES * 8);
    };
    auto wait_w = [&](u32 step) { barrier_wait(barrier + step % STAGES * 8, step / STAGES % 2); };
#else
    auto copy_w = [&](u32 step) {
        const u32 chunk = start + 2 * step, to = base + step % STAGES * STAGE;
        const bool live = chunk + tid / 64 < end;
#pragma unroll
        for (int i = 0; i < 8; i++) copy_async(to + 2048 * i + 16 * tid, live ? w + (u64)16 * i * p.k + chunk * 512 + 8 * tid : w, live);
    };
    auto wait_w = [](u32) {};
#endif
    // Eight threads copy 128 bytes of one row; 16 rows at once.
    const u32 copy_row = tid / 8, copy_chunk = tid / 4 % 2;
    const u16* x = (const u16*)p.x + copy_chunk * 32 + t * 8;
    auto copy_x = [&](u32 step) {
        const u32 chunk = start + 2 * step, to = base + step % STAGES * STAGE + STAGE_W;
#pragma unroll
        for (int i = 0; i < ROWS / 16; i++) {
            const u32 r = 16 * i + copy_row;
            const bool live = chunk + copy_chunk < end && row0 + r < rows;
            copy_async(to + row_offset(copy_chunk, r, t, ROWS), live ? x + (u64)(row0 + r) * p.k + chunk * 32 : x, live);
        }
    };
#pragma unroll
    for (u32 s = 0; s < STAGES - 1; s++)
        if (s < steps) copy_w(s);
    wait_for_previous();
#pragma unroll
    for (u32 s = 0; s < STAGES - 1; s++) {
        if (s < steps) copy_x(s);
        copy_commit();
    }

    const u32 warp_f = warp / WARPS_R * TF * 16, warp_r = warp % WARPS_R * TR * 8;
    float sum[TF][TR][4], total[TF][TR][4];
#pragma unroll
    for (int i = 0; i < TF; i++)
#pragma unroll
        for (int j = 0; j < TR; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) sum[i][j][c] = total[i][j][c] = 0.f;
    u32 slice_end = slice_start(p, slice + 1);
    for (u32 step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        wait_w(step);
        __syncthreads();
        if (step + STAGES - 1 < steps) {
            copy_w(step + STAGES - 1);
            copy_x(step + STAGES - 1);
        }
        copy_commit();
        const char* from = (const char*)shared + step % STAGES * STAGE;
#pragma unroll
        for (u32 c = 0; c < 2; c++) {
            const u32 chunk = start + 2 * step + c;
            if (chunk >= end) break;
            uint4 a[TF][2], b[TR];
#pragma unroll
            for (int i = 0; i < TF; i++) {
                const char* fragment = from + ((warp_f / 16 + i) * 2 + c) * 1024 + lane * 16;
                a[i][0] = *(const uint4*)fragment;
                a[i][1] = *(const uint4*)(fragment + 512);
            }
#pragma unroll
            for (int j = 0; j < TR; j++) b[j] = *(const uint4*)(from + STAGE_W + row_offset(c, warp_r + 8 * j + g, t, ROWS));
#pragma unroll
            for (int i = 0; i < TF; i++)
#pragma unroll
                for (int j = 0; j < TR; j++) mma_first(sum[i][j], a[i][0], a[i][1], b[j]);
#pragma unroll
            for (int i = 0; i < TF; i++)
#pragma unroll
                for (int j = 0; j < TR; j++) mma_second(sum[i][j], a[i][0], a[i][1], b[j]);
            if (chunk + 1 == slice_end) {
#pragma unroll
                for (int i = 0; i < TF; i++)
#pragma unroll
                    for (int j = 0; j < TR; j++)
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            total[i][j][e] += sum[i][j][e];
                            sum[i][j][e] = 0.f;
                        }
                slice_end = slice_start(p, ++slice + 1);
            }
        }
    }
    copy_wait<0>();

    if (p.sliced) {
        __shared__ bool last;
        float4* all = (float4*)p.partial + (u64)tile * p.slices * (TF * TR * 128) + tid;
        float4* mine = all + (u64)blockIdx.y * (TF * TR * 128);
#pragma unroll
        for (int i = 0; i < TF * TR; i++) {
            const float* v = total[i / TR][i % TR];
            __stcg(mine + i * 128, make_float4(v[0], v[1], v[2], v[3]));
        }
        __threadfence();
        __syncthreads();
        if (tid == 0) last = atomicAdd((u32*)p.arrivals + tile, 1) == p.slices - 1;
        __syncthreads();
        if (!last) return;
        __threadfence();
#pragma unroll
        for (int i = 0; i < TF * TR; i++) {
            float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
            for (u32 s = 0; s < p.slices; s++) {
                const float4 q = __ldcg(all + (u64)s * (TF * TR * 128) + i * 128);
                v.x += q.x; v.y += q.y; v.z += q.z; v.w += q.w;
            }
            float* to = total[i / TR][i % TR];
            to[0] = v.x; to[1] = v.y; to[2] = v.z; to[3] = v.w;
        }
        if (tid == 0) ((u32*)p.arrivals)[tile] = 0;
    }
    __syncthreads();
    float* out = (float*)shared;                        // [ROWS][132]: a stride at which the writes below meet no bank twice
#pragma unroll
    for (int i = 0; i < TF; i++)
#pragma unroll
        for (int j = 0; j < TR; j++) {
            float* at = out + (warp_r + 8 * j + 2 * t) * 132 + warp_f + 16 * i + g;
            at[0] = total[i][j][0];
            at[132] = total[i][j][1];
            at[8] = total[i][j][2];
            at[140] = total[i][j][3];
        }
    __syncthreads();
    store_tile<128>(p, out, 132, row0, min((u32)ROWS, rows - row0), f0, 128);
}

KERNEL __launch_bounds__(256, 3) product_skinny(const __grid_constant__ Product p) { product_skinny<4>(p); }
KERNEL __launch_bounds__(128, 2) product_tile_32(const __grid_constant__ Product p) { product_tile<32, 4, 1, 4>(p); }
KERNEL __launch_bounds__(128, 2) product_tile_64(const __grid_constant__ Product p) { product_tile<64, 2, 2, 4>(p); }
