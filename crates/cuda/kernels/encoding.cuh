// How weights are stored, and how they become the operands of an instruction.                      twin: src/packed.rs
//
// A matrix is cut into panels of 16 outputs, `stride` bytes each: `head` bytes of what the encoding keeps beside its weights, then a
// fragment for each 32 of k. A fragment holds what each lane needs, side by side: rows lane / 4 and lane / 4 + 8, k from 8 (lane % 4) on,
// eight of each. Its first part has 16 bytes a lane (once, or twice for bf16), its second part 8.
//
//        first part                                          second part                            head
// bf16   what an instruction takes, for the first four
//        k and for the others
// bf12   signs and mantissas                                 exponents, 4 bits each: 0 for a        bf16 [256], the weights without one
//                                                            weight that has none, else how far
//                                                            above `parameter`
// int8   codes, 8 bits each                                                                         bf16 [groups][8][2], the scales of
// int4                                                       codes, 4 bits each                     rows g and g + 8; a group is
//                                                                                                   1 << `parameter` fragments
//
// What is decoded is bf16, the same for every kernel.

enum Encoding { BF16 = 0, BF12 = 1, INT8 = 2, INT4 = 3 };

template <u32 E> struct Encoded {
    static constexpr int WIDE = E == BF16 ? 2 : E == INT4 ? 0 : 1;      // first parts
    static constexpr bool NARROW = E == BF12 || E == INT4;              // whether there is a second part
    static constexpr bool SCALED = E == INT8 || E == INT4;
    static constexpr u32 BYTES = 512 * WIDE + (NARROW ? 256 : 0);       // of a fragment
};

// A lane's part of a fragment, and its two scales.
template <u32 E> struct Part {
    uint4 wide[2];
    uint2 narrow;
    u32 scales;
};

template <u32 E> DEVICE Part<E> load_part(const char* fragment, const char* scales, u32 lane) {
    Part<E> part;
#pragma unroll
    for (int i = 0; i < Encoded<E>::WIDE; i++) part.wide[i] = *(const uint4*)(fragment + 512 * i + 16 * lane);
    if (Encoded<E>::NARROW) part.narrow = *(const uint2*)(fragment + 512 * Encoded<E>::WIDE + 8 * lane);
    if (Encoded<E>::SCALED) part.scales = *(const u32*)scales;
    return part;
}

DEVICE const char* panel_at(const Product& p, u32 panel) { return (const char*)p.w + (u64)panel * p.stride; }

// a b + c for two bf16, rounded once.
DEVICE u32 fma_pair(u32 a, u32 b, u32 c) {
    u32 sum;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}
constexpr u32 ONES = 0x3f803f80, NO_ZEROS = 0x80008000;                 // -0 changes nothing that is added to it

// a & mask | b, or ~a & mask | b: one instruction each, of which the compiler makes two where both others are constants.
DEVICE u32 and_or(u32 a, u32 mask, u32 b) {
    u32 of;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(of) : "r"(a), "r"(mask), "r"(b));
    return of;
}
DEVICE u32 and_not_or(u32 a, u32 mask, u32 b) {
    u32 of;
    asm("lop3.b32 %0, %1, %2, %3, 0xae;" : "=r"(of) : "r"(a), "r"(mask), "r"(b));
    return of;
}

// Two codes of 8 bits, in bytes 0 and 2 of `pair` with 0x43 above: that is 128 and the lower seven bits, of which 128 is too much, or 256.
DEVICE u32 decode_int8(u32 pair, u32 scale) {
    return fma_pair(fma_pair(pair & 0xff7fff7f, ONES, and_not_or(pair, 0x00800080, 0xc300c300)), scale, NO_ZEROS);
}

// Two codes of 4 bits, at bits 0 and 16.
DEVICE u32 decode_int4(u32 codes, u32 scale) {
    return fma_pair(fma_pair(and_or(codes, 0x000f000f, 0x43004300), ONES, 0xc308c308), scale, NO_ZEROS);
}

// Whether one of eight codes is 0.
DEVICE bool any_zero(u32 codes) { return (codes - 0x11111111) & ~codes & 0x88888888; }

// A weight without an exponent has in place of its sign and mantissa where it lies in the head of its panel.
DEVICE u32 from_head(const u16* head, u32 pair, u32 codes) {
    const u32 at[2] = {(pair >> 8 & 0x80) | (pair & 0x7f), pair >> 24 & 0x80 | (pair >> 16 & 0x7f)};
    if (!(codes & 0xf)) pair = (pair & 0xffff0000) | head[at[0]];
    if (!(codes & 0xf0000)) pair = (pair & 0xffff) | (u32)head[at[1]] << 16;
    return pair;
}

// The operands of both instructions of `multiply`, bf16: in each, k and k + 1 of rows g and g + 8, then k + 2 and k + 3 of both.
template <u32 E> DEVICE void decode(const Product& p, u32 panel, const Part<E>& part, uint4 (&a)[2]) {
    u32 pairs[2][4];                                    // of rows g and g + 8
    if constexpr (E == INT8) {
        const u32 words[2][2] = {{part.wide[0].x, part.wide[0].y}, {part.wide[0].z, part.wide[0].w}};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const u32 scale = __byte_perm(part.scales, 0, r ? 0x3232 : 0x1010);
#pragma unroll
            for (int i = 0; i < 4; i++) pairs[r][i] = decode_int8(__byte_perm(words[r][i / 2], 0x43, i % 2 ? 0x4342 : 0x4140), scale);
        }
    }
    if constexpr (E == INT4) {
        const u32 words[2] = {part.narrow.x, part.narrow.y};
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const u32 scale = __byte_perm(part.scales, 0, r ? 0x3232 : 0x1010);
#pragma unroll
            for (int i = 0; i < 4; i++) pairs[r][i] = decode_int4(words[r] >> 4 * i, scale);
        }
    }
    if constexpr (E == BF12) {
        // A word has a pair of row g where a bf16 has it, and one of row g + 8 in the bits between, with its bytes swapped.
        const u32 words[4] = {part.wide[0].x, part.wide[0].y, part.wide[0].z, part.wide[0].w};
        const u32 codes[2] = {part.narrow.x, part.narrow.y}, lowest = p.parameter * 0x00800080;
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const u32 low = (r ? __byte_perm(words[i], 0, 0x2301) : words[i]) & 0x807f807f;
                pairs[r][i] = low | ((codes[r] >> 4 * i & 0x000f000f) * 128 + lowest);
            }
        if (any_zero(codes[0]) || any_zero(codes[1])) {
            const u16* head = (const u16*)panel_at(p, panel);
#pragma unroll
            for (int r = 0; r < 2; r++)
#pragma unroll
                for (int i = 0; i < 4; i++) pairs[r][i] = from_head(head, pairs[r][i], codes[r] >> 4 * i);
        }
    }
    if constexpr (E == BF16) {
        a[0] = part.wide[0];
        a[1] = part.wide[1];
    } else {
        a[0] = make_uint4(pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]);
        a[1] = make_uint4(pairs[0][2], pairs[1][2], pairs[0][3], pairs[1][3]);
    }
}
