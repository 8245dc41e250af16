// Products of many rows.
//
// product_tile_<encoding>: any number of rows, in tiles of 128 outputs by 64 rows, a warp for 64 by 32 of them, or 32 by 64. Chunks come in steps of two, copied
// to shared memory three steps ahead. From there operands go to registers a group of 16 instructions ahead, across the end of a step too,
// so that loads, copies and the barrier run beside instructions. Grid: tiles of rows, then tiles of outputs by splits; with p.partial by
// slices of all splits, one a block, and product_sum adds them up. Reads 24 KB of bf16 for each step of 128 x 64 x 64 multiply-adds.
//
// Measured on an H200: 340 TFLOP/s for 1024 rows, which takes 8 TB/s from the second-level cache. Not faster: a fourth step ahead, tiles
// of 128 rows (fewer bytes, but one block an SM, and fewer tiles fill the SMs less evenly), blocks that walk over tiles.

// Shared memory of a step: 128 outputs as fragments [8 panels][2 chunks], their scales [8][2][8][2], then 64 rows of 128 bytes. The halves of odd rows are swapped,
// so that eight threads that read 64 bytes of two rows each meet different banks.
DEVICE u32 tile_row(u32 row, u32 chunk, u32 t) { return (2 * row + (chunk ^ row % 2)) * 64 + t * 16; }

template <u32 E> DEVICE void product_tile(const Product& p) {
    constexpr u32 BYTES = Encoded<E>::BYTES, SCALES = 16 * BYTES, X = SCALES + (Encoded<E>::SCALED ? 512 : 0);
    constexpr u32 STAGES = 3, STAGE = X + 8192;         // `tile_bytes` in src/kernels.rs
    // Instruction tiles of a warp: outputs, rows. What must be decoded is decoded by one warp, for all rows.
    constexpr bool ALL_ROWS = E != BF16;
    constexpr int TF = ALL_ROWS ? 2 : 4, TR = ALL_ROWS ? 8 : 4;
    extern __shared__ uint4 tile_memory[];
    let_next_start();
    const u32 tid = threadIdx.x, lane = tid % 32, warp = tid / 32, g = lane / 4, t = lane % 4;
    const u32 tiles = (p.n + 127) / 128, run = blockIdx.y / tiles, f0 = blockIdx.y % tiles * 128, row0 = blockIdx.x * 64;
    const u32 rows = *(const u32*)p.count;
    if (row0 >= rows) return;

    // Where the copies are: steps of a slice, the last of one chunk where their number is odd.
    const u32 first = p.partial ? run : run * p.slices, last = p.partial ? run + 1 : first + p.slices;
    struct Cursor {
        u32 slice, chunk, end, to;                      // `to`: bytes into tile_memory
    };
    auto advance = [&](Cursor& c) {
        c.chunk += 2;
        if (c.chunk >= c.end) {
            c.chunk = c.end;
            c.end = slice_start(p, ++c.slice + 1);
        }
        c.to = c.to == (STAGES - 1) * STAGE ? 0 : c.to + STAGE;
    };
    // Two chunks of a panel are PIECES of 16 bytes. Threads copy as many panels at once as they can, and 16 bytes of every 16th row.
    constexpr u32 PIECES = BYTES / 8, AT_ONCE = 128 / PIECES;
    const u32 base = (u32)__cvta_generic_to_shared(tile_memory), copy_row = tid / 8, x_chunk = tid / 4 % 2, piece = tid % PIECES;
    const u32 w_chunk = piece / (PIECES / 2), w_panel = tid / PIECES;
    const char* w = panel_at(p, f0 / 16 + w_panel) + p.head + 16 * piece;
    const u16* x = (const u16*)p.x + (u64)(row0 + copy_row) * p.k + x_chunk * 32 + t * 8;
    auto fetch_w = [&](const Cursor& c) {
        const bool live = c.chunk + w_chunk < c.end;
        const char* from = w + (live ? c.chunk * BYTES : 0);
#pragma unroll
        for (u32 i = 0; i < 8 / AT_ONCE; i++)
            if (w_panel < AT_ONCE) fetch(base + c.to + (w_panel + AT_ONCE * i) * 2 * BYTES + 16 * piece, from + (u64)p.stride * (AT_ONCE * i), live);
        if (Encoded<E>::SCALED && tid < 32) {
            const u32 chunk = c.chunk + tid / 2 % 2;
            const char* scales = panel_at(p, f0 / 16 + tid / 4) + tid % 2 * 16;
            fetch(base + c.to + SCALES + 16 * tid, scales + (chunk < c.end ? (chunk >> p.parameter) * 32 : 0), chunk < c.end);
        }
    };
    auto fetch_x = [&](const Cursor& c) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const bool live = c.chunk + x_chunk < c.end && row0 + copy_row + 16 * i < rows;
            const u16* from = live ? x + (u64)(16 * i) * p.k + c.chunk * 32 : (const u16*)p.x;
            fetch(base + c.to + X + tile_row(copy_row, x_chunk, t) + 2048 * i, from, live);
        }
    };
    const Cursor start = {first, slice_start(p, first), slice_start(p, first + 1), 0};
    Cursor ahead = start;
#pragma unroll
    for (u32 s = 0; s < STAGES; s++)
        if (ahead.slice < last) {
            fetch_w(ahead);
            advance(ahead);
        }
    wait_for_previous();
    ahead = start;
