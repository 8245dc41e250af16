// The small kernels that work on one row at a time, a block each. src/kernels.rs holds the launchers, tests/gpu/twins.rs the twins.
//
// Before the previous one has ended they read the table at most, and add_rms_norm its weights.

struct RowWork {
    u64 input;
    u64 out;
    u64 weight;         // what the kernel's contract says
    u64 rows;           // Row [..]
    u64 counts;         // Counts
    u64 sums;           // add_rms_norm: what is added
    u64 x;              // add_rms_norm: where the sum goes
    u64 spans;          // gather_mel, gather_columns: Span [..]
    u32 splits;
    u32 split_stride;   // elements between two splits of sums
    u32 dim;            // a multiple of 16
    u32 ld;             // elements between two rows of out (of groups of rows in add_rms_norm)
    u32 layer;
    u32 group;          // add_rms_norm: so many rows make one row of out, one after the other
    float eps;
    u32 unused;
};

// x[r] = in[r] + (sums[0][r] + sums[1][r] + ..), out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight (* ada[layer])
// in and x f32 [rows, dim], perhaps the same; sums f32 [splits][rows, dim], of a product; without splits x is in and not written. out
// bf16, rounded once; weight f32 [dim]; dim <= 4096. One block of 512 a row.
KERNEL __launch_bounds__(512) add_rms_norm(const __grid_constant__ RowWork p) {
    __shared__ float sums[16];
    let_next_start();
    const u32 r = blockIdx.x;
    if (r >= ((const Counts*)p.counts)->rows) return;
    // Weights and table were there before the pass.
    const u64 ada = p.rows ? ((const Row*)p.rows)[r].ada : 0;
    float4 x[2], w[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 at = i * 512 + threadIdx.x;
        if (4 * at < p.dim) {
            w[i] = ((const float4*)p.weight)[at];
            if (ada) {
                const float4 a = ((const float4*)((const float*)ada + (u64)p.layer * p.dim))[at];
                w[i].x *= a.x; w[i].y *= a.y; w[i].z *= a.z; w[i].w *= a.w;
            }
        }
    }
    wait_for_previous();
    const u64 row = (u64)r * p.dim;
    float4 added[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 at = i * 512 + threadIdx.x;
        if (4 * at < p.dim) x[i] = ((const float4*)((const float*)p.input + row))[at];
        added[i] = make_float4(0.f, 0.f, 0.f, 0.f);
    }
#pragma unroll 2
    for (u32 split = 0; split < p.splits; split++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const u32 at = i * 512 + threadIdx.x;
            if (4 * at < p.dim) {
                const float4 v = ((const float4*)((const float*)p.sums + (u64)split * p.split_stride + row))[at];
                add(added[i], v);
            }
        }
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 at = i * 512 + threadIdx.x;
        if (4 * at < p.dim) {
            if (p.splits) {
                add(x[i], added[i]);
                ((float4*)((float*)p.x + row))[at] = x[i];
            }
            sum += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
        }
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.f;
#pragma unroll
    for (int i = 0; i < 16; i++) sum += sums[i];
    const float scale = 1.f / sqrtf(sum / p.dim + p.eps);
    u16* out = (u16*)p.out + (u64)(r / p.group) * p.ld + r % p.group * p.dim;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 at = i * 512 + threadIdx.x;
        if (4 * at < p.dim) {
            *(uint2*)(out + 4 * at) = make_uint2(pack(x[i].x * scale * w[i].x, x[i].y * scale * w[i].y), pack(x[i].z * scale * w[i].z, x[i].w * scale * w[i].w));
        }
    }
}

// out[r, j] = cosine and sine of position(r) * weight[j], the product in f64
// out f32 pairs [rows, dim / 2]; weight f32 [dim / 2], the frequencies. One block of 64 a row.
KERNEL __launch_bounds__(64) rope_table(const __grid_constant__ RowWork p) {
    let_next_start();
    const u32 r = blockIdx.x;
    if (r >= ((const Counts*)p.counts)->rows) return;
    wait_for_previous();
    for (u32 j = threadIdx.x; j < p.dim / 2; j += 64) {
        double s, c;
        sincos((double)((const Row*)p.rows)[r].position * (double)((const float*)p.weight)[j], &s, &c);
        ((float2*)p.out)[r * (p.dim / 2) + j] = make_float2((float)c, (float)s);
    }
}

