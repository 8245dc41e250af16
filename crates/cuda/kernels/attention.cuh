// o[r, h] = sum_j softmax_j(q[r, h] . key_j * scale) value_j over position(r) - window < j <= position(r)
//                                                                                      twin: tests/gpu/twins_attention.rs, `Case::twin`
//
// q bf16 [rows, heads * head_dim], keys and values bf16 in the stream's ring; `group` query heads share a key head (group <= 16).
//
// A row's result is made of chunks of 64 keys, cut at absolute positions: the largest score, weights relative to it rounded to bf16, their
// sum, and the values so weighted. Four chunks, 256 keys, are a run: they are joined first to last, each with what came before. Runs are
// weighted by their maxima and added first to last. A masked key adds exactly nothing and neither does a chunk or a run without keys; a
// score, and a sum over a chunk, is the same chain of instructions whichever warp runs it. So a row's bits depend on its position alone:
// neither on the rows beside it, nor on the ring's length, nor on which block takes which part.
//
// attention_<head_dim> takes 64 queries an item (64 / group consecutive positions of one stream, the heads of a group beside each other),
//   which share a run of keys (where there are few, a chunk) through shared memory, 16 queries a warp; the next chunk travels while one
//   is worked on.
// attention_few_<head_dim> takes 16 queries and a chunk an item: its four warps each score and weigh a part of the keys, then sum a part
//   of the outputs. Its blocks are small, so that several fit beside those of the product before and start their copies early.
// Both leave partial results, f32 sums [.., heads, head_dim] and (maximum, sum) [.., heads], for attention_combine and
// attention_combine_few.
//
// Grid: key heads by blocks, which walk over the items: the blocks with work come first and spread over all SMs; 128 threads. Shared
// memory: keys and values of two chunks and 64 queries, 85 KB for heads of 128, or of one chunk, 16 queries and their weights, 41 KB
// (src/kernels.rs, `attention_bytes`).
// The keys of earlier passes are on their way before the product that makes queries and new keys has ended.

struct Attention {
    u64 q;              // bf16 [rows, ldq]
    u64 out;            // bf16 [rows, ldo]
    u64 partial;        // f32 [partials, heads, head_dim]
    u64 norms;          // f32 pairs [partials, heads]: maximum and sum
    u64 rows;           // Row [..]
    u64 items;          // Item [..]
    u64 counts;         // Counts
    u32 ldq;
    u32 ldo;
    u32 group;
    u32 kv_heads;
    u32 head_dim;
    u32 window;
    u32 layer;
    float scale;        // log2(e) / sqrt(head_dim)
    u32 share;          // 65536 / group, rounded up: q / group is q * share / 65536 for q < 64
    u32 layers;         // of the rings
};

constexpr u32 CHUNK = 2 * SLOT_BLOCK;           // keys; KEY_CHUNK in src/limits.rs is its twin
constexpr u32 WEIGHTS_LD = CHUNK + 8;           // rows an odd number of 16 bytes apart

DEVICE float power_of_two(float v) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

// -inf - -inf would be no number.
DEVICE float weight_of(float score, float max) { return max == -INFINITY ? 0.f : power_of_two(__fsub_rn(score, max)); }

// What becomes of two partial results when they are joined; fused as written, so that all kernels give the same bits.
struct Join {
    float max, keep, add;
    __device__ __forceinline__ Join(float mine, float other) : max(fmaxf(mine, other)), keep(weight_of(mine, max)), add(weight_of(other, max)) {}
    __device__ __forceinline__ float operator()(float mine, float other) const { return __fmaf_rn(other, add, __fmul_rn(mine, keep)); }
    __device__ __forceinline__ void add_to(float (&mine)[4], const float4& other) const {
        mine[0] = (*this)(mine[0], other.x);
        mine[1] = (*this)(mine[1], other.y);
        mine[2] = (*this)(mine[2], other.z);
        mine[3] = (*this)(mine[3], other.w);
    }
};

