//! The matrix unit of recent Intel processors (AMX: Sapphire Rapids and later): whether there is one, and its registers.
//!
//! A tile register holds 16 rows of 64 bytes. `tdpbf16ps` adds to 16 x 16 sums in `f32` the products of 16 rows of 32 values
//! in `bf16` and of 16 columns of 32, the columns laid out in pairs of values.

#![allow(unsafe_code, reason = "the unit is asked for by a system call and its registers are set by assembly")]

use core::arch::asm;
use std::sync::OnceLock;

/// Rows or columns of a tile.
pub(crate) const TILE: usize = 16;

/// Values that one instruction takes of each row.
pub(crate) const DEPTH: usize = 32;

/// Elements of a tile of `bf16`.
pub(crate) const ELEMENTS: usize = TILE * DEPTH;

/// Rows, and columns, of the block of sums that stays in registers: two tiles each way.
pub(crate) const BLOCK: usize = 2 * TILE;

/// Whether the processor has the unit and the system lets this process use it.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        const AMX_BF16: u32 = 1 << 22;
        const AMX_TILE: u32 = 1 << 24;
        if __cpuid(0).eax < 7 {
            return false;
        }
        let flags = __cpuid_count(7, 0).edx;
        flags & AMX_BF16 != 0 && flags & AMX_TILE != 0 && permitted()
    })
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

/// Runs `f` with all eight tile registers at full size. Only where the unit is [`available`].
pub(crate) fn with_tiles(f: impl FnOnce()) {
    assert!(available());
    // SAFETY: the processor has the unit and the system lets this process use it; the configuration is 64 bytes long.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
    f();
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}
