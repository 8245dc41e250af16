// Products of many rows.
//
// product_tile: any number of rows, in tiles of 128 outputs by 64 rows, 4 warps of 64 by 32, copied to shared memory three steps of two
// chunks ahead (the weights by the copy engine where there is one). Grid: tiles, the tiles of rows beside each other, by parts; with
// p.partial by slices of all parts, a slice a block, and product_sum adds them up. Reads 24 KB for each step of 128 x 64 x 64 multiply-adds.
//
// Measured on an H200: a step of product_tile takes a block 1.3 us, alone on a processor or with a second: the warp that starts the
// copies, the loads and the instructions wait for each other, so that blocks are worth more than fewer bytes.

// Shared memory of one step, two chunks: 128 outputs as fragments [8 groups][2 chunks], then the rows as [2 chunks][64 rows][64 bytes].
// Rows of the second chunk are swapped in pairs, so that the eight threads that copy 128 bytes of one row meet different banks.
DEVICE u32 tile_row(u32 chunk, u32 row, u32 t) { return 16384 + (chunk * 64 + (row ^ chunk)) * 64 + t * 16; }

KERNEL __launch_bounds__(128, 2) product_tile(const __grid_constant__ Product p) {
    constexpr u32 STAGES = 4, STAGE = 24576;
    constexpr int TF = 4, TR = 4;                       // instruction tiles of a warp: outputs, rows
    extern __shared__ uint4 tile_memory[];
    let_next_start();
    const u32 tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
    const u32 tile = blockIdx.x, f0 = tile / p.row_tiles * 128, row0 = tile % p.row_tiles * 64;
    const u32 rows = *(const u32*)p.count;
    if (row0 >= rows) {
        wait_for_previous();
        return;
    }
    // Steps of a slice, the last of one chunk where their number is odd.
    const u32 slices = p.partial ? 1 : p.slices, first_slice = blockIdx.y * slices, last_slice = first_slice + slices;
    struct Cursor {
        u32 slice, chunk, end, stage, phase;
    };
    auto begin = [&] { return Cursor{first_slice, slice_start(p, first_slice), slice_start(p, first_slice + 1), 0, 0}; };
    auto advance = [&](Cursor& c) {
        c.chunk += 2;
        if (c.chunk >= c.end) {
            c.chunk = c.end;
            c.end = slice_start(p, ++c.slice + 1);
        }
        if (++c.stage == STAGES) {
            c.stage = 0;
            c.phase ^= 1;
        }
    };

    const u32 base = (u32)__cvta_generic_to_shared(tile_memory);
    const u16* w = (const u16*)p.w + (u64)f0 * p.k;
#if __CUDA_ARCH__ >= 900
    __shared__ u64 arrived[STAGES];
    const u32 barrier = (u32)__cvta_generic_to_shared(arrived);
    if (tid == 0) {
        for (int s = 0; s < STAGES; s++) barrier_init(barrier + 8 * s);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    auto fetch_w = [&](const Cursor& c) {
        if (tid >= 8) return;
        const u32 bytes = min(2u, c.end - c.chunk) * 1024, done = barrier + c.stage * 8;
        if (tid == 0) barrier_expect(done, 8 * bytes);
        __syncwarp(0xff);
        fetch_bulk(base + c.stage * STAGE + 2048 * tid, w + (u64)16 * tid * p.k + c.chunk * 512, bytes, done);
    };
    auto wait_w = [&](const Cursor& c) { barrier_wait(barrier + c.stage * 8, c.phase); };
#else
    auto fetch_w = [&](const Cursor& c) {
        const u32 to = base + c.stage * STAGE + 16 * tid;
        const bool live = c.chunk + tid / 64 < c.end;
#pragma unroll
        for (int i = 0; i < 8; i++) fetch(to + 2048 * i, live ? w + (u64)16 * i * p.k + c.chunk * 512 + 8 * tid : w, live);
    };
    auto wait_w = [](const Cursor&) {};
#endif
    // Eight threads copy 128 bytes of one row; 16 rows at once.
    const u32 copy_row = tid / 8, copy_chunk = tid / 4 % 2, copy_to = base + tile_row(copy_chunk, copy_row, t);
    const u16* x = (const u16*)p.x + (u64)(row0 + copy_row) * p.k + copy_chunk * 32 + t * 8;
    auto fetch_x = [&](const Cursor& c) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool live = c.chunk + copy_chunk < c.end && row0 + 16 * i + copy_row < rows;
            fetch(copy_to + c.stage * STAGE + 1024 * i, live ? x + (u64)16 * i * p.k + c.chunk * 32 : (const u16*)p.x, live);
        }
    };
    Cursor ahead = begin();
#pragma unroll
    for (u32 s = 0; s < STAGES - 1; s++)
        if (ahead.slice < last_slice) {
            fetch_w(ahead);
            advance(ahead);
        }
    wait_for_previous();
    ahead = begin();
