// o[r, h] = sum_j softmax_j(q[r, h] . key_j * scale) value_j over position(r) - window < j <= position(r)  twin: tests/gpu.rs, `attention`
//
// q bf16 [rows, heads * head_dim], keys and values bf16 in the stream's ring; `group` query heads share a key head (group <= 16).
// Streaming softmax on the matrix units. A block of 4 warps takes up to 64 queries (64 / group consecutive positions of one stream, the
// heads of a group beside each other) and stages their keys and values in shared memory, 128 at a time, cut at absolute positions; the
// next keys travel while values are summed, the next values while scores are. With more than 32 queries a warp has 16 of its own. With
// fewer, 2 or 4 warps share 16: each scores its part of the keys and sums its part of the outputs. Nothing of that enters a result: a
// score, and a sum over keys, is the same chain of instructions whichever warp runs it, a maximum has no order, and a masked key adds
// exactly nothing. So a row's bits depend neither on the rows beside it nor on the ring's length.
// The sum of the weights is one more column of ones beside the values: of the weights rounded to bf16, like the outputs.
//
// attention_<head_dim>: a block walks over items x key heads. With `partial`, an item is one run of keys and leaves f32 sums
//   [.., heads, head_dim] and (maximum, sum) [.., heads]; attention_combine joins a row's runs in order. Without, it is all keys.
//   Needs item.rows * group <= 64, item.key0 a multiple of 128, ring at least the keys of a query plus item.rows - 1.

struct Attention {
    u64 q;              // bf16 [rows, ldq]
    u64 out;            // bf16 [rows, ldo]
    u64 partial;        // f32 [partials, heads, head_dim] or 0
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
};

constexpr u32 QUERIES = 64;                     // of a block
constexpr u32 KEYS = 128;                       // staged at a time
constexpr u32 WEIGHTS_LD = KEYS + 8;            // rows an odd number of 16 bytes apart: eight of them meet no bank twice

// -inf - -inf would be no number.
DEVICE float weight_of(float score, float max) { return max == -INFINITY ? 0.f : exp2f(score - max); }

DEVICE float power_of_two(float v) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

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

// 16 bytes on their way, or zeros.
DEVICE void copy_16(u32 to, const u16* from, bool live) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(live ? 16 : 0) : "memory");
}

DEVICE void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
DEVICE void wait_for_all_but_last() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }

// Keys or values of positions key0 .. key0 + 128, zeros outside first .. end.
template <int HD> DEVICE void copy_keys(u32 to, const u16* from, u32 ring, u32 kv_dim, u32 key0, u32 first, u32 end) {
    if (key0 < end) {
        const u32 slot0 = key0 % ring, c = threadIdx.x % (HD / 8);
#pragma unroll 4
        for (u32 i = threadIdx.x; i < KEYS * (HD / 8); i += 128) {
            const u32 r = i / (HD / 8), d = (128 % (HD / 8) ? i % (HD / 8) : c) * 8;
            const bool live = key0 + r >= first && key0 + r < end;
            u32 slot = live ? slot0 + r : 0;
            while (slot >= ring) slot -= ring;
            copy_16(to + (r * (HD + 8) + d) * 2, from + (u64)slot * kv_dim + d, live);
        }
    }
    end_of_copies();
}