// Four 8 x 8 matrices; lane i names row i % 8 of matrix i / 8. A thread gets elements 2t and 2t + 1 of row g of each.
DEVICE void load_matrices(u32 (&m)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(at) : "memory");
}

// The same of the transposed matrices.
DEVICE void load_transposed(u32 (&m)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(at) : "memory");
}

// TILES of 16 queries a block, WAYS warps for each.
template <int HD, int TILES, int WAYS> DEVICE void attention(const Attention& p) {
    constexpr u32 THREADS = 32 * TILES * WAYS, LD = HD + 8;             // rows an odd number of 16 bytes apart
    constexpr int SCORED = CHUNK / 8 / WAYS;                            // tiles of 8 keys that a warp scores
    constexpr int UNITS = HD / 16, MINE = (UNITS + WAYS - 1) / WAYS;    // 16 outputs each; those that a warp sums
    constexpr u32 STAGES = TILES > 1 ? 2 : 1;                           // with one, an item is a chunk
    constexpr u32 CHUNK_BYTES = CHUNK * LD * 2;
    // Copying: so many threads a row, each 16 bytes; so many rows at once.
    constexpr u32 ACROSS = HD <= 16 ? 2 : HD <= 32 ? 4 : HD <= 64 ? 8 : 16, DOWN = THREADS / ACROSS;
    constexpr u32 TOLD = WAYS > 1 ? 16 * TILES * (WEIGHTS_LD * 2 + WAYS * 4) : 0;
    static_assert(HD != 128 || (2 * STAGES * CHUNK + 16 * TILES) * LD * 2 + TOLD == (WAYS > 1 ? 41728 : 87040), "as src/kernels.rs");
    extern __shared__ uint4 shared[];                                   // u16 [STAGES][keys, values][CHUNK][LD], queries [16 TILES][LD]
    u16* query = (u16*)shared + 2 * STAGES * CHUNK * LD;
    u16* weights = query + 16 * TILES * LD;                             // [16 TILES][WEIGHTS_LD], if warps share a tile
    float* maxima = (float*)(weights + 16 * TILES * WEIGHTS_LD);        // [16 TILES][WAYS], of each warp's keys
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, tile = warp / WAYS, part = warp % WAYS;
    const u32 kv_head = blockIdx.x, heads = p.kv_heads * p.group, kv_dim = p.kv_heads * HD, per_slot = 2 * p.layers * kv_dim;
    const u32 query_g = tile * 16 + g, query_g8 = query_g + 8, down = threadIdx.x / ACROSS, across = threadIdx.x % ACROSS * 8;
    const u32 keys = (u32)__cvta_generic_to_shared(shared), values = keys + CHUNK_BYTES, to = (down * LD + across) * 2;
    const u32 a_at = (u32)__cvta_generic_to_shared(query) + ((tile * 16 + lane % 16) * LD + lane / 16 * 8) * 2;
    const u32 k_at = keys + ((part * (CHUNK / WAYS) + lane / 16 * 8 + lane % 8) * LD + lane / 8 % 2 * 8) * 2;
    const u32 v_at = values + (lane % 16 * LD + part * MINE * 16 + lane / 16 * 8) * 2;
    u16* weight_to = weights + query_g * WEIGHTS_LD + part * (CHUNK / WAYS) + 2 * t;
    const u32 weights_at = (u32)__cvta_generic_to_shared(weights) + ((tile * 16 + lane % 16) * WEIGHTS_LD + lane / 16 * 8) * 2;
    let_next_start();
    // The table was there before the pass. A block without work leaves at once.
    const u32 work = ((const Counts*)p.counts)->items;
    for (u32 w = blockIdx.y; w < work; w += gridDim.y) {
        const Item item = ((const Item*)p.items)[w];
        const u32 used = item.rows * p.group, ring = item.ring, position = item.position;
        const u16* key = (const u16*)item.kv + 2 * p.layer * SLOT_BLOCK * kv_dim + kv_head * HD + across;
        const u16* value = key + SLOT_BLOCK * kv_dim;
        // A chunk's keys, then its values. Each half of it is a block of the ring; the second may be the ring's first.
        auto copy = [&](u32 into, u32 slot0) {
            const u32 slot1 = slot0 + CHUNK / 2, row = down % (CHUNK / 2);
            const u64 at0 = (u64)slot0 * per_slot + row * kv_dim, at1 = (u64)(slot1 < ring ? slot1 : slot1 - ring) * per_slot + row * kv_dim;
#pragma unroll
            for (u32 i = 0; i < 2; i++)
#pragma unroll
                for (u32 r = 0; r < CHUNK; r += DOWN) {
                    const bool second = (DOWN < CHUNK ? r : down) >= CHUNK / 2;
                    const u16* from = (i ? value : key) + (second ? at1 : at0) + r % (CHUNK / 2) * kv_dim;
                    if (HD == 8 * ACROSS || across < HD) fetch(into + i * CHUNK_BYTES + r * LD * 2, from, true);
                }
        };
        u32 slot = item.slot;
        if (item.key0 + CHUNK > item.fresh) wait_for_previous();        // keys of earlier passes need not wait for this one's
        copy(keys + to, slot);
        const u32 row_g = query_g * p.share >> 16, row_g8 = query_g8 * p.share >> 16;
        const u32 last_g = position + row_g, last_g8 = position + row_g8;                               // newest key that a query sees
        wait_for_previous();
        const u16* q_from = (const u16*)p.q + (u64)item.row * p.ldq + kv_head * p.group * HD + across;
        uint4 held[(16 * TILES + DOWN - 1) / DOWN];
#pragma unroll
        for (u32 i = 0; i < (16 * TILES + DOWN - 1) / DOWN; i++) {
            const u32 q = down + i * DOWN, r = q * p.share >> 16;
            const bool live = q < used && (HD == 8 * ACROSS || across < HD);
            held[i] = live ? *(const uint4*)(q_from + r * p.ldq + (q - r * p.group) * HD) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (u32 i = 0; i < (16 * TILES + DOWN - 1) / DOWN; i++) {
            const u32 q = down + i * DOWN;
            if (q < 16 * TILES && (HD == 8 * ACROSS || across < HD)) *(uint4*)(query + q * LD + across) = held[i];
        }
        float max_g = -INFINITY, max_g8 = -INFINITY, norm_g = 0.f, norm_g8 = 0.f, o[MINE][2][4];
        clear(o);

        u32 stage = 0;                                                  // in bytes
        for (u32 key0 = item.key0; key0 < item.key1; key0 += CHUNK) {
            fetch_commit();
            fetch_wait<0>();
            __syncthreads();                                            // the chunk is there, and the other stage free
            if (STAGES == 2 && key0 + CHUNK < item.key1) {
                slot += CHUNK;
                if (slot >= ring) slot -= ring;
                copy(keys + to + (2 * CHUNK_BYTES - stage), slot);
            }
            float s[SCORED][4];
#pragma unroll
            for (int n = 0; n < SCORED; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) s[n][c] = 0.f;
#pragma unroll
            for (int d = 0; d < UNITS; d++) {
                u32 a[4];
                load_matrices(a, a_at + d * 32);
#pragma unroll
                for (int n = 0; n < SCORED; n += 2) {
                    u32 b[4];
                    load_matrices(b, k_at + stage + (n * 8 * LD + d * 16) * 2);
                    mma(s[n], a[0], a[1], a[2], a[3], b[0], b[1]);
                    mma(s[n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
                }
            }
            // Seen: last - window < at <= last, in unsigned arithmetic. Where every query sees every key there is nothing to mask.
            if (key0 + CHUNK > position + 1 || key0 + p.window < position + item.rows) {
#pragma unroll
                for (int n = 0; n < SCORED; n++)
#pragma unroll
                    for (int c = 0; c < 2; c++) {
                        const u32 at = key0 + part * (CHUNK / WAYS) + 8 * n + 2 * t + c;
                        if (last_g - at >= p.window) s[n][c] = -INFINITY;
                        if (last_g8 - at >= p.window) s[n][2 + c] = -INFINITY;
                    }
            }
            float top_g = -INFINITY, top_g8 = -INFINITY;
#pragma unroll
            for (int n = 0; n < SCORED; n++) {
                top_g = fmaxf(top_g, fmaxf(s[n][0], s[n][1]));
                top_g8 = fmaxf(top_g8, fmaxf(s[n][2], s[n][3]));
            }
            for (int d = 1; d < 4; d <<= 1) {
                top_g = fmaxf(top_g, __shfl_xor_sync(~0u, top_g, d));
                top_g8 = fmaxf(top_g8, __shfl_xor_sync(~0u, top_g8, d));
            }
            if constexpr (WAYS > 1) {
                static_assert(WAYS == 4, "a float4 of maxima");
                if (t == 0) {
                    maxima[query_g * WAYS + part] = top_g;
                    maxima[query_g8 * WAYS + part] = top_g8;
                }
                __syncthreads();
                const float4 all_g = *(const float4*)(maxima + query_g * WAYS), all_g8 = *(const float4*)(maxima + query_g8 * WAYS);
                top_g = fmaxf(fmaxf(all_g.x, all_g.y), fmaxf(all_g.z, all_g.w));
                top_g8 = fmaxf(fmaxf(all_g8.x, all_g8.y), fmaxf(all_g8.z, all_g8.w));
            }
            top_g = __fmul_rn(top_g, p.scale);
            top_g8 = __fmul_rn(top_g8, p.scale);
            const float zero_g = top_g == -INFINITY ? 0.f : top_g, zero_g8 = top_g8 == -INFINITY ? 0.f : top_g8;
            u32 weight[CHUNK / 16][4];                                  // as operands
#pragma unroll
            for (int n = 0; n < SCORED; n++) {
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    s[n][c] = power_of_two(__fmaf_rn(s[n][c], p.scale, -zero_g));
                    s[n][2 + c] = power_of_two(__fmaf_rn(s[n][2 + c], p.scale, -zero_g8));
                }
                weight[n / 2][n % 2 * 2] = pack(s[n][0], s[n][1]);
                weight[n / 2][n % 2 * 2 + 1] = pack(s[n][2], s[n][3]);
            }
            if constexpr (WAYS > 1) {
#pragma unroll
                for (int n = 0; n < SCORED; n++) {
                    *(u32*)(weight_to + 8 * n) = weight[n / 2][n % 2 * 2];
                    *(u32*)(weight_to + 8 * WEIGHTS_LD + 8 * n) = weight[n / 2][n % 2 * 2 + 1];
                }
                __syncthreads();
#pragma unroll
                for (int k = 0; k < (int)CHUNK / 16; k++) load_matrices(weight[k], weights_at + k * 32);
            }
            float sum[4] = {0.f, 0.f, 0.f, 0.f};
            const u32 ones = 0x3f803f80;                                // so the sum is of what the values are multiplied by
#pragma unroll
            for (int k = 0; k < (int)CHUNK / 16; k++) mma(sum, weight[k][0], weight[k][1], weight[k][2], weight[k][3], ones, ones);
            const Join join_g(max_g, top_g), join_g8(max_g8, top_g8);
            max_g = join_g.max;
            max_g8 = join_g8.max;
            norm_g = join_g(norm_g, sum[0]);
            norm_g8 = join_g8(norm_g8, sum[2]);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                if (UNITS % WAYS && part * MINE + i >= UNITS) break;
                float v[2][4];
#pragma unroll
                for (int c = 0; c < 4; c++) v[0][c] = v[1][c] = 0.f;
#pragma unroll
                for (int k = 0; k < (int)CHUNK / 16; k++) {
                    u32 b[4];
                    load_transposed(b, v_at + stage + (k * 16 * LD + i * 16) * 2);
                    mma(v[0], weight[k][0], weight[k][1], weight[k][2], weight[k][3], b[0], b[1]);
                    mma(v[1], weight[k][0], weight[k][1], weight[k][2], weight[k][3], b[2], b[3]);
                }
#pragma unroll
                for (int j = 0; j < 2; j++)
#pragma unroll
                    for (int c = 0; c < 4; c++) o[i][j][c] = c < 2 ? join_g(o[i][j][c], v[j][c]) : join_g8(o[i][j][c], v[j][c]);
            }
            if (STAGES == 2) stage = 2 * CHUNK_BYTES - stage;
        }

#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 q = half ? query_g8 : query_g, r = half ? row_g8 : row_g;
            if (q >= used) continue;
            const u32 head = kv_head * p.group + q - r * p.group;
            const u64 to = (u64)(item.partial + r * item.partials) * heads + head;
            if (part == 0 && t == 0) ((float2*)p.norms)[to] = make_float2(half ? max_g8 : max_g, half ? norm_g8 : norm_g);
            float* sums = (float*)p.partial + to * HD + part * MINE * 16 + 2 * t;
#pragma unroll
            for (int i = 0; i < 2 * MINE; i++) {
                const float(&v)[4] = o[i / 2][i % 2];
                if (UNITS % WAYS == 0 || part * MINE + i / 2 < UNITS) *(float2*)(sums + 8 * i) = make_float2(v[2 * half], v[2 * half + 1]);
            }
        }
        __syncthreads();                                                // the next item's copies must not overtake
    }
}

