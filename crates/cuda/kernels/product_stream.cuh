// Products of a few rows.
//
// product_<rows>_<encoding>: up to so many rows by tiles of 384 / slices outputs. A block of 8 warps walks over the tiles of one split;
// a warp takes 48 outputs and one slice. What it multiplies travels through a ring in shared memory, across the ends of tiles: a step of
// weights (3 KB of bf16, or 1.5 KB of 8 or 4 bits with their scales) and of x (512 bytes a chunk for eight rows) at a time. A warp reads
// what it fetched itself, so the ring needs no barrier: it is what registers would be, were there enough of them. At the end of a tile the
// slices meet in shared memory. Moves 2 n k bytes of bf16 weights and, from the second-level cache, 2 rows k for each 48 outputs: 48 a warp
// rather than 16 for that, and as many more bytes on their way in a step. What a copy writes begins at a multiple of 128 bytes of shared
// memory: where it did not, the head of 32 rows in 8 bits took a third longer.
//
// Grid: blocks, one an SM at the most, by splits. The rings fill with weights before the previous kernel has ended. Shared memory
// (src/kernels.rs, `stream_bytes`): 115 to 127 and 193 to 227 KB where an SM has 228, so that no two products share one and each has
// its even part of the memory's bandwidth; else up to 97 KB. x is read up to a multiple of eight rows.
//
// What was measured on the way here is in docs/performance.md, "Tried".

// 227 KB of shared memory for a block; `Image::has_large_shared` is its twin. Compute capability 8.0 has 163, but shares its code with the
// PTX for cards that have 99.
#if __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000
constexpr bool LARGE_SHARED = true;
#else
constexpr bool LARGE_SHARED = false;
#endif

constexpr u32 STREAM_WARPS = 8, STREAM_TF = 3;          // of a block; instruction tiles of outputs of a warp
constexpr u32 STREAM_WIDTH = 16 * STREAM_TF;            // outputs of a warp
constexpr u32 STREAM_OUTPUTS = STREAM_WARPS * STREAM_WIDTH;             // of a tile, if k is in one slice

// Chunks on their way for TR instruction tiles of eight rows: what a block's shared memory holds.
template <u32 E, u32 TR> static __device__ constexpr u32 ring_chunks() {
    constexpr u32 CHUNKS[2][2][4] = {{{3, 3, 4, 6}, {2, 2, 2, 3}}, {{4, 5, 6, 10}, {4, 5, 5, 6}}};
    return CHUNKS[LARGE_SHARED][TR > 1][E];
}

template <u32 E, u32 TR> struct Streaming {
    static constexpr u32 CHUNKS = E == INT4 && ring_chunks<E, TR>() % 2 == 0 ? 2 : 1;           // of a step
    static constexpr u32 RING = ring_chunks<E, TR>() / CHUNKS;          // steps
    static constexpr u32 PANEL = Encoded<E>::BYTES * CHUNKS;            // bytes of a panel in a step
    static constexpr u32 SCALES = PANEL * STREAM_TF;                    // where they begin in a step: 32 bytes for each chunk of a panel
    static constexpr u32 X = SCALES + (Encoded<E>::SCALED ? (32 * CHUNKS * STREAM_TF + 127) / 128 * 128 : 0);
    static constexpr u32 STAGE = X + 512 * CHUNKS * TR;                 // bytes of a step
    static constexpr u32 EARLY = CHUNKS > 1 && RING > 3 ? 3 : RING;     // steps that are fetched before the previous kernel has ended
    static constexpr u32 PACE = 1024 / PANEL;                           // as many steps have about the bytes of one of bf16
    static constexpr u32 ROUND = LARGE_SHARED ? 8 * TR : 8;             // rows that leave at once
    static constexpr u32 LD = STREAM_WIDTH + 4;                         // a stride at which the writes of a round meet no bank twice
};

