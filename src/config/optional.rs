//! Optional values in TOML, which has no null: the word `none` stands for it, so that every key can be written.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

pub(super) const NONE: &str = "none";

pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => NONE.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    if value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(NONE)) {
        return Ok(None);
    }
    // Only the message: the rest of a TOML error is a position, and here there is none.
    T::deserialize(value).map(Some).map_err(|error| D::Error::custom(error.message()))
}
