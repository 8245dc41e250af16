// What all kernels share: types, the tables that the host writes for a pass, and the few instructions that CUDA C++ does not spell.
// No header is included, so that a bare NVRTC compiles it. bf16 values travel as u16, pairs as u32 (the lower half comes first).

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INFINITY __int_as_float(0x7f800000)

#define DEVICE static __device__ __forceinline__
#define KERNEL extern "C" __global__ void

// Slots of a block of a ring, which holds those of all layers, so that a ring grows at its end. Half of what attention takes at once.
constexpr u32 SLOT_BLOCK = 32;

// One position of a pass. The host writes the table before the pass; src/table.rs is its twin.
struct Row {
    u64 kv;             // the stream's ring, bf16 [ring / 32][layers][key, value][32 slots][kv_dim]; position p lies in slot p % ring
    u64 audio;          // f32 [dim], the audio embedding of this token
    u64 ada;            // f32 [layers][dim], what multiplies the second norm's output, or 0
    u32 ring;           // slots, a multiple of 32
    u32 position;
    u32 id;             // input token
    u32 partial;        // first of the row's partial results in attention
    u32 partials;       // how many
    u32 run;            // so many of them make a run of 256 keys
    u32 skip;           // so many fewer make the first run, whose first keys the row does not see
    u32 slot;           // position % ring
    u32 runners_up;     // the lowest id that may be a runner-up, ~0 where none are asked for
    u32 unused;
};

// Rows of one stream, consecutive positions, and the keys that they meet: what a block of attention works on at a time.
struct Item {
    u64 kv;             // as the rows have it
    u32 row;            // the first
    u32 rows;
    u32 position;       // of the first row
    u32 key0, key1;     // absolute positions, key0 a multiple of 64
    u32 slot;           // of key0
    u32 ring;
    u32 fresh;          // first position of the stream in this pass: the keys before it are there already
    u32 partial;        // the first row's partial result
    u32 partials;       // how many a row has
};

// One stream's part of an encode pass.
struct Span {
    u64 mel_carry;      // f32 [2][bins], the last frames of the span before
    u64 column_carry;   // bf16 [dim], the last column of the first convolution
    u32 frame;          // first frame within the pass
    u32 frames;
};

// What the host uploads before a pass begins with this.
struct Counts {
    u32 rows;           // decoder or encoder positions
    u32 items;
    u32 frames;
    u32 tokens;
};

// A kernel of a chain may start while its predecessor still runs: as soon as each block of that has called `let_next_start`, as every kernel
// does first, or left. `wait_for_previous` returns when the predecessor has ended and what it wrote is visible. At least one block of
// every kernel waits, and a kernel ends with its last block, so that "has ended" reaches back through the whole chain. Blocks without
// work leave at once.
#if __CUDA_ARCH__ >= 900
constexpr bool OVERLAP = true;
#else
constexpr bool OVERLAP = false;
#endif

DEVICE void let_next_start() {
    if constexpr (OVERLAP) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

DEVICE void wait_for_previous() {
    if constexpr (OVERLAP) asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Two f32 rounded to nearest even.
DEVICE u32 pack(float lo, float hi) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(hi), "f"(lo));
    return pair;
}

DEVICE u16 to_bf16(float v) { return (u16)pack(v, 0.f); }
DEVICE float low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// c[16 x 8] += a[16 x 16] b[16 x 8]. With g = lane / 4 and t = lane % 4: a0 holds row g, k 2t and 2t+1; a1 row g+8; a2 and a3 the same
// rows, k 2t+8 and 2t+9; b0 column g, k 2t and 2t+1; b1 k 2t+8 and 2t+9; c0 and c1 row g, columns 2t and 2t+1; c2 and c3 row g+8.
DEVICE void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Zeros for `mma` to add to.
template <int ROWS, int COLUMNS> DEVICE void clear(float (&sums)[ROWS][COLUMNS][4]) {
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int c = 0; c < 4; c++) sums[i][j][c] = 0.f;
}

DEVICE void add(float4& sum, const float4& v) {
    sum.x += v.x;
    sum.y += v.y;
    sum.z += v.z;
    sum.w += v.w;
}

DEVICE float gelu(float v) { return 0.5f * v * (1.f + erff(v * 0.70710678118654752f)); }
DEVICE float silu(float v) { return __fdividef(v, 1.f + __expf(-v)); }

DEVICE float warp_sum(float v) {
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
    return v;
}

DEVICE float warp_max(float v) {
    for (int d = 16; d; d >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
    return v;
}
