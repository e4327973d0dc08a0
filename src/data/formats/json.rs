//! JSON as people and programs write it: values of any type, lines that need mending, and mistakes in plain words.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::data::text::CR_ALONE;

/// A value of any type. Members of an object are not kept.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) enum Value {
    Null,
    Bool(bool),
    Whole(u64),
    Negative(i64),
    Fraction(f64),
    Text(String),
    List(Vec<Value>),
    Object,
}

impl Value {
    /// A label id: a whole number from 0, also one written with a point, as pandas does.
    pub fn id(&self) -> Option<u32> {
        match *self {
            Self::Whole(n) => n.try_into().ok(),
            Self::Fraction(x) if x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&x) => Some(x as u32),
            _ => None,
        }
    }

    /// The name of a label: a text that is not blank, or a whole number. Hands back what is neither.
    pub fn into_name(self) -> Result<String, Self> {
        match self {
            Self::Text(text) if !text.trim().is_empty() => Ok(text),
            Self::Whole(number) => Ok(number.to_string()),
            Self::Negative(number) => Ok(number.to_string()),
            // As pandas writes whole numbers of a column in which some are missing. All below 2^53 are exact.
            Self::Fraction(x) if x.fract() == 0.0 && x.abs() < 9e15 => Ok(format!("{x:.0}")),
            other => Err(other),
        }
    }
}

/// What it is, for a message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Whole(value) => write!(f, "{value}"),
            Self::Negative(value) => write!(f, "{value}"),
            Self::Fraction(value) => write!(f, "{value:?}"),
            Self::Text(text) => write!(f, "the text \"{}\"", beginning(text)),
            Self::List(_) => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Whole(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Negative(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Fraction(value))
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Object)
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

/// `text` with what Python writes and JSON does not have put right: the numbers `NaN`, `Infinity` and `-Infinity`
/// become `null`, and half of a surrogate pair becomes the replacement character. `None` if there is neither.
pub(in crate::data) fn mended(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut inside) = (text, false);
    while let Some(next) = rest.chars().next() {
        let (taken, put) = match (inside, next) {
            (true, '\\') => escape(rest),
            (false, 'N' | 'I' | '-') => {
                let number = ["NaN", "Infinity", "-Infinity"].into_iter().find(|n| rest.starts_with(n));
                number.map_or((1, None), |number| (number.len(), Some("null")))
            }
            _ => (next.len_utf8(), None),
        };
        inside ^= next == '"';
        let (taken, left) = rest.split_at(taken);
        out.push_str(put.unwrap_or(taken));
        rest = left;
    }
    (out != text).then_some(out)
}

/// The length of the escape at the start of `text`, and what it is to be replaced by.
fn escape(text: &str) -> (usize, Option<&'static str>) {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let second = || text.get(6..).and_then(unit);
    match unit(text) {
        Some(0xd800..0xdc00) if matches!(second(), Some(0xdc00..0xe000)) => (12, None),
        Some(0xd800..0xe000) => (6, Some("\\ufffd")),
        Some(_) => (6, None),
        None => (1 + text[1..].chars().next().map_or(0, char::len_utf8), None),
    }
}