// One item and key head; WAYS warps share 16 queries.
template <int HD, int WAYS>
DEVICE void attend(const Attention& p, const Item& item, u32 kv_head, const Row& row, u16* shared, float (&maxima)[4][16]) {
    constexpr int LD = HD + 8, TILES = KEYS / 8 / WAYS;                 // tiles of 8 keys that a warp scores
    constexpr int UNITS = HD / 16, MINE = (UNITS + WAYS - 1) / WAYS;    // 16 outputs each; those that a warp sums
    const u32 keys = (u32)__cvta_generic_to_shared(shared), values = keys + KEYS * LD * 2;
    const u32 queries = values + KEYS * LD * 2, weights = queries + QUERIES * LD * 2;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 tile = warp / WAYS, part = warp % WAYS;
    const u32 kv_dim = p.kv_heads * HD, ring = row.ring, used = item.rows * p.group, end = item.key1;
    const u16* key = (const u16*)row.kv + (u64)2 * p.layer * ring * kv_dim + kv_head * HD;
    const u16* value = key + (u64)ring * kv_dim;
    const u32 oldest = row.position + 1 > p.window ? row.position + 1 - p.window : 0;
    u32 key0 = oldest > item.key0 ? oldest / KEYS * KEYS : item.key0;

    // Keys that earlier passes wrote need not wait for this pass's.
    if (key0 + KEYS > row.fresh) wait_for_previous();
    copy_keys<HD>(keys, key, ring, kv_dim, key0, oldest, end);
    copy_keys<HD>(values, value, ring, kv_dim, key0, oldest, end);
    wait_for_previous();
    for (u32 i = threadIdx.x; i < QUERIES / WAYS * (HD / 8); i += 128) {
        const u32 q = i / (HD / 8), d = i % (HD / 8) * 8;
        const u16* from = (const u16*)p.q + (u64)(item.row + q / p.group) * p.ldq + (kv_head * p.group + q % p.group) * HD + d;
        *(uint4*)(shared + (2 * KEYS + q) * LD + d) = q < used ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
    }

    const u32 query_g = tile * 16 + g, query_g8 = query_g + 8;
    const u32 last_g = row.position + query_g / p.group, last_g8 = row.position + query_g8 / p.group;  // newest key that a query sees
    const u32 a_at = queries + ((tile * 16 + lane % 16) * LD + lane / 16 * 8) * 2;
    const u32 k_at = keys + ((part * (KEYS / WAYS) + lane / 16 * 8 + lane % 8) * LD + lane / 8 % 2 * 8) * 2;
    const u32 v_at = values + (lane % 16 * LD + part * MINE * 16 + lane / 16 * 8) * 2;
    const u32 w_at = weights + ((tile * 16 + lane % 16) * WEIGHTS_LD + lane / 16 * 8) * 2;
    float max_g = -INFINITY, max_g8 = -INFINITY, norm[4] = {0.f, 0.f, 0.f, 0.f}, o[MINE][2][4];        // maxima of unscaled scores
#pragma unroll
    for (int i = 0; i < MINE; i++)
#pragma unroll
        for (int c = 0; c < 4; c++) o[i][0][c] = o[i][1][c] = 0.f;

    for (; key0 < end; key0 += KEYS) {
        wait_for_all_but_last();
        __syncthreads();                                                // queries and keys are there
        float s[TILES][4];
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) s[n][c] = 0.f;
#pragma unroll
        for (int d = 0; d < UNITS; d++) {
            u32 a[4];
            load_matrices(a, a_at + d * 32);
#pragma unroll
            for (int n = 0; n < TILES; n += 2) {
                u32 b[4];
                load_matrices(b, k_at + (n * 8 * LD + d * 16) * 2);
                mma(s[n], a[0], a[1], a[2], a[3], b[0], b[1]);
                mma(s[n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
            }
        }
        // Seen: last - window < at <= last, in unsigned arithmetic. Where every query sees every key there is nothing to mask.
        if (key0 + KEYS > row.position + 1 || key0 + p.window < row.position + item.rows) {
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const u32 at = key0 + part * (KEYS / WAYS) + 8 * n + 2 * t + c;
                    if (last_g - at >= p.window) s[n][c] = -INFINITY;
                    if (last_g8 - at >= p.window) s[n][2 + c] = -INFINITY;
                }
        }
        float new_g = max_g, new_g8 = max_g8;
#pragma unroll
        for (int n = 0; n < TILES; n++) {
            new_g = fmaxf(new_g, fmaxf(s[n][0], s[n][1]));
            new_g8 = fmaxf(new_g8, fmaxf(s[n][2], s[n][3]));
        }
        for (int d = 1; d < 4; d <<= 1) {
            new_g = fmaxf(new_g, __shfl_xor_sync(~0u, new_g, d));
            new_g8 = fmaxf(new_g8, __shfl_xor_sync(~0u, new_g8, d));
        }
        if (WAYS > 1 && t == 0) {
            maxima[warp][g] = new_g;
            maxima[warp][g + 8] = new_g8;
        }
        __syncthreads();                                                // keys are no longer needed
        copy_keys<HD>(keys, key, ring, kv_dim, key0 + KEYS, oldest, end);
        if (WAYS > 1) {
#pragma unroll
            for (int i = 0; i < WAYS; i++) {
                new_g = fmaxf(new_g, maxima[tile * WAYS + i][g]);
                new_g8 = fmaxf(new_g8, maxima[tile * WAYS + i][g + 8]);
            }
        }
        // Products and sums are spelled out, so that the compiler fuses them alike for every WAYS.
        const float zero_g = new_g == -INFINITY ? 0.f : __fmul_rn(new_g, p.scale);
        const float zero_g8 = new_g8 == -INFINITY ? 0.f : __fmul_rn(new_g8, p.scale);
        const float keep_g = power_of_two(__fmaf_rn(max_g, p.scale, -zero_g));
        const float keep_g8 = power_of_two(__fmaf_rn(max_g8, p.scale, -zero_g8));
        max_g = new_g;
        max_g8 = new_g8;
        u32 w[TILES][2];
#pragma unroll
        for (int n = 0; n < TILES; n++) {
#pragma unroll
            for (int c = 0; c < 2; c++) {
                s[n][c] = power_of_two(__fmaf_rn(s[n][c], p.scale, -zero_g));
                s[n][2 + c] = power_of_two(__fmaf_rn(s[n][2 + c], p.scale, -zero_g8));
            }
            w[n][0] = pack(s[n][0], s[n][1]);
            w[n][1] = pack(s[n][2], s[n][3]);
            if (WAYS > 1) {
                u32* to = (u32*)(shared + (2 * KEYS + QUERIES) * LD + query_g * WEIGHTS_LD + part * (KEYS / WAYS) + 8 * n + 2 * t);
                to[0] = w[n][0];
                to[8 * WEIGHTS_LD / 2] = w[n][1];
            }
        }
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const float keep = c < 2 ? keep_g : keep_g8;
            norm[c] = __fmul_rn(norm[c], keep);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                o[i][0][c] = __fmul_rn(o[i][0][c], keep);
                o[i][1][c] = __fmul_rn(o[i][1][c], keep);
            }
        }
        wait_for_all_but_last();
        __syncthreads();                                                // values are there, and the other warps' weights