// out[r] = embedding[id(r)] + audio(r)
// out f32 [rows, ldo]; w is the embedding [n, k]. One block of 256 a row, a thread for eight of its elements.
template <u32 E> DEVICE void embed_row(const Product& p, const Row& row, float* out) {
    const u32 upper = row.id % 16 / 8;
    const char* panel = panel_at(p, row.id / 16);
    for (u32 i = threadIdx.x; i < p.ldo / 8; i += 256) {
        const u32 chunk = i / 4;
        const char* scales = panel + (chunk >> p.parameter) * 32 + row.id % 8 * 4;
        uint4 a[2];
        decode<E>(p, row.id / 16, load_part<E>(panel + p.head + chunk * Encoded<E>::BYTES, scales, row.id % 8 * 4 + i % 4), a);
        const u32 pairs[4] = {upper ? a[0].y : a[0].x, upper ? a[0].w : a[0].z, upper ? a[1].y : a[1].x, upper ? a[1].w : a[1].z};
        const float2* audio = (const float2*)row.audio + 4 * i;
#pragma unroll
        for (int j = 0; j < 4; j++) ((float2*)out)[4 * i + j] = make_float2(low(pairs[j]) + audio[j].x, high(pairs[j]) + audio[j].y);
    }
}

KERNEL __launch_bounds__(256) embed(const __grid_constant__ Product p) {
    let_next_start();
    const u32 r = blockIdx.x;
    if (r >= *(const u32*)p.count) return;
    wait_for_previous();
    const Row& row = ((const Row*)p.rows)[r];
    float* out = (float*)p.out + (u64)r * p.ldo;
    switch (p.encoding) {
    case BF16: return embed_row<BF16>(p, row, out);
    case BF12: return embed_row<BF12>(p, row, out);
    case INT8: return embed_row<INT8>(p, row, out);
    case INT4: return embed_row<INT4>(p, row, out);
    }
}

// out[m] = frames m - 2, m - 1 and m of a span beside each other, those before the span from its carry, which then takes the last two
// in f32 [frames, dim], carry f32 [2, dim], out bf16 [frames, ld], ld >= 3 dim. One block of 128 a frame.
KERNEL __launch_bounds__(128) gather_mel(const __grid_constant__ RowWork p) {
    let_next_start();
    const u32 m = blockIdx.x;
    if (m >= ((const Counts*)p.counts)->frames) return;
    wait_for_previous();
    const Span* span = (const Span*)p.spans;
    while (m >= span->frame + span->frames) span++;
    if (m == span->frame + 1) return;                   // the first frame's block takes the second too: both read the carry
    float* carry = (float*)span->mel_carry;
    const float* in = (const float*)p.input + (u64)span->frame * p.dim;
    for (u32 i = threadIdx.x; i < p.dim; i += 128) {
        auto frame = [&](int at) { return at < 0 ? carry[(2 + at) * p.dim + i] : in[at * p.dim + i]; };
        auto gather = [&](int at) {
            u16* out = (u16*)p.out + (u64)(span->frame + at) * p.ld + i;
            for (int tap = 0; tap < 3; tap++) out[tap * p.dim] = to_bf16(frame(at - 2 + tap));
        };
        gather((int)(m - span->frame));
        if (m == span->frame) {
            gather(1);
            carry[i] = frame(span->frames - 2);
            carry[p.dim + i] = frame(span->frames - 1);
        }
    }
}

// out[s] = columns 2s - 1, 2s and 2s + 1 of a span beside each other, the one before the span from its carry, which then takes the last
// in bf16 [frames, dim], carry bf16 [dim], out bf16 [frames / 2, ld], ld >= 3 dim. One block of 256 a position.
KERNEL __launch_bounds__(256) gather_columns(const __grid_constant__ RowWork p) {
    let_next_start();
    const u32 m = 2 * blockIdx.x;
    if (m >= ((const Counts*)p.counts)->frames) return;
    wait_for_previous();
    const Span* span = (const Span*)p.spans;
    while (m >= span->frame + span->frames) span++;
    u32* carry = (u32*)span->column_carry;
    const u32 pairs = p.dim / 2;
    const u32* in = (const u32*)p.input + (u64)m * pairs;
    u32* out = (u32*)((u16*)p.out + (u64)blockIdx.x * p.ld);
    for (u32 i = threadIdx.x; i < pairs; i += 256) {
        const bool first = m == span->frame;
        out[i] = first ? carry[i] : *(in + i - pairs);
        out[pairs + i] = in[i];
        out[2 * pairs + i] = in[pairs + i];
        if (first) carry[i] = in[(u64)(span->frames - 1) * pairs + i];
    }
}

