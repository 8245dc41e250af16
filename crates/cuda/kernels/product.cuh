// y[r, f] = sum_k w[f, k] x[r, k] (+ bias, and what Mode says)                                   twin: tests/gpu/twins.rs, `Case`
//
// w [n, k] in fragments of bf16 or of less, x bf16 [rows, k], sums f32. The order of additions of an output depends on w's shape alone, never on the
// number of rows: k is cut into `splits` (split-K, over blocks) and these into `slices` (sliced-K, over warps), all of them runs of
// 32-wide chunks; a slice is one chain of mma instructions, two a chunk; the slices of a split are then added first to last. The sums of
// splits stay apart: add_rms_norm adds them. Weights are the 16-row operand and activations the 8-column one, so that a few rows waste
// little.
//
// Here is what the kernels of both kinds share: product_stream.cuh for a few rows, product_tile.cuh for many.

// log2 of the slices: a shift is sooner than a division, and this comes before the first copy.
DEVICE u32 slice_bits(const Product& p) { return 31 - __clz(p.slices); }

// The first chunk of a slice, counted over all splits.
DEVICE u32 slice_start(const Product& p, u32 slice) { return p.k / 32 * slice / p.splits >> slice_bits(p); }

// One of a chunk's two instructions. Which k meets which slot of an instruction does not matter as long as both operands agree, so a
// lane takes eight consecutive elements of its row, `b`: the first four for one instruction, the others for the second. `a` is the
// lane's part of that half of the weight's fragment. Measured: put together from two rows' loads instead, with moves before
// each instruction, the products of 256 rows took 18 % longer.
template <int HALF> DEVICE void multiply(float (&c)[4], const uint4& a, const uint4& b) {
    mma(c, a.x, a.y, a.z, a.w, HALF ? b.z : b.x, HALF ? b.w : b.y);
}

// 16 bytes to shared memory in the background; zeros where `live` is false. The second-level cache takes 128 (the step in 4 bits: 2 % less).
DEVICE void fetch(u32 shared, const void* global, bool live) {
    const u32 bytes = live ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" :: "r"(shared), "l"(global), "r"(bytes) : "memory");
}
// 8 bytes.
DEVICE void fetch_8(u32 shared, const void* global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" :: "r"(shared), "l"(global) : "memory");
}
DEVICE void fetch_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEVICE void fetch_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory"); }
