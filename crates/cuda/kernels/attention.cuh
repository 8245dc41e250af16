// o[r, h] = sum_j softmax_j(q[r, h] . key_j * scale) value_j over position(r) - window < j <= position(r)  twin: tests/gpu.rs, `attention`
//
// q bf16 [rows, heads * head_dim], keys and values bf16 in the stream's ring; `group` query heads share a key head (group <= 16).
// Streaming softmax on mma tiles: a tile is 16 queries (16 / group consecutive positions of one stream, the heads of a group beside each
// other) by 32 keys. A block's 8 warps take key tiles in turn (tile % 8), each with its own running maximum and sum, and are then
// combined first to last. Tiles are cut at absolute positions and a masked key adds exactly nothing, so a row's bits depend neither on
// the rows beside it nor on the ring's length. Keys go from memory straight to registers.
//
// attention_<head_dim>: a block walks over items x key heads. With `partial`, an item is one run of 256 keys and leaves
//   f32 sums [.., heads, head_dim] and (maximum, sum) [.., heads]; attention_combine joins a row's runs in order. Without, it is all keys.

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

// The wider the load the better; any multiple of 16 works.
template <int BYTES> struct Vector;
template <> struct Vector<4> { u32 w[1]; };
template <> struct Vector<8> { u32 w[2]; };
template <> struct Vector<16> { u32 w[4]; };

template <int BYTES> DEVICE Vector<BYTES> load_vector(const u16* p) {
    Vector<BYTES> v;
    if constexpr (BYTES == 4) v.w[0] = *(const u32*)p;
    if constexpr (BYTES == 8) { const uint2 q = *(const uint2*)p; v.w[0] = q.x; v.w[1] = q.y; }
    if constexpr (BYTES == 16) { const uint4 q = *(const uint4*)p; v.w[0] = q.x; v.w[1] = q.y; v.w[2] = q.z; v.w[3] = q.w; }
    return v;
}

// -inf - -inf would be no number.
DEVICE float weight_of(float score, float max) { return max == -INFINITY ? 0.f : exp2f(score - max); }