// out[r] = the best id of row r and the logarithm of its probability, from what the head product left of each 128 outputs
// in Best [rows, dim]; out (u32, f32) [rows]. One block of 256 a row.
KERNEL __launch_bounds__(256) best_of_row(const __grid_constant__ RowWork p) {
    __shared__ float maxima[8], sums[8];
    __shared__ u32 ids[8];
    let_next_start();
    const u32 r = blockIdx.x;
    if (r >= ((const Counts*)p.counts)->rows) return;
    wait_for_previous();
    const Best* in = (const Best*)p.input + (u64)r * p.dim;
    float max = -INFINITY, sum = 0.f;
    u32 id = ~0u;
    for (u32 i = threadIdx.x; i < p.dim; i += 256) better(max, id, in[i].max, in[i].id);
    for (int d = 16; d; d >>= 1) better(max, id, __shfl_xor_sync(~0u, max, d), __shfl_xor_sync(~0u, id, d));
    if (threadIdx.x % 32 == 0) {
        maxima[threadIdx.x / 32] = max;
        ids[threadIdx.x / 32] = id;
    }
    __syncthreads();
    for (int i = 0; i < 8; i++) better(max, id, maxima[i], ids[i]);
    for (u32 i = threadIdx.x; i < p.dim; i += 256) sum += in[i].sum * expf(in[i].max - max);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        sum = 0.f;
        for (int i = 0; i < 8; i++) sum += sums[i];
        ((u32*)p.out)[2 * r] = id;
        ((float*)p.out)[2 * r + 1] = -logf(sum);
    }
}

// Runners-up of a row (RUNNERS_UP in the crate `model`).
constexpr u32 RUNNERS_UP = 2;

// out[r] = the best id of row r from rows[r].runners_up on but for the predicted one, then the next best, each with the logarithm of its
// probability; ~0 where no id is left. Rows that do not ask are left as they are; at least one asks.
// in f32 [rows, dim], logits; weight (u32, f32) [rows], the predictions; out (u32, f32) [rows, RUNNERS_UP]. One block of 512 a row.
KERNEL __launch_bounds__(512) runners_up(const __grid_constant__ RowWork p) {
    __shared__ float maxima[16];
    __shared__ u32 ids[16];
    let_next_start();
    const u32 r = blockIdx.x, from = ((const Row*)p.rows)[r].runners_up;
    if (from == ~0u) return;
    wait_for_previous();
    const float* in = (const float*)p.input + (u64)r * p.dim;
    const u32 predicted = ((const u32*)p.weight)[2 * r];
    const float logprob = ((const float*)p.weight)[2 * r + 1];
    u32 before = predicted;
    for (u32 n = 0; n < RUNNERS_UP; n++) {
        float max = -INFINITY;
        u32 id = ~0u;
        for (u32 i = from + threadIdx.x; i < p.dim; i += 512)
            if (i != predicted && i != before) better(max, id, in[i], i);
        for (int d = 16; d; d >>= 1) better(max, id, __shfl_xor_sync(~0u, max, d), __shfl_xor_sync(~0u, id, d));
        if (threadIdx.x % 32 == 0) {
            maxima[threadIdx.x / 32] = max;
            ids[threadIdx.x / 32] = id;
        }
        __syncthreads();
        for (int i = 0; i < 16; i++) better(max, id, maxima[i], ids[i]);
        if (threadIdx.x == 0) {
            const u64 at = 2 * ((u64)r * RUNNERS_UP + n);
            ((u32*)p.out)[at] = id;
            ((float*)p.out)[at + 1] = logprob + (max - in[predicted]);
        }
        before = id;
        __syncthreads();
    }
}
