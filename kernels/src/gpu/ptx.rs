//! Instructions of every CUDA device since compute capability 8.0, as PTX: matrix products of a plane (`mma`),
//! asynchronous copies, conversions.
//!
//! CubeCL has functions for some of them (`MmaDefinition`, `copy_async`). Here fragments are 32-bit words that are put
//! together from codes, which its typed arrays do not take, and its cast from E4M3 takes a word apart byte by byte: see
//! `benches/NOTES.md`.
//!
//! `gpu_asm!` takes the address of a mutable variable instead of its
//! value; hence [`value`] around every operand.

use cubecl::prelude::*;

use crate::numbers::Format;
pub use crate::numbers::device::Words as Words4;

pub type Words2 = Vector<u32, Const<2>>;
/// A unit's part of a 16 x 8 tile of sums: columns `2t`, `2t + 1` of row `g`, then of row `g + 8`, where the unit is
/// lane `4 g + t` of its plane.
pub type Sums = Vector<f32, Const<4>>;

impl Format {
    /// What PTX calls it.
    pub(crate) const fn ptx(self) -> &'static str {
        match self {
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// The value of an operand, whether it can change or not.
#[cube]
pub fn value<T: CubePrimitive>(x: T) -> T {
    intrinsic!(|scope| { x.read_value(scope).into() })
}

/// `c + a b` of a 16 x 16 and a 16 x 8 tile of one plane, summed in F32.
///
/// Fragments as in the PTX manual, "mma.m16n8k16": a unit holds of `a` row `g` and `g + 8` at the depths `2t`, `2t +
/// 1`, then both rows at `2t + 8`, `2t + 9`; of `b` column `g` at the same depths. The depths may be any permutation
/// that both share.
#[cube]
pub fn multiply_add(a: Words4, b: Words2, c: Sums, #[comptime] half: Format) -> Sums {
    let ty = comptime!(half.ptx());
    let d: Sums;
    gpu_asm!(
        "mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32 {d}, {a}, {b}, {c};",
        d = out(_) d,
        a = in(_) value::<Words4>(a),
        b = in(_) value::<Words2>(b),
        c = in(_) value::<Sums>(c),
        options(pure, nomem),
    );
    d
}

/// Four bytes of the eight of `low` and `high`: hexadecimal digit `i` of the selector names byte `i` of the result.
#[cube]
pub fn permute_bytes(low: u32, high: u32, #[comptime] selector: u32) -> u32 {
    let d: u32;
    gpu_asm!(
        "prmt.b32 {d}, {low}, {high}, {selector};",
        d = out(_) d,
        low = in(_) value::<u32>(low),
        high = in(_) value::<u32>(high),
        options(pure, nomem),
    );
    d
}

/// Four E4M3 codes, none of them NaN, as two pairs of F16; exact.
///
/// `native` where the device has an instruction for it. Elsewhere a code's bits are moved to where F16 has them, which
/// makes the number too small by `2^8`.
#[cube]
pub fn decode_e4m3(codes: u32, #[comptime] native: bool) -> Words2 {
    let d: Words2;
    if comptime!(native) {
        gpu_asm!(
            "{{ .reg .b16 l, h; .reg .b32 x, y; .reg .b64 t; mov.b32 {{l, h}}, {codes};",
            "cvt.rn.f16x2.e4m3x2 x, l; cvt.rn.f16x2.e4m3x2 y, h; mov.b64 t, {{x, y}}; mov.b64 {d}, t; }}",
            d = out(_) d,
            codes = in(_) value::<u32>(codes),
            options(pure, nomem),
        );
    } else {
        gpu_asm!(
            "{{ .reg .b32 x, y, s, m, k; .reg .b64 t; mov.b32 k, 0x5C005C00;",
            "prmt.b32 x, {codes}, 0, 0x1404; and.b32 s, x, 0x80008000; and.b32 m, x, 0x7f007f00; shr.b32 m, m, 1;",
            "or.b32 x, s, m; mul.rn.f16x2 x, x, k;",
            "prmt.b32 y, {codes}, 0, 0x3424; and.b32 s, y, 0x80008000; and.b32 m, y, 0x7f007f00; shr.b32 m, m, 1;",
            "or.b32 y, s, m; mul.rn.f16x2 y, y, k; mov.b64 t, {{x, y}}; mov.b64 {d}, t; }}",
            d = out(_) d,
            codes = in(_) value::<u32>(codes),
            options(pure, nomem),
        );
    }
    d
}

/// Two numbers as a pair of 16-bit ones, to nearest.
#[cube]
pub fn pack(low: f32, high: f32, #[comptime] half: Format) -> u32 {
    let ty = comptime!(half.ptx());
    let d: u32;
    gpu_asm!(
        "cvt.rn.{ty}x2.f32 {d}, {high}, {low};",
        d = out(_) d,
        high = in(_) value::<f32>(high),
        low = in(_) value::<f32>(low),
        options(pure, nomem),
    );
    d
}

/// The numbers of a 16-bit pair.
#[cube]
pub fn unpack(pair: u32, #[comptime] half: Format) -> Vector<f32, Const<2>> {
    match comptime!(half) {
        Format::F16 => Vector::cast_from(Vector::<half::f16, Const<2>>::reinterpret(pair)),
        _ => {
            let mut numbers = Vector::<f32, Const<2>>::empty();
            numbers.insert(0usize, f32::reinterpret(pair << 16u32));
            numbers.insert(1usize, f32::reinterpret(pair & 0xffff_0000u32));
            numbers
        }
    }
}

/// The address of shared memory as the copies want it.
#[cube]
pub fn shared_address(memory: &Shared<[Words4]>) -> u32 {
    let pointer = unsafe { memory.as_slice().as_ptr_unchecked() };
    let d: u32;
    gpu_asm!(
        "{{ .reg .b64 t; cvta.to.shared.u64 t, {pointer}; cvt.u32.u64 {d}, t; }}",
        d = out(_) d,
        pointer = in(_) pointer,
        options(pure, nomem),
    );
    d
}

/// Four 8 x 8 matrices of 16-bit numbers from shared memory. Lane `8 m + r` gives the address of row `r` of matrix `m`;
/// a lane receives of each matrix the elements `2t`, `2t + 1` of row `g`; of its transpose if `transposed`.
#[cube]
pub fn load_matrices(address: u32, #[comptime] transposed: bool) -> Words4 {
    let how = comptime!(if transposed { ".trans" } else { "" });
    let d: Words4;
    gpu_asm!(
        "ldmatrix.sync.aligned.m8n8.x4{how}.shared.b16 {d}, [{address}];",
        d = out(_) d,
        address = in(_) value::<u32>(address),
    );
    d
}

/// 8 bytes of shared memory.
#[cube]
pub fn load_8(address: u32) -> Words2 {
    let d: Words2;
    gpu_asm!("ld.shared.v2.u32 {d}, [{address}];", d = out(_) d, address = in(_) value::<u32>(address));
    d
}

/// 16 bytes of shared memory.
#[cube]
pub fn load_16(address: u32) -> Words4 {
    let d: Words4;
    gpu_asm!("ld.shared.v4.u32 {d}, [{address}];", d = out(_) d, address = in(_) value::<u32>(address));
    d
}

/// Begins to copy 16 bytes, element `at` of `from`, to shared memory; zeros, and nothing is read, where `inside` does
/// not hold.
#[cube]
pub fn copy_async(to: u32, from: &[Words4], at: usize, inside: bool) {
    let pointer = unsafe { from.as_ptr_unchecked() };
    let offset = u64::cast_from(at) * 16u64;
    let bytes = select(inside, 16u32.runtime(), 0u32.runtime());
    gpu_asm!(
        "{{ .reg .b64 a; add.s64 a, {pointer}, {offset}; cp.async.cg.shared.global [{to}], [a], 16, {bytes}; }}",
        pointer = in(_) pointer,
        offset = in(_) value::<u64>(offset),
        to = in(_) value::<u32>(to),
        bytes = in(_) value::<u32>(bytes),
    );
}

/// Ends a group of copies.
#[cube]
pub fn end_copy_group() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits until at most `groups` of this unit's groups of copies are under way.
#[cube]
pub fn wait_for_copies(#[comptime] groups: u32) {
    gpu_asm!("cp.async.wait_group {groups};");
}
