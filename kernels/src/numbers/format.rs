//! The names of number formats, and rounding to them by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::codes;

/// A number format: of weights, of their compensation, of what a product takes.
///
/// Its name, also in serialised form, is that in lower case; `bfloat16`, `float16` and `float32` are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// 8 bits: 4 of exponent, 3 of mantissa; no infinity, largest value 448.
    E4m3,
    /// 8 bits: 5 of exponent, 2 of mantissa.
    E5m2,
    /// 16 bits: the upper half of an F32.
    #[serde(alias = "bfloat16")]
    Bf16,
    /// 16 bits: IEEE half precision.
    #[serde(alias = "float16")]
    F16,
    /// 32 bits: IEEE single precision.
    #[serde(alias = "float32")]
    F32,
}

impl Format {
    /// Formats in which weights may be stored, and `X` may enter the product that gives the logits.
    pub const WEIGHTS: [Self; 3] = [Self::E4m3, Self::Bf16, Self::F32];
    /// Formats in which a compensation may be stored.
    pub const COMPENSATIONS: [Self; 2] = [Self::Bf16, Self::E5m2];

    /// Bits of a number.
    pub const fn bits(self) -> usize {
        match self {
            Self::E4m3 | Self::E5m2 => 8,
            Self::Bf16 | Self::F16 => 16,
            Self::F32 => 32,
        }
    }

    /// `e4m3`, `e5m2`, `bf16`, `f16`, `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// The nearest value of the format, ties to even.
    #[inline(always)]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::E4m3 => codes::e4m3_to_f32(codes::f32_to_e4m3(value)),
            Self::E5m2 => codes::e5m2_to_f32(codes::f32_to_e5m2(value)),
            Self::Bf16 => codes::bf16_to_f32(codes::f32_to_bf16(value)),
            Self::F16 => half::f16::from_f32(value).to_f32(),
            Self::F32 => value,
        }
    }

    /// One of the two neighbours of a finite value, the upper one with probability equal to the fraction of the gap.
    /// `random` is uniform over 16 bits.
    ///
    /// # Panics
    /// If it is none of [`WEIGHTS`](Self::WEIGHTS).
    pub fn round_stochastic(self, value: f32, random: u16) -> f32 {
        match self {
            Self::E4m3 => codes::e4m3_to_f32(codes::f32_to_e4m3_stochastic(value, random)),
            Self::Bf16 => codes::bf16_to_f32(codes::f32_to_bf16_stochastic(value, random)),
            Self::F32 => value,
            Self::E5m2 | Self::F16 => panic!("no weights are stored in {self}"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    /// Reads the name, in lower case.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "e4m3" => Ok(Self::E4m3),
            "e5m2" => Ok(Self::E5m2),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "float16" => Ok(Self::F16),
            "f32" | "float32" => Ok(Self::F32),
            _ => Err(format!("expected e4m3, e5m2, bf16, f16 or f32, found {name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_long_ones_are_read_too() {
        use Format::*;
        for format in [E4m3, E5m2, Bf16, F16, F32] {
            assert_eq!(format.to_string().parse(), Ok(format));
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(json, format!("\"{format}\""));
            assert_eq!(serde_json::from_str::<Format>(&json).unwrap(), format);
        }
        for (long, format) in [("bfloat16", Bf16), ("float16", F16), ("float32", F32)] {
            assert_eq!(long.parse(), Ok(format));
            assert_eq!(serde_json::from_str::<Format>(&format!("\"{long}\"")).unwrap(), format);
        }
        assert!("E4M3x".parse::<Format>().is_err());
    }
}
