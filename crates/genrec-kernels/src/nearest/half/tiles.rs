//! The matrix unit of recent Intel processors (AMX: Sapphire Rapids and later). A tile register holds 16 rows of 64 bytes;
//! `tdpbf16ps` adds to 16 x 16 sums in `f32` the products of 16 rows of 32 values and of 16 columns of 32.

#![allow(unsafe_code, reason = "tile registers are reached by assembly alone; every slice is measured before")]

use core::arch::asm;

use super::{BLOCK, DEPTH, ELEMENTS, Operands, TILE};

/// Whether the processor has the unit and the system lets this process use it.
pub(super) fn available() -> bool {
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    if __cpuid(0).eax < 7 {
        return false;
    }
    let flags = __cpuid_count(7, 0).edx;
    flags & AMX_BF16 != 0 && flags & AMX_TILE != 0 && permitted()
}

/// Asks the kernel for the tiles' state, which is larger than what it saves of a thread otherwise. From then on the kernel
/// refuses alternative signal stacks that are too small for it; where there is one already, it refuses this.
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call changes nothing but what this process may use; it is unknown to older kernels, which say so.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA, lateout("rcx") _,
            lateout("r11") _, options(nostack));
    }
    result == 0
}

/// What the tile registers hold: all eight of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = Shapes {
    palette: 1,
    start: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// All products; what fits what was checked.
pub(super) fn products(operands: &Operands<'_>, out: &mut [f32]) {
    let Operands { rows, words, chunks, stride } = *operands;
    // SAFETY: the processor has the unit, or it would not have been chosen; the configuration is 64 bytes long.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
    // The codewords of a block stay in the first-level cache while all rows pass by.
    for (block, words) in words.chunks_exact(chunks * 2 * ELEMENTS).enumerate() {
        for (rows, out) in rows.chunks_exact(BLOCK * chunks * DEPTH).zip(out.chunks_mut(BLOCK * stride)) {
            let place = out[block * BLOCK..].as_mut_ptr();
            // SAFETY: `rows` holds 32 rows of `chunks` times 64 bytes, `words` two tiles a chunk, and `out` 32 rows of
            // `stride` with 32 places from `block * 32` on, by the caller's assertion.
            unsafe { block_of_products(rows.as_ptr(), words.as_ptr(), chunks, place, stride) };
        }
    }
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// 32 x 32 products over `chunks` times 32 dimensions.
///
/// # Safety
/// `rows` points to 32 rows of `64 * chunks` bytes, `tiles` to `2048 * chunks` bytes, `out` to 32 rows of `stride` `f32` of which
/// 32 are written; the tiles are configured.
unsafe fn block_of_products(rows: *const u16, tiles: *const u16, chunks: usize, out: *mut f32, stride: usize) {
    let row_bytes = chunks * 2 * DEPTH;
    let out_bytes = stride * size_of::<f32>();
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {row_bytes}*1]",
            "tileloadd tmm6, [{tiles} + {sixty_four}*1]",
            "tileloadd tmm7, [{tiles} + {sixty_four}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {row_bytes}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {tiles}, 2048",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{out} + {out_bytes}*1], tmm0",
            "tilestored [{out} + {out_bytes}*1 + 64], tmm1",
            "tilestored [{out_lower} + {out_bytes}*1], tmm2",
            "tilestored [{out_lower} + {out_bytes}*1 + 64], tmm3",
            upper = inout(reg) rows => _,
            lower = inout(reg) rows.byte_add(TILE * row_bytes) => _,
            tiles = inout(reg) tiles => _,
            chunks = inout(reg) chunks => _,
            row_bytes = in(reg) row_bytes,
            sixty_four = in(reg) 64usize,
            out = in(reg) out,
            out_lower = in(reg) out.byte_add(TILE * out_bytes),
            out_bytes = in(reg) out_bytes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