#pragma unroll
    for (u32 s = 0; s < STAGES - 1; s++) {
        if (ahead.slice < last_slice) {
            fetch_x(ahead);
            advance(ahead);
        }
        fetch_commit();
    }

    const u32 warp_f = warp / 2 * 64, warp_r = warp % 2 * 32;
    const char* my_w = (const char*)tile_memory + warp_f * 128 + lane * 16;
    const char* my_x[2] = {(const char*)tile_memory + tile_row(0, warp_r + g, t), (const char*)tile_memory + tile_row(1, warp_r + g, t)};
    float total[TF][TR][4];
#pragma unroll
    for (int i = 0; i < TF; i++)
#pragma unroll
        for (int j = 0; j < TR; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) total[i][j][e] = 0.f;
    Cursor now = begin();
    while (now.slice < last_slice) {
        float sum[TF][TR][4];
#pragma unroll
        for (int i = 0; i < TF; i++)
#pragma unroll
            for (int j = 0; j < TR; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) sum[i][j][e] = 0.f;
        for (const u32 slice = now.slice; now.slice == slice; advance(now)) {
            fetch_wait<STAGES - 2>();
            wait_w(now);
            __syncthreads();
            if (ahead.slice < last_slice) {
                fetch_w(ahead);
                fetch_x(ahead);
                advance(ahead);
            }
            fetch_commit();
            auto chunk = [&](int c) {
                uint4 a[TF][2], b[TR];
                const u32 stage = now.stage * STAGE;
#pragma unroll
                for (int j = 0; j < TR; j++) b[j] = *(const uint4*)(my_x[c] + stage + 512 * j);
#pragma unroll
                for (int i = 0; i < TF; i++) {
                    a[i][0] = *(const uint4*)(my_w + stage + 2048 * i + 1024 * c);
                    a[i][1] = *(const uint4*)(my_w + stage + 2048 * i + 1024 * c + 512);
                }
#pragma unroll
                for (int i = 0; i < TF; i++) {
#pragma unroll
                    for (int j = 0; j < TR; j++) multiply<0>(sum[i][j], a[i][0], b[j]);
#pragma unroll
                    for (int j = 0; j < TR; j++) multiply<1>(sum[i][j], a[i][1], b[j]);
                }
            };
            if (now.chunk + 1 < now.end) {
                chunk(0);
                chunk(1);
            } else {
                chunk(0);
            }
        }
#pragma unroll
        for (int i = 0; i < TF; i++)
#pragma unroll
            for (int j = 0; j < TR; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) total[i][j][e] += sum[i][j][e];
    }
    fetch_wait<0>();

    __syncthreads();
    float* out = (float*)tile_memory;                        // [64][132]: a stride at which the writes below meet no bank twice
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
    const u32 live = min(64u, rows - row0);
    if (p.partial) {
        float4* to = (float4*)p.partial + ((u64)blockIdx.y * gridDim.x + tile) * (64 * 32);
        for (u32 r = warp; r < live; r += 4) to[r * 32 + lane] = *(const float4*)(out + r * 132 + 4 * lane);
    } else if (p.mode == HEAD) {
        for (u32 r = warp; r < live; r += 4) store_best(p, row0 + r, f0, [&](u32 i) { return out[r * 132 + i]; });
    } else {
        for (u32 i = tid; i < live * 64; i += 128) {
            const u32 r = i / 64, f = 2 * (i % 64);
            const float2 y = *(const float2*)(out + r * 132 + f);
            if (f0 + f < p.n) store_pair(p, blockIdx.y, row0 + r, f0 + f, y.x, y.y);
        }
    }
}

// Grid: the tiles of product_tile, 8 groups of 8 rows for each part. A thread takes four outputs of one row.
KERNEL __launch_bounds__(256) product_sum(const __grid_constant__ Product p) {
    let_next_start();
    wait_for_previous();
    const u32 tile = blockIdx.x, f0 = tile / p.row_tiles * 128, part = blockIdx.y / 8, r = blockIdx.y % 8 * 8 + threadIdx.x / 32, f = 4 * (threadIdx.x % 32);
    const u32 row = tile % p.row_tiles * 64 + r;
    if (row >= *(const u32*)p.count) return;
    const float4* from = (const float4*)p.partial + ((u64)part * p.slices * gridDim.x + tile) * (64 * 32) + r * 32 + f / 4;
    float4 of[8], y = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (u32 s = 0; s < 8; s++)
        if (s < p.slices) of[s] = __ldcg(from + (u64)s * gridDim.x * (64 * 32));
#pragma unroll
    for (u32 s = 0; s < 8; s++)
        if (s < p.slices) {
            y.x += of[s].x;
            y.y += of[s].y;
            y.z += of[s].z;
            y.w += of[s].w;
        }
    if (f0 + f < p.n) store_pair(p, part, row, f0 + f, y.x, y.y);
    if (f0 + f + 2 < p.n) store_pair(p, part, row, f0 + f + 2, y.z, y.w);
}