#pragma unroll
        for (int k = 0; k < (int)KEYS / 16; k++) {
            u32 a[4];
            if constexpr (WAYS > 1) {
                load_matrices(a, w_at + k * 32);
            } else {
                a[0] = w[2 * k][0];
                a[1] = w[2 * k][1];
                a[2] = w[2 * k + 1][0];
                a[3] = w[2 * k + 1][1];
            }
            const u32 ones = 0x3f803f80;
            mma(norm, a[0], a[1], a[2], a[3], ones, ones);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
                if (UNITS % WAYS && part * MINE + i >= UNITS) continue;
                u32 b[4];
                load_transposed(b, v_at + (k * 16 * LD + i * 16) * 2);
                mma(o[i][0], a[0], a[1], a[2], a[3], b[0], b[1]);
                mma(o[i][1], a[0], a[1], a[2], a[3], b[2], b[3]);
            }
        }
        __syncthreads();                                                // values, weights and maxima are no longer needed
        copy_keys<HD>(values, value, ring, kv_dim, key0 + KEYS, oldest, end);
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 q = half ? query_g8 : query_g;
        if (q >= used) continue;
        const u32 r = item.row + q / p.group, head = kv_head * p.group + q % p.group;
        const u64 to = (u64)(((const Row*)p.rows)[r].partial + item.partial) * (p.kv_heads * p.group) + head;
        const float sum = norm[2 * half], max = half ? max_g8 : max_g;
        if (p.partial && part == 0 && t == 0)
            ((float2*)p.norms)[to] = make_float2(__fmul_rn(max, p.scale), sum);
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            if (UNITS % WAYS && part * MINE + i >= UNITS) continue;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const u32 d = (part * MINE + i) * 16 + 8 * j + 2 * t;
                const float x = o[i][j][2 * half], y = o[i][j][2 * half + 1];
                if (p.partial) *(float2*)((float*)p.partial + to * HD + d) = make_float2(x, y);
                else *(u32*)((u16*)p.out + (u64)r * p.ldo + head * HD + d) = pack(x / sum, y / sum);
            }
        }
    }
}

