//! Whether the numbers of a file are finite.

use safetensors::Dtype;

/// Whether no number among these bytes is infinite or NaN. Integers are always finite.
pub(crate) fn are_finite(dtype: Dtype, bytes: &[u8]) -> bool {
    // A number is finite unless all bits of its exponent are set.
    match dtype {
        Dtype::F32 => !(bytes.chunks_exact(4)).any(|b| u16::from_le_bytes([b[2], b[3]]) & 0x7f80 == 0x7f80),
        Dtype::BF16 => !(bytes.chunks_exact(2)).any(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 == 0x7f80),
        Dtype::F16 => !(bytes.chunks_exact(2)).any(|b| b[1] & 0x7c == 0x7c),
        Dtype::F64 => !(bytes.chunks_exact(8)).any(|b| u16::from_le_bytes([b[6], b[7]]) & 0x7ff0 == 0x7ff0),
        // E4M3 without infinities: one code of either sign is NaN.
        Dtype::F8_E4M3 => !bytes.iter().any(|b| b & 0x7f == 0x7f),
        Dtype::F8_E5M2 => !bytes.iter().any(|b| b & 0x7c == 0x7c),
        _ => true,
    }
}