// The outputs of a tile leave: the slices of each are added in a fixed order. `sums` is f32 [warp][ROUND][LD].
template <u32 E, u32 TR> DEVICE void store_tile(const Product& p, float* sums, const float (&sum)[STREAM_TF][TR][4], u32 split, u32 f0, u32 rows) {
    constexpr u32 ROUND = Streaming<E, TR>::ROUND, LD = Streaming<E, TR>::LD;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, bits = slice_bits(p);
    const u32 across = STREAM_OUTPUTS / 4 >> bits;      // threads of a row, four outputs each
    // The first slice of output f of the tile; the next are ROUND * LD further each.
    auto first_of = [&](u32 r, u32 f) { return sums + ((f / STREAM_WIDTH << bits) * ROUND + r) * LD + f % STREAM_WIDTH; };
#pragma unroll 1
    for (u32 r0 = 0; r0 < rows; r0 += ROUND) {
        float* to = sums + (warp * ROUND + 2 * t) * LD + g;
#pragma unroll
        for (u32 n = 0; n < TR; n++)
            if (8 * n / ROUND * ROUND == r0)
#pragma unroll
                for (u32 m = 0; m < STREAM_TF; m++) {
                    float* at = to + 8 * n % ROUND * LD + 16 * m;
                    at[0] = sum[m][n][0];
                    at[LD] = sum[m][n][1];
                    at[8] = sum[m][n][2];
                    at[LD + 8] = sum[m][n][3];
                }
        __syncthreads();
        const u32 live = min(ROUND, rows - r0);
        if (p.mode == HEAD) {                           // one slice
            for (u32 r = warp; r < live; r += STREAM_WARPS)
#pragma unroll 1
                for (u32 b = 0; b < STREAM_OUTPUTS && f0 + b < p.n; b += 128)
                    store_best(p, r0 + r, f0 + b, [&](u32 i) { return 0.f + *first_of(r, b + i); });
        } else {
            for (u32 i = threadIdx.x; i < live * across; i += 32 * STREAM_WARPS) {
                const u32 r = (i << bits) / (STREAM_OUTPUTS / 4), f = 4 * (i - r * across);
                if (f0 + f >= p.n) continue;
                const float* from = first_of(r, f);
                float4 y = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 1
                for (u32 s = 0; s < p.slices; s += 4, from += 4 * ROUND * LD) {
                    float4 of[4];
#pragma unroll
                    for (u32 j = 0; j < 4; j++)
                        if (s + j < p.slices) of[j] = *(const float4*)(from + j * ROUND * LD);
#pragma unroll
                    for (u32 j = 0; j < 4; j++)
                        if (s + j < p.slices) add(y, of[j]);
                }
                store_four(p, split, r0 + r, f0 + f, y);
            }
        }
        __syncthreads();
    }
}