/// What a line that is no JSON object is instead, and what to do about it. `first` and `last`: of the file.
pub(in crate::data) fn mistake(
    text: &str,
    error: &serde_json::Error,
    first: bool,
    last: bool,
) -> (String, Option<&'static str>) {
    const ONE_A_LINE: &str = "`jq -c . OLD > NEW` writes one object a line";
    let trimmed = text.trim();
    let at = position(text, error);
    match trimmed.chars().next() {
        None => (
            "an empty line".into(),
            Some("rows are known by their line number: remove the line, also at the end"),
        ),
        Some('[') => (
            "a JSON array".into(),
            first.then_some(
                "the rows of an array become one object a line with `jq -c '.[]' OLD > NEW`, or where it was written with \
                 pandas: to_json(FILE, orient=\"records\", lines=True)",
            ),
        ),
        Some('{') if trimmed.contains('\r') => (CR_ALONE.0.into(), Some(CR_ALONE.1)),
        Some('{') if error.is_eof() && last => (
            "a line that breaks off".into(),
            Some("the file is incomplete: write it, or download it, again"),
        ),
        Some('{') if error.is_eof() && (trimmed == "{" || first && trimmed.ends_with(['{', '[', ','])) => {
            ("an object that goes over several lines".into(), Some(ONE_A_LINE))
        }
        Some('{') if error.is_eof() => (
            "a line that breaks off".into(),
            Some("the file is damaged here: write it, or download it, again"),
        ),
        Some('{') => {
            let mut objects = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
            let whole = matches!(objects.next(), Some(Ok(_)));
            let behind = text[objects.byte_offset()..].trim_start();
            let found = format!("`{}` at column {}", beginning(&text[at..]), at + 1);
            match text[at..].chars().next() {
                _ if whole && behind.trim_start_matches([',', ' ']).starts_with('{') => {
                    ("several objects on one line".into(), Some(ONE_A_LINE))
                }
                _ if whole => (
                    format!("`{}` behind the object", beginning(behind)),
                    (behind.trim() == ",").then_some("`sed 's/,$//' OLD > NEW` takes the commas away"),
                ),
                Some('\'') => (found, Some("JSON has names and texts in double quotes: Python's json.dumps writes them")),
                _ if ["None", "True", "False"].iter().any(|word| text[at..].starts_with(word)) => {
                    (found, Some("JSON has null, true and false: Python's json.dumps writes them"))
                }
                Some(c) if c.is_control() => (
                    format!("a raw control character at column {}", at + 1),
                    Some("within a text, a tab is written \\t and a new line \\n"),
                ),
                _ => (found, None),
            }
        }
        Some('\u{1e}') => (
            "a record separator (`\\u{1e}`)".into(),
            Some("`tr -d '\\036' < OLD > NEW` takes the separators away"),
        ),
        Some('\u{feff}') => (
            "a byte order mark (`\\u{feff}`) within the file".into(),
            Some("files were put together: `sed 's/^\\xEF\\xBB\\xBF//' OLD > NEW` takes the marks away"),
        ),
        Some('<') => (
            "HTML or XML".into(),
            Some("a page was saved in the place of the file: download it again"),
        ),
        Some(_) if trimmed.starts_with("version https://git-lfs") => (
            "a git-lfs pointer, not the data".into(),
            Some("`git lfs pull` fetches the data"),
        ),
        Some(_) => match serde_json::from_str::<Value>(text) {
            Ok(value) => {
                let hint = "`jq -c '{title: .}' OLD > NEW` makes a row of every text";
                (value.to_string(), matches!(value, Value::Text(_)).then_some(hint))
            }
            Err(_) if first && trimmed.contains([',', ';', '\t']) => (
                format!("`{}`, which looks like a table (CSV or TSV)", beginning(trimmed)),
                Some("a table is read where it is called train.csv or train.tsv; dataset.data.format=table reads trn.csv too"),
            ),
            Err(_) => (
                format!("`{}`", beginning(trimmed)),
                first.then_some("`jq -cR '{title: .}' OLD > NEW` makes a row of every line of a plain text"),
            ),
        },
    }
}

/// The byte of a line at which reading failed.
fn position(text: &str, error: &serde_json::Error) -> usize {
    let mut at = error.column().saturating_sub(1).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Enough of a text to know it again, with what nobody sees in escapes.
pub(crate) fn beginning(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown = String::new();
    for c in text.chars().take(SHOWN) {
        match c {
            '\t' | '\n' | '\r' => shown.push(' '),
            ' '..='~' => shown.push(c),
            // Behind a letter, for an accent is shown there.
            c => shown.extend(format!("a{c}").escape_debug().skip(1)),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_python_adds_to_json_is_mended() {
        for (text, expected) in [
            (r#"{"a": NaN, "b": [-Infinity, Infinity, -1]}"#, Some(r#"{"a": null, "b": [null, null, -1]}"#)),
            (r#"{"a": "NaN \" NaN", "b": NaN}"#, Some(r#"{"a": "NaN \" NaN", "b": null}"#)),
            (r#""\ud83d x""#, Some(r#""\ufffd x""#)),
            (r#""\ud83d""#, Some(r#""\ufffd""#)),
            (r#""\uDE00\uD83D\uD83D\uDE00""#, Some(r#""\ufffd\ufffd\uD83D\uDE00""#)),
            (r#""\\ud83d \n \u00e9 \ud83d\ude00""#, None),
            (r#""\u12"#, None),
            (r#""\"#, None),
            ("\"\\\u{e9}\"", None),
        ] {
            assert_eq!(mended(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_nobody_sees_is_shown() {
        for (text, expected) in [
            ("a\tb \\ \"c\"", "a b \\ \"c\""),
            ("Käse e\u{301} हिन्दी 中", "Käse e\u{301} हिन्दी 中"),
            ("\u{feff}{\u{a0}\u{200b}\0", "\\u{feff}{\\u{a0}\\u{200b}\\0"),
        ] {
            assert_eq!(beginning(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\":,\\\\uN0dD8aIé\r\t -]{0,40}", any: String) {
            for text in [text, any] {
                let text = mended(&text).unwrap_or(text);
                if let Err(error) = serde_json::from_str::<Value>(&text) {
                    mistake(&text, &error, true, false);
                    mistake(&text, &error, false, true);
                }
            }
        }
    }
}