template <int HD> DEVICE void attention(const Attention& p) {
    constexpr int KW = HD % 32 ? 4 : 8;                                 // consecutive elements of a key that a thread takes
    constexpr int VW = HD % 64 == 0 ? 8 : HD % 32 == 0 ? 4 : 2;         // consecutive elements of a value
    constexpr int STRIDE = HD % 32 ? HD + 24 : HD + 8;                  // 8 modulo 32: the stores below meet no bank twice
    extern __shared__ uint4 shared[];
    float* sums = (float*)shared;                                       // [8][16][STRIDE]
    u16* queries = (u16*)(sums + 8 * 16 * STRIDE);                      // [16][HD + 8]
    __shared__ float maxima[8][16], norms[8][16], keep[8][16];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u32 heads = p.kv_heads * p.group, kv_dim = p.kv_heads * HD;
    const u32 work = ((const Counts*)p.counts)->items * p.kv_heads;
    // The next kernel may not start before this one works: a product's blocks fit beside none of attention's, so they would crowd on the
    // processors that attention leaves free.
    if (blockIdx.x >= work) {
        wait_for_previous();
        let_next_start();
    }
    for (u32 w = blockIdx.x; w < work; w += gridDim.x) {
        const Item item = ((const Item*)p.items)[w / p.kv_heads];
        const u32 kv_head = w % p.kv_heads, used = item.rows * p.group;  // of the 16 queries
        const Row& row = ((const Row*)p.rows)[item.row];
        const u32 ring = row.ring;
        const u16* keys = (const u16*)row.kv + (u64)2 * p.layer * ring * kv_dim + kv_head * HD;
        const u16* values = keys + (u64)ring * kv_dim;
        if (w == blockIdx.x) {                                          // the table was there before the pass
            wait_for_previous();
            let_next_start();
        }
        for (u32 i = threadIdx.x; i < 16 * HD / 8; i += 256) {
            const u32 q = i / (HD / 8), d = i % (HD / 8) * 8;
            const u16* from = (const u16*)p.q + (u64)(item.row + q / p.group) * p.ldq + (kv_head * p.group + q % p.group) * HD + d;
            *(uint4*)(queries + q * (HD + 8) + d) = q < used ? *(const uint4*)from : make_uint4(0, 0, 0, 0);
        }
        __syncthreads();

        const u32 last_g = row.position + g / p.group, last_g8 = row.position + (g + 8) / p.group;     // newest key that a query sees
        float max_g = -INFINITY, max_g8 = -INFINITY, norm_g = 0.f, norm_g8 = 0.f, o[HD / 8][4];
#pragma unroll
        for (int i = 0; i < HD / 8; i++)
#pragma unroll
            for (int c = 0; c < 4; c++) o[i][c] = 0.f;
        for (u32 key0 = item.key0 + warp * 32; key0 < item.key1; key0 += 256) {
            const u32 slot0 = key0 % ring;                              // a tile does not wrap: rings are multiples of 32
            // All of the tile's keys and values are on their way before the first is used.
            Vector<2 * KW> k[4][HD / (4 * KW)];
            Vector<2 * VW> v[2][HD / (8 * VW)][4];
            const u16* key = keys + (u64)(slot0 + g) * kv_dim + KW * t;
            const u16* value = values + (u64)(slot0 + 2 * t) * kv_dim + VW * g;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int d = 0; d < HD / (4 * KW); d++) k[n][d] = load_vector<2 * KW>(key + (u64)8 * n * kv_dim + 4 * KW * d);
            // Sixteen keys at once. Column g of value tile j is element base + VW g + j, so that a thread reads VW neighbours.
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int d = 0; d < HD / (8 * VW); d++)
#pragma unroll
                    for (int i = 0; i < 4; i++)         // keys 2t, 2t + 1, 2t + 8, 2t + 9
                        v[n][d][i] = load_vector<2 * VW>(value + (u64)(16 * n + i % 2 + i / 2 * 8) * kv_dim + 8 * VW * d);
            float s[4][4];
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) s[n][c] = 0.f;
#pragma unroll
            for (int d = 0; d < HD / (4 * KW); d++) {
                const auto a = load_vector<2 * KW>(queries + g * (HD + 8) + 4 * KW * d + KW * t);
                const auto a8 = load_vector<2 * KW>(queries + (g + 8) * (HD + 8) + 4 * KW * d + KW * t);
#pragma unroll
                for (int i = 0; i < KW / 4; i++)
#pragma unroll
                    for (int n = 0; n < 4; n++)
                        mma(s[n], a.w[2 * i], a8.w[2 * i], a.w[2 * i + 1], a8.w[2 * i + 1], k[n][d].w[2 * i], k[n][d].w[2 * i + 1]);
            }
            float new_g = max_g, new_g8 = max_g8;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const u32 at = key0 + 8 * n + 2 * t + c;            // seen: last - window < at <= last, in unsigned arithmetic
                    s[n][c] = last_g - at < p.window ? s[n][c] * p.scale : -INFINITY;
                    s[n][2 + c] = last_g8 - at < p.window ? s[n][2 + c] * p.scale : -INFINITY;
                    new_g = fmaxf(new_g, s[n][c]);
                    new_g8 = fmaxf(new_g8, s[n][2 + c]);
                }
            for (int d = 1; d < 4; d <<= 1) {
                new_g = fmaxf(new_g, __shfl_xor_sync(~0u, new_g, d));
                new_g8 = fmaxf(new_g8, __shfl_xor_sync(~0u, new_g8, d));
            }
            const float keep_g = weight_of(max_g, new_g), keep_g8 = weight_of(max_g8, new_g8);
            max_g = new_g;
            max_g8 = new_g8;
            norm_g *= keep_g;
            norm_g8 *= keep_g8;
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    norm_g += s[n][c] = weight_of(s[n][c], max_g);
                    norm_g8 += s[n][2 + c] = weight_of(s[n][2 + c], max_g8);
                }
#pragma unroll
            for (int i = 0; i < HD / 8; i++) {
                o[i][0] *= keep_g;
                o[i][1] *= keep_g;
                o[i][2] *= keep_g8;
                o[i][3] *= keep_g8;
            }
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const u32 a0 = pack(s[2 * n][0], s[2 * n][1]), a1 = pack(s[2 * n][2], s[2 * n][3]);
                const u32 a2 = pack(s[2 * n + 1][0], s[2 * n + 1][1]), a3 = pack(s[2 * n + 1][2], s[2 * n + 1][3]);
#pragma unroll
                for (int d = 0; d < HD / (8 * VW); d++)
#pragma unroll
                    for (int j = 0; j < VW; j++) {
                        const u32 half = j % 2 ? 0x7632 : 0x5410;
                        const u32 b0 = __byte_perm(v[n][d][0].w[j / 2], v[n][d][1].w[j / 2], half);
                        const u32 b1 = __byte_perm(v[n][d][2].w[j / 2], v[n][d][3].w[j / 2], half);
                        mma(o[VW * d + j], a0, a1, a2, a3, b0, b1);
                    }
            }
        }
        for (int d = 1; d < 4; d <<= 1) {
            norm_g += __shfl_xor_sync(~0u, norm_g, d);
            norm_g8 += __shfl_xor_sync(~0u, norm_g8, d);
        }
        if (t == 0) {
            maxima[warp][g] = max_g;
            maxima[warp][g + 8] = max_g8;
            norms[warp][g] = norm_g;
            norms[warp][g + 8] = norm_g8;
        }
        // Sums lie as the instruction leaves them: element base + VW n + j of a head at base + 8 j + n.
        float* mine = sums + (warp * 16 + g) * STRIDE + 2 * t;