// out = a row's runs, weighted by their maxima and added first to last; `row.run` partial results make a run, `row.skip` fewer the first.
// Grid: 1024 elements, four a thread, by rows.
KERNEL __launch_bounds__(256) attention_combine(const __grid_constant__ Attention p) {
    let_next_start();
    const u32 r = blockIdx.y, heads = p.kv_heads * p.group, i = (blockIdx.x * 256 + threadIdx.x) * 4;
    const Row row = ((const Row*)p.rows)[r];
    if (r >= ((const Counts*)p.counts)->rows || i >= heads * p.head_dim) return;
    const float2* norms = (const float2*)p.norms + (u64)row.partial * heads + i / p.head_dim;
    const float* sums = (const float*)p.partial + (u64)row.partial * heads * p.head_dim + i;
    wait_for_previous();
    constexpr u32 TOGETHER = 12;                                        // so many loads travel at a time
    float2 n[TOGETHER];
    float4 v[TOGETHER];
    auto load = [&](u32 first) {
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) {
            const u32 at = min(first + k, row.partials - 1);
            n[k] = norms[(u64)at * heads];
            v[k] = *(const float4*)(sums + (u64)at * heads * p.head_dim);
        }
    };
    load(0);
    float top = -INFINITY, all = 0.f, total[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (u32 k = 0; k < TOGETHER; k++) top = fmaxf(top, n[k].x);
#pragma unroll 8
    for (u32 k = TOGETHER; k < row.partials; k++) top = fmaxf(top, norms[(u64)k * heads].x);
    float max = -INFINITY, norm = 0.f, sum[4] = {0.f, 0.f, 0.f, 0.f};
    u32 left = row.run - row.skip;
    for (u32 first = 0; first < row.partials; first += TOGETHER) {
        if (first) load(first);
#pragma unroll
        for (u32 k = 0; k < TOGETHER; k++) {
            if (first + k >= row.partials) break;
            const Join join(max, n[k].x);
            max = join.max;
            norm = join(norm, n[k].y);
            join.add_to(sum, v[k]);
            if (--left && first + k + 1 < row.partials) continue;
            const float keep = weight_of(max, top);
            all = __fmaf_rn(norm, keep, all);
#pragma unroll
            for (int c = 0; c < 4; c++) {
                total[c] = __fmaf_rn(sum[c], keep, total[c]);
                sum[c] = 0.f;
            }
            max = -INFINITY;
            norm = 0.f;
            left = row.run;
        }
    }
    const u32 lo = pack(__fdividef(total[0], all), __fdividef(total[1], all)), hi = pack(__fdividef(total[2], all), __fdividef(total[3], all));
    *(uint2*)((u16*)p.out + (u64)r * p.ldo + i) = make_uint2(lo, hi);
}

