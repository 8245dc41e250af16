// What happens to y = W x + bias before it leaves the chip; each thread takes two neighbouring outputs of one row.

enum Mode {
    STORE = 0,          // f32 out[part, row, f] = y
    SILU_MUL = 1,       // bf16 out[row, f / 2] = silu(y[f]) * y[f + 1]: rows of gate and up alternate
    GELU = 2,           // bf16 out[row, f] = gelu(y)
    GELU_F32 = 3,       // f32 out[row, f] = gelu(y)
    AUDIO = 4,          // f32 rows[row].audio[f] = y
    QKV = 5,            // queries: turned, bf16 out[row, f]; keys: turned, into the ring; values: into the ring
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
    u64 w;              // bf16 [n rounded up to 128, k] as `weight_at` says, zeros beyond n
    u64 x;              // bf16 [rows, k]
    u64 bias;           // f32 [n] or 0
    u64 out;            // see Mode
    u64 rows;           // Row [rows], for AUDIO and QKV
    u64 turns;          // f32 pairs [rows, head_dim / 2]: cosine and sine
    u64 count;          // u32: rows
    u64 partial;        // f32 [parts][slices][tiles][64][128], sums of single slices between product_tile and product_sum, or 0
    u32 n;
    u32 k;              // a multiple of 32; columns beyond the true width hold zeros in w and x
    u32 parts;          // 1 but for STORE
    u32 part_stride;    // elements between two parts of out
    u32 slices;         // 1, 2, 4 or 8; with parts at most k / 32
    u32 mode;
    u32 ldo;            // elements between two rows of out
    u32 layer;
    u32 q_dim;
    u32 kv_dim;
    u32 head_dim;
    u32 row_tiles;      // product_tile: tiles of rows
};

DEVICE void store_pair(const Product& p, u32 part, u32 row, u32 f, float y0, float y1) {
    if (p.bias && part == 0) {
        const float* bias = (const float*)p.bias + f;
        y0 += bias[0];
        y1 += bias[1];
    }
    const u64 at = (u64)row * p.ldo + f;
    switch (p.mode) {
    case STORE:
        *(float2*)((float*)p.out + (u64)part * p.part_stride + at) = make_float2(y0, y1);
        break;
    case SILU_MUL:
        ((u16*)p.out)[(u64)row * p.ldo + f / 2] = to_bf16(silu(y0) * y1);
        break;
    case GELU:
        *(u32*)((u16*)p.out + at) = pack(gelu(y0), gelu(y1));
        break;
    case GELU_F32:
        *(float2*)((float*)p.out + at) = make_float2(gelu(y0), gelu(y1));
        break;
    case AUDIO:
        *(float2*)((float*)((const Row*)p.rows)[row].audio + f) = make_float2(y0, y1);
        break;
    case QKV: {
        if (f < p.q_dim + p.kv_dim) {
            const u32 pair = (f < p.q_dim ? f : f - p.q_dim) % p.head_dim / 2;
            const float2 turn = ((const float2*)p.turns)[row * (p.head_dim / 2) + pair];
            const float y = y0 * turn.x - y1 * turn.y;
            y1 = y1 * turn.x + y0 * turn.y;
            y0 = y;
        }
        if (f < p.q_dim) {
            *(u32*)((u16*)p.out + at) = pack(y0, y1);
        } else {
            const Row& r = ((const Row*)p.rows)[row];
            const u32 of = (f - p.q_dim) % p.kv_dim, value = f >= p.q_dim + p.kv_dim;
            const u64 slot = (u64)(2 * p.layer + value) * r.ring + r.position % r.ring;
            *(u32*)((u16*)r.kv + slot * p.kv_dim + of) = pack(y0, y1);
        }
        break;
    }
    }
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