#pragma unroll
        for (int i = 0; i < HD / 8; i++) {
            if (g < used) *(float2*)(mine + 8 * i) = make_float2(o[i][0], o[i][1]);
            if (g + 8 < used) *(float2*)(mine + 8 * STRIDE + 8 * i) = make_float2(o[i][2], o[i][3]);
        }
        __syncthreads();
        if (threadIdx.x < 128) {
            const u32 k = threadIdx.x / 16, q = threadIdx.x % 16;
            float max = maxima[0][q];
            for (u32 i = 1; i < 8; i++) max = fmaxf(max, maxima[i][q]);
            keep[k][q] = weight_of(maxima[k][q], max);
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < used * HD; i += 256) {
            const u32 q = i / HD, d = i % HD, head = kv_head * p.group + q % p.group;
            const u32 at = d / (8 * VW) * (8 * VW) + d % VW * 8 + d % (8 * VW) / VW;
            float max = -INFINITY, norm = 0.f, sum = 0.f;
#pragma unroll
            for (u32 k = 0; k < 8; k++) {
                max = fmaxf(max, maxima[k][q]);
                norm += norms[k][q] * keep[k][q];
                sum += sums[(k * 16 + q) * STRIDE + at] * keep[k][q];
            }
            const u32 r = item.row + q / p.group;
            if (p.partial) {
                const u64 to = (u64)(((const Row*)p.rows)[r].partial + item.partial) * heads + head;
                ((float*)p.partial)[to * HD + d] = sum;
                if (d == 0) ((float2*)p.norms)[to] = make_float2(max, norm);
            } else {
                ((u16*)p.out)[(u64)r * p.ldo + head * HD + d] = to_bf16(sum / norm);
            }
        }
        __syncthreads();
    }
}

// One block a row and 256 of its outputs.
KERNEL __launch_bounds__(256) attention_combine(const __grid_constant__ Attention p) {
    const u32 r = blockIdx.x, heads = p.kv_heads * p.group, i = blockIdx.y * 256 + threadIdx.x;
    const bool live = r < ((const Counts*)p.counts)->rows && i < heads * p.head_dim;
    const Row row = ((const Row*)p.rows)[live ? r : 0];
    wait_for_previous();
    let_next_start();
    if (!live) return;
    const u32 head = i / p.head_dim, d = i % p.head_dim;
    const float2* norms = (const float2*)p.norms + (u64)row.partial * heads + head;
    const float* sums = (const float*)p.partial + ((u64)row.partial * heads + head) * p.head_dim + d;
    float max = -INFINITY, norm = 0.f, sum = 0.f;
    for (u32 k = 0; k < row.partials; k++) max = fmaxf(max, norms[(u64)k * heads].x);
#pragma unroll 4
    for (u32 k = 0; k < row.partials; k++) {
        const float2 n = norms[(u64)k * heads];
        const float keep = weight_of(n.x, max);
        norm += n.y * keep;
        sum += sums[(u64)k * heads * p.head_dim] * keep;
    }
    ((u16*)p.out)[(u64)r * p.ldo + i] = to_bf16(sum / norm);
}

KERNEL __launch_bounds__(256, 2) attention_16(const __grid_constant__ Attention p) { attention<16>(p); }
KERNEL __launch_bounds__(256, 2) attention_32(const __grid_constant__ Attention p) { attention<32>(p); }
KERNEL __launch_bounds__(256, 2) attention_48(const __grid_constant__ Attention p) { attention<48>(p); }
KERNEL __launch_bounds__(256, 2) attention_64(const __grid_constant__ Attention p) { attention<64>(p); }
KERNEL __launch_bounds__(256, 1) attention_80(const __grid_constant__ Attention p) { attention<80>(p); }
KERNEL __launch_bounds__(256, 1) attention_96(const __grid_constant__ Attention p) { attention<96>(p); }
KERNEL __launch_bounds__(256, 1) attention_112(const __grid_constant__ Attention p) { attention<112>(p); }
KERNEL __launch_bounds__(256, 1) attention_128(const __grid_constant__ Attention p) { attention<128>(p); }