// The same, sooner: a run a warp. Grid: heads by rows.
KERNEL __launch_bounds__(512) attention_combine_few(const __grid_constant__ Attention p) {
    __shared__ float sums[16][128], maxima[16], norms[16];
    let_next_start();
    const u32 r = blockIdx.y, head = blockIdx.x, heads = p.kv_heads * p.group, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Row row = ((const Row*)p.rows)[r];
    if (r >= ((const Counts*)p.counts)->rows) return;
    const float2* chunk_norms = (const float2*)p.norms + (u64)row.partial * heads + head;
    const float* chunk_sums = (const float*)p.partial + ((u64)row.partial * heads + head) * p.head_dim + 4 * lane;
    const u32 d = threadIdx.x, chunks = row.skip + row.partials;        // counted from where the first run begins
    float all = 0.f, total = 0.f;
    wait_for_previous();
    auto max_at = [&](u32 k) { return k < row.partials ? chunk_norms[(u64)k * heads].x : -INFINITY; };
    const float early[2] = {max_at(lane), max_at(lane + 32)};           // on their way while the first runs are joined
    float top = -INFINITY;
    for (u32 first = 0; first < chunks; first += 16 * row.run) {
        float max = -INFINITY, norm = 0.f, sum[4] = {0.f, 0.f, 0.f, 0.f};
        const u32 begin = first + warp * row.run, end = min(begin + row.run, chunks);
        for (u32 c = begin; c < end; c += 4) {
            float2 n[4];
            float4 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u32 k = c + i - row.skip;
                const bool there = c + i >= row.skip && c + i < end;
                n[i] = there ? chunk_norms[(u64)k * heads] : make_float2(-INFINITY, 0.f);
                v[i] = there && 4 * lane < p.head_dim ? *(const float4*)(chunk_sums + (u64)k * heads * p.head_dim) : make_float4(0.f, 0.f, 0.f, 0.f);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {                               // joining what is not there changes nothing
                const Join join(max, n[i].x);
                max = join.max;
                norm = join(norm, n[i].y);
                join.add_to(sum, v[i]);
            }
        }
        if (lane == 0) {
            maxima[warp] = max;
            norms[warp] = norm;
        }
        *(float4*)&sums[warp][4 * lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
        if (first == 0) {
            top = fmaxf(early[0], early[1]);
            for (u32 k = lane + 64; k < row.partials; k += 32) top = fmaxf(top, max_at(k));
            top = warp_max(top);
        }
        __syncthreads();
        if (d < p.head_dim) {
#pragma unroll
            for (int i = 0; i < 16; i++) {
                const float keep = weight_of(maxima[i], top);
                all = __fmaf_rn(norms[i], keep, all);
                total = __fmaf_rn(sums[i][d], keep, total);
            }
        }
        __syncthreads();
    }
    if (d < p.head_dim) ((u16*)p.out)[(u64)r * p.ldo + head * p.head_dim + d] = to_bf16(__fdividef(total, all));
}

#define ATTENTION(HD)                                                                                                                  \
    KERNEL __launch_bounds__(128, 4) attention_few_##HD(const __grid_constant__ Attention p) { attention<HD, 1, 4>(p); }                \
    KERNEL __launch_bounds__(128, 2) attention_##HD(const __grid_constant__ Attention p) { attention<HD, 4, 1>(p); }
ATTENTION(16)
ATTENTION(32)
ATTENTION(48)
ATTENTION(64)
ATTENTION(80)
ATTENTION(96)
ATTENTION(112)
ATTENTION(128)