template <u32 E, u32 TR> DEVICE void product_stream(const Product& p) {
    using Sizes = Streaming<E, TR>;
    constexpr u32 TF = STREAM_TF, RING = Sizes::RING, STAGE = Sizes::STAGE, CHUNKS = Sizes::CHUNKS;
    constexpr u32 BYTES = Encoded<E>::BYTES, PANEL = Sizes::PANEL;
    constexpr bool SHARED = Encoded<E>::SCALED;         // lanes read what others copied
    extern __shared__ uint4 stream_memory[];            // [warp][RING] steps, then what store_tile asks for
    let_next_start();
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 split = blockIdx.y, rows = *(const u32*)p.count;
    const u32 bits = slice_bits(p), slice = (split << bits) + warp % (1 << bits), column = warp >> bits, width = STREAM_OUTPUTS >> bits;
    const u32 tiles = ((p.n << bits) + STREAM_OUTPUTS - 1) / STREAM_OUTPUTS, padded = (p.n + 127) / 128 * 128;
    const u32 start = slice_start(p, slice), end = slice_start(p, slice + 1);
    const char* ring = (const char*)stream_memory + warp * RING * STAGE;
    const u32 ring_to = (u32)__cvta_generic_to_shared(ring);

    // Where the copies are: `live` of the warp's panels are in the matrix. A lane copies what it reads, but for scales, 16 bytes a lane, and where
    // a fragment's 256 bytes are copied together with those of the next.
    const u32 scaled_panel = lane / (2 * CHUNKS), scaled_chunk = lane / 2 % CHUNKS;
    struct Cursor {
        const char *w, *x, *scales;
        u32 tile, chunk, live;
    };
    auto enter = [&](u32 tile) {
        const u32 f = tile * width + column * STREAM_WIDTH;
        const char* panel = panel_at(p, f / 16);
        const char* w = panel + p.head + start * BYTES + 16 * lane;
        const char* x = (const char*)p.x + ((u64)g * p.k + start * 32 + t * 8) * 2;
        const char* scales = panel + (u64)p.stride * scaled_panel + lane % 2 * 16;
        return Cursor{w, x, scales, tile, start, tile < tiles && f < padded ? min(TF, (padded - f) / 16) : 0};
    };
    auto advance = [&](Cursor& c) {
        c.w += PANEL;
        c.x += 64 * CHUNKS;
        c.chunk += CHUNKS;
        if (c.chunk >= end) c = enter(c.tile + gridDim.x);
    };
    auto fetch_w = [&](u32 stage, const Cursor& c) {
        const u32 to = ring_to + stage;
        const bool live = CHUNKS == 1 || c.chunk + 16 * lane / BYTES < end;
#pragma unroll
        for (u32 m = 0; m < TF; m++)
            if (m < c.live && live) {
                const char* from = c.w + (u64)p.stride * m;
                const u32 into = to + PANEL * m;
#pragma unroll
                for (u32 i = 0; i < PANEL / 512; i++) fetch(into + 512 * i + 16 * lane, from + 512 * i, true);
                if (PANEL % 512) fetch_8(into + PANEL / 512 * 512 + 8 * lane, from + PANEL / 512 * 512 - 8 * lane);
            }
        if (Encoded<E>::SCALED && scaled_panel < c.live) {
            const u32 chunk = c.chunk + scaled_chunk;
            const bool live = CHUNKS == 1 || chunk < end;
            fetch(to + Sizes::SCALES + 16 * lane, c.scales + (live ? (chunk >> p.parameter) * 32 : 0), live);
        }
    };
    // A step may have a chunk behind the end of the slice: it meets zeros.
    auto fetch_x = [&](u32 stage, const Cursor& c) {
#pragma unroll
        for (u32 n = 0; n < TR; n++)
            if (8 * n + (TR == 1 ? g : 0) < rows && c.live)
#pragma unroll
                for (u32 i = 0; i < CHUNKS; i++)
                    fetch(ring_to + stage + Sizes::X + 512 * (CHUNKS * n + i) + 16 * lane, c.x + (u64)p.k * (16 * n) + 64 * i, i == 0 || c.chunk + i < end);
    };

    // A few bytes on their way at a time: what the previous kernel still reads from the second-level cache queues behind these copies, a whole
    // ring's for 3 us; it may have ended before they are there, so 4 bits leave some for later. Where kernels do not overlap nothing runs beside.
    Cursor ahead = enter(blockIdx.x);
#pragma unroll
    for (u32 i = 0; i < Sizes::EARLY; i++) {
        if (OVERLAP && i >= Sizes::PACE) fetch_wait<Sizes::PACE - 1>();
        fetch_w(i * STAGE, ahead);
        fetch_commit();
        advance(ahead);
    }
    wait_for_previous();
    ahead = enter(blockIdx.x);
#pragma unroll
    for (u32 i = 0; i < RING; i++) {
        fetch_x(i * STAGE, ahead);
        if (i >= Sizes::EARLY) fetch_w(i * STAGE, ahead);
        fetch_commit();
        advance(ahead);
    }

    u32 stage = 0;                                      // in bytes
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const u32 panel = (tile * width + column * STREAM_WIDTH) / 16;
        float sum[TF][TR][4];
        clear(sum);
        for (u32 chunk = start; chunk < end; chunk += CHUNKS) {
            const char* from = ring + stage;
            Part<E> part[CHUNKS][TF];
            uint4 b[CHUNKS][TR];
            fetch_wait<RING - 1>();
            if (SHARED) __syncwarp();
#pragma unroll
            for (u32 i = 0; i < CHUNKS; i++) {
#pragma unroll
                for (u32 n = 0; n < TR; n++) b[i][n] = *(const uint4*)(from + Sizes::X + 512 * (CHUNKS * n + i) + 16 * lane);
#pragma unroll
                for (u32 m = 0; m < TF; m++)
                    part[i][m] = load_part<E>(from + PANEL * m + BYTES * i, from + Sizes::SCALES + 32 * (CHUNKS * m + i) + 4 * g, lane);
            }
            if (SHARED) __syncwarp();
            fetch_x(stage, ahead);
            fetch_w(stage, ahead);
            fetch_commit();
            advance(ahead);
            stage = stage == (RING - 1) * STAGE ? 0 : stage + STAGE;
#pragma unroll
            for (u32 i = 0; i < CHUNKS; i++) {
                uint4 a[TF][2];
#pragma unroll
                for (u32 m = 0; m < TF; m++) decode<E>(p, panel + m, part[i][m], a[m]);
#pragma unroll
                for (u32 m = 0; m < TF; m++)
#pragma unroll
                    for (u32 n = 0; n < TR; n++) multiply<0>(sum[m][n], a[m][0], b[i][n]);
#pragma unroll
                for (u32 m = 0; m < TF; m++)
#pragma unroll
                    for (u32 n = 0; n < TR; n++) multiply<1>(sum[m][n], a[m][1], b[i][n]);
            }
        }
        store_tile<E, TR>(p, (float*)stream_memory + STREAM_WARPS * RING * STAGE / 4, sum, split, tile * width, rows);
    }
}

// Bounds that leave registers to blocks of attention and norms beside them.
#define PRODUCT_STREAM(NAME, E) \
    KERNEL __launch_bounds__(32 * STREAM_WARPS, 2) product_8_##NAME(const __grid_constant__ Product p) { product_stream<E, 1>(p); } \
    KERNEL __launch_bounds__(32 * STREAM_WARPS, 1) product_32_##NAME(const __grid_constant__ Product p) { product_stream<E, 4>(p); }
PRODUCT_STREAM(bf16, BF16)
PRODUCT_STREAM(bf12, BF12)
PRODUCT_STREAM(int8, INT8)
PRODUCT_STREAM(int4, INT4)
