// What happens to y = W x + bias before it leaves the chip; a thread takes neighbouring outputs of a row, or of several.

enum Mode {
    STORE = 0,          // f32 out[split, row, f] = y
    SILU_MUL = 1,       // bf16 out[row, f / 2] = silu(y[f]) * y[f + 1]: rows of gate and up alternate
    GELU = 2,           // bf16 out[row, f] = gelu(y)
    GELU_F32 = 3,       // f32 out[row, f] = gelu(y)
    AUDIO = 4,          // f32 rows[row].audio[f] = y
    QKV = 5,            // queries: rotated, bf16 out[row, f]; keys: rotated, into the ring; values: into the ring
    HEAD = 6,           // only the best output of each row and the sum of exponentials, per 128 outputs
};

// The best of some outputs, the lowest index of those that tie, and sum(exp(y - max)) over all of them.
struct Best {
    float max;
    float sum;
    u32 id;
    u32 unused;
};

// y[r, f] = sum_k w[f, k] x[r, k]. src/kernels.rs is its twin.
struct Product {
    u64 w;              // [n rounded up to 128, k] as encoding.cuh says, zeros beyond n
    u64 x;              // bf16 [rows rounded up to 8, k]
    u64 bias;           // f32 [n] or 0
    u64 out;            // see Mode
    u64 rows;           // Row [rows], for AUDIO and QKV
    u64 rope;           // f32 pairs [rows, head_dim / 2]: cosine and sine
    u64 count;          // u32: rows
    u64 partial;        // f32 [rows][splits][slices][n rounded up to 128], sums of single slices on their way to product_sum, or 0
    u32 n;
    u32 k;              // a multiple of 32; columns beyond the true width hold zeros in w and x
    u32 splits;         // of k over blocks; 1 but for STORE
    u32 split_stride;   // elements between two splits of out
    u32 slices;         // of each split; 1, 2, 4 or 8, and slices of all splits at most k / 32
    u32 mode;
    u32 ldo;            // elements between two rows of out
    u32 layer;
    u32 q_dim;
    u32 kv_dim;
    u32 head_dim;
    u32 layers;
    u32 encoding;       // of w
    u32 stride;         // bytes of a panel of 16 outputs, a multiple of 16
    u32 head;           // bytes of it before its weights, a multiple of 16
    u32 parameter;      // see encoding.cuh
};

// Outputs f and f + 1 of a row; nothing is written where `live` is false, but row and f exist even there.
struct Pair {
    u32 row, f;
    float y0, y1;
    bool live;
};

// What a pair meets on its way out, and where it goes.
struct Way {
    float2 bias;
    float2 rope;        // cosine and sine
    u64 to;
};

template <u32 MODE> DEVICE Way way_out(const Product& p, u32 split, u32 row, u32 f) {
    const u64 at = (u64)row * p.ldo + f;
    Way way;
    way.bias = p.bias && split == 0 ? *(const float2*)((const float*)p.bias + f) : make_float2(0.f, 0.f);
    if (MODE == STORE) way.to = p.out + ((u64)split * p.split_stride + at) * 4;
    if (MODE == GELU_F32) way.to = p.out + at * 4;
    if (MODE == GELU) way.to = p.out + at * 2;
    if (MODE == SILU_MUL) way.to = p.out + ((u64)row * p.ldo + f / 2) * 2;
    if (MODE == AUDIO) way.to = ((const Row*)p.rows)[row].audio + f * 4;
    if (MODE == QKV) {
        const Row& r = ((const Row*)p.rows)[row];
        const bool query = f < p.q_dim, value = f >= p.q_dim + p.kv_dim;
        const u32 of = query ? f : value ? f - p.q_dim - p.kv_dim : f - p.q_dim;
        const u64 slot = (u64)(r.slot / SLOT_BLOCK * 2 * p.layers + 2 * p.layer + value) * SLOT_BLOCK + r.slot % SLOT_BLOCK;
        way.rope = ((const float2*)p.rope)[row * (p.head_dim / 2) + of % p.head_dim / 2];
        way.to = query ? p.out + at * 2 : r.kv + (slot * p.kv_dim + of) * 2;
    }
    return way;
}