template <int HD> DEVICE void attention(const Attention& p) {
    extern __shared__ uint4 shared[];           // u16 keys [128][HD + 8], values the same, queries [64][HD + 8], weights [32][136]
    __shared__ float maxima[4][16];
    let_next_start();
    const u32 work = ((const Counts*)p.counts)->items * p.kv_heads;     // the table was there before the pass
    if (blockIdx.x >= work) wait_for_previous();
    for (u32 w = blockIdx.x; w < work; w += gridDim.x) {
        const Item item = ((const Item*)p.items)[w / p.kv_heads];
        const Row row = ((const Row*)p.rows)[item.row];
        const u32 used = item.rows * p.group;
        if (used <= 16) attend<HD, 4>(p, item, w % p.kv_heads, row, (u16*)shared, maxima);
        else if (used <= 32) attend<HD, 2>(p, item, w % p.kv_heads, row, (u16*)shared, maxima);
        else attend<HD, 1>(p, item, w % p.kv_heads, row, (u16*)shared, maxima);
    }
}

// One block a row and 256 of its outputs.
KERNEL __launch_bounds__(256) attention_combine(const __grid_constant__ Attention p) {
    let_next_start();
    const u32 r = blockIdx.x, heads = p.kv_heads * p.group, i = blockIdx.y * 256 + threadIdx.x;
    const bool live = r < ((const Counts*)p.counts)->rows && i < heads * p.head_dim;
    const Row row = ((const Row*)p.rows)[live ? r : 0];
    wait_for_previous();
    if (!live) return;
    const u32 head = i / p.head_dim, d = i % p.head_dim;
    const float2* norms = (const float2*)p.norms + (u64)row.partial * heads + head;
    const float* sums = (const float*)p.partial + ((u64)row.partial * heads + head) * p.head_dim + d;
    float max = -INFINITY, norm = 0.f, sum = 0.f;
#pragma unroll 8
    for (u32 k = 0; k < row.partials; k++) max = fmaxf(max, norms[(u64)k * heads].x);
#pragma unroll 8
    for (u32 k = 0; k < row.partials; k++) {
        const float2 n = norms[(u64)k * heads];
        const float keep = weight_of(n.x, max);
        norm += n.y * keep;
        sum += sums[(u64)k * heads * p.head_dim] * keep;
    }
    ((u16*)p.out)[(u64)r * p.ldo + i] = to_bf16(sum / norm);
}

KERNEL __launch_bounds__(128, 3) attention_16(const __grid_constant__ Attention p) { attention<16>(p); }
KERNEL __launch_bounds__(128, 3) attention_32(const __grid_constant__ Attention p) { attention<32>(p); }
KERNEL __launch_bounds__(128, 3) attention_48(const __grid_constant__ Attention p) { attention<48>(p); }
KERNEL __launch_bounds__(128, 3) attention_64(const __grid_constant__ Attention p) { attention<64>(p); }
KERNEL __launch_bounds__(128, 2) attention_80(const __grid_constant__ Attention p) { attention<80>(p); }
KERNEL __launch_bounds__(128, 2) attention_96(const __grid_constant__ Attention p) { attention<96>(p); }
KERNEL __launch_bounds__(128, 2) attention_112(const __grid_constant__ Attention p) { attention<112>(p); }
KERNEL __launch_bounds__(128, 2) attention_128(const __grid_constant__ Attention p) { attention<128>(p); }