#pragma unroll
    for (u32 s = 0; s < STAGES; s++) {
        if (ahead.slice < last) {
            fetch_x(ahead);
            advance(ahead);
        }
        fetch_commit();
    }

    // The groups of a step: two chunks, two halves of a warp's four tiles of outputs or eight of rows; what both share is loaded once.
    const u32 warp_f = ALL_ROWS ? warp * 32 : warp % 2 * 64, warp_r = ALL_ROWS ? 0 : warp / 2 * 32;
    const u32 panel = warp_f / 16;
    const char* my_x[2] = {(const char*)tile_memory + X + tile_row(warp_r + g, 0, t), (const char*)tile_memory + X + tile_row(warp_r + g, 1, t)};
    Part<E> part[2][2];
    uint4 a[2][2], b[2][4];
    auto load = [&](u32 stage, int group) {
        const int c = group / 2, half = group % 2;
        const char* memory = (const char*)tile_memory + stage;
        if (!ALL_ROWS || half == 0)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const u32 at = 2 * (panel + (ALL_ROWS ? 0 : 2 * half) + i) + c;
                part[ALL_ROWS ? c : half][i] = load_part<E>(memory + at * BYTES, memory + SCALES + 32 * at + 4 * g, lane);
            }
        if (ALL_ROWS || half == 0)
#pragma unroll
            for (int j = 0; j < 4; j++) b[ALL_ROWS ? half : c][j] = *(const uint4*)(my_x[c] + stage + 1024 * ((ALL_ROWS ? 4 * half : 0) + j));
    };
    float total[TF][TR][4];
    clear(total);
    fetch_wait<STAGES - 1>();
    __syncthreads();
    load(0, 0);
    for (u32 slice = first, stage = 0; slice < last; slice++) {
        float sum[TF][TR][4];
        clear(sum);
        for (u32 chunk = slice_start(p, slice), end = slice_start(p, slice + 1); chunk < end; chunk += 2) {
            const u32 next = stage == (STAGES - 1) * STAGE ? 0 : stage + STAGE;
#pragma unroll
            for (int group = 0; group < 4; group++) {
                if (group == 3) {                       // all of this step is in registers: its place is free
                    fetch_wait<STAGES - 2>();
                    __syncthreads();
                }
                load(group == 3 ? next : stage, (group + 1) % 4);
                if (group == 3) {
                    if (ahead.slice < last) {
                        fetch_w(ahead);
                        fetch_x(ahead);
                        advance(ahead);
                    }
                    fetch_commit();
                }
                const int c = group / 2, half = group % 2;      // a chunk past the end meets zeros and adds nothing
                const int of = ALL_ROWS ? 0 : 2 * half, row = ALL_ROWS ? 4 * half : 0;
                if (!ALL_ROWS || half == 0)
#pragma unroll
                    for (int i = 0; i < 2; i++) decode<E>(p, f0 / 16 + panel + of + i, part[ALL_ROWS ? c : half][i], a[i]);
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) multiply<0>(sum[of + i][row + j], a[i][0], b[ALL_ROWS ? half : c][j]);
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) multiply<1>(sum[of + i][row + j], a[i][1], b[ALL_ROWS ? half : c][j]);
            }
            stage = next;
        }
#pragma unroll
        for (int i = 0; i < TF; i++)
#pragma unroll
            for (int j = 0; j < TR; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) total[i][j][e] += sum[i][j][e];
    }

    __syncthreads();
    float* out = (float*)tile_memory;                   // [64][132]: a stride at which the writes below meet no bank twice
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
        float* to = (float*)p.partial + ((u64)row0 * p.splits * p.slices + first) * tiles * 128 + f0 + 4 * lane;
        for (u32 r = warp; r < live; r += 4) *(float4*)(to + (u64)r * p.splits * p.slices * tiles * 128) = *(const float4*)(out + r * 132 + 4 * lane);
    } else if (p.mode == HEAD) {
        for (u32 r = warp; r < live; r += 4) store_best(p, row0 + r, f0, [&](u32 i) { return out[r * 132 + i]; });
    } else {
        const u32 f = 2 * (tid % 64);
        for (u32 i0 = 0; f0 + f < p.n && i0 < live; i0 += 16)
            store_pairs<8>(p, run, [&](u32 i) {
                const u32 r = i0 + 2 * i + tid / 64, there = min(r, live - 1);
                const float2 y = *(const float2*)(out + there * 132 + f);
                return Pair{row0 + there, f0 + f, y.x, y.y, r < live};
            });
    }
}

#define PRODUCT_TILE(NAME, E) \
    KERNEL __launch_bounds__(128, 2) product_tile_##NAME(const __grid_constant__ Product p) { product_tile<E>(p); }
PRODUCT_TILE(bf16, BF16)
PRODUCT_TILE(bf12, BF12)
PRODUCT_TILE(int8, INT8)
PRODUCT_TILE(int4, INT4)

// Grid: 8 rows, 128 outputs of a split a block. A thread takes four outputs of one row.
KERNEL __launch_bounds__(256) product_sum(const __grid_constant__ Product p) {
    let_next_start();
    const u32 tiles = (p.n + 127) / 128, split = blockIdx.y / tiles, width = tiles * 128;
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32, f = blockIdx.y % tiles * 128 + 4 * (threadIdx.x % 32);
    if (row >= *(const u32*)p.count) return;
    wait_for_previous();
    const float* from = (const float*)p.partial + ((u64)row * p.splits + split) * p.slices * width + f;
    float4 of[8], y = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (u32 s = 0; s < 8; s++)
        if (s < p.slices) of[s] = __ldcg((const float4*)(from + s * width));
#pragma unroll
    for (u32 s = 0; s < 8; s++)
        if (s < p.slices) add(y, of[s]);
    if (f < p.n) store_four(p, split, row, f, y);
}