// Fused as written, so that all kernels give the same bits.
template <u32 MODE> DEVICE void store(const Product& p, const Way& way, const Pair& pair) {
    float y0 = pair.y0 + way.bias.x, y1 = pair.y1 + way.bias.y;
    if (MODE == SILU_MUL) y0 = __fmul_rn(silu(y0), y1);
    if (MODE == GELU || MODE == GELU_F32) {
        y0 = gelu(y0);
        y1 = gelu(y1);
    }
    if (MODE == QKV && pair.f < p.q_dim + p.kv_dim) {
        const float y = __fmaf_rn(-y1, way.rope.y, __fmul_rn(y0, way.rope.x));
        y1 = __fmaf_rn(y0, way.rope.y, __fmul_rn(y1, way.rope.x));
        y0 = y;
    }
    if (!pair.live) return;
    if (MODE == SILU_MUL)
        *(u16*)way.to = to_bf16(y0);
    else if (MODE == GELU || MODE == QKV)
        *(u32*)way.to = pack(y0, y1);
    else
        *(float2*)way.to = make_float2(y0, y1);
}

// N pairs of a split, pairs(i) being the i-th. What they meet is loaded for all before the first is stored: otherwise each would wait for
// the one before.
template <u32 MODE, u32 N, class Pairs> DEVICE void store_pairs(const Product& p, u32 split, Pairs pairs) {
    Pair pair[N];
    Way way[N];
#pragma unroll
    for (u32 i = 0; i < N; i++) {
        pair[i] = pairs(i);
        way[i] = way_out<MODE>(p, split, pair[i].row, pair[i].f);
    }
#pragma unroll
    for (u32 i = 0; i < N; i++) store<MODE>(p, way[i], pair[i]);
}

template <u32 N, class Pairs> DEVICE void store_pairs(const Product& p, u32 split, Pairs pairs) {
    switch (p.mode) {
    case STORE: return store_pairs<STORE, N>(p, split, pairs);
    case SILU_MUL: return store_pairs<SILU_MUL, N>(p, split, pairs);
    case GELU: return store_pairs<GELU, N>(p, split, pairs);
    case GELU_F32: return store_pairs<GELU_F32, N>(p, split, pairs);
    case AUDIO: return store_pairs<AUDIO, N>(p, split, pairs);
    case QKV: return store_pairs<QKV, N>(p, split, pairs);
    }
}

// Outputs f to f + 3 of a row, the last two only if there are so many.
DEVICE void store_four(const Product& p, u32 split, u32 row, u32 f, const float4& y) {
    store_pairs<2>(p, split, [&](u32 i) {
        const bool live = f + 2 * i < p.n;
        return Pair{row, live ? f + 2 * i : f, i ? y.z : y.x, i ? y.w : y.y, live};
    });
}

// The larger; of equals the lower index.
DEVICE void better(float& max, u32& id, float other_max, u32 other_id) {
    if (other_max > max || (other_max == max && other_id < id)) {
        max = other_max;
        id = other_id;
    }
}

// One warp, one row: 128 outputs from `f0` on, y(i) being the i-th.
template <class Y> DEVICE void store_best(const Product& p, u32 row, u32 f0, Y y) {
    const u32 lane = threadIdx.x % 32;
    float v[4], max = -INFINITY, sum = 0.f;
    u32 id = ~0u;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 f = lane + 32 * i;
        v[i] = f0 + f < p.n ? y(f) : -INFINITY;
        better(max, id, v[i], f0 + f);
    }
    for (int d = 16; d; d >>= 1) better(max, id, __shfl_xor_sync(~0u, max, d), __shfl_xor_sync(~0u, id, d));
#pragma unroll
    for (int i = 0; i < 4; i++) sum += __expf(v[i] - max);
    sum = warp_sum(sum);
    if (lane == 0) ((Best*)p.out)[(u64)row * p.ldo + f0 / 128] = Best{max, sum, id, 0};
}
