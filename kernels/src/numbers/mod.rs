//! Number formats of 8 and 16 bits, how values are rounded to them, and the random bits that rounding takes: one law on
//! host and device.

pub mod codes;
#[cfg(feature = "cube")]
pub(crate) mod device;
mod format;
pub mod random;

pub use format::Format;
