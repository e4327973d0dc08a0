//! JSON lines, an object a line: label-feature files as the Extreme Classification Repository has them, whose labels are
//! ids, and those that people write themselves, whose labels are names.

use std::{collections::BTreeMap, fmt, iter, path::Path, sync::Arc};

use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

use super::{
    columns::{Chosen, split_labels},
    json::{self, Value, mended, mistake},
};
use crate::{
    data::{
        row::{Labels, Row, TextFields},
        text::Lines,
    },
    error::{Error, Result},
};

/// Which members of an object make a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Members {
    /// The title or only text, the content, and the list of labels. A name that is empty is that of no member.
    names: [String; 3],
    /// Whether labels are listed by name, else by id.
    named: bool,
}

impl Members {
    /// Those of label-feature files.
    pub fn label_features() -> Self {
        Self { names: ["title", "content", "target_ind"].map(String::from), named: false }
    }

    /// Those of a file whose labels are names.
    pub fn named(columns: &Chosen) -> Self {
        let Chosen { title, content, labels, .. } = columns.clone();
        Self { names: [title, content.unwrap_or_default(), labels], named: true }
    }

    /// The member with the labels.
    pub fn labels(&self) -> &str {
        &self.names[2]
    }
}

/// What is read of a line. `uid` means nothing to training; `target_rel` is left out because labels are binary: a label
/// that is listed is a positive.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Of [`Members`], in that order.
    values: [Option<Value>; 3],
    /// A member that is there more than once.
    doubled: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for &Members {
    type Value = Record;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Record, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Members {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Record, A::Error> {
        let mut record = Record::default();
        while let Some(member) = members.next_key_seed(Name(&self.names))? {
            let Some(member) = member else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if record.values[member].replace(members.next_value()?).is_some() {
                record.doubled = Some(member);
            }
        }
        Ok(record)
    }
}

/// The name of a member: which of these it is.
struct Name<'a>(&'a [String; 3]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|member| !name.is_empty() && member == name))
    }
}

/// Reads one object.
fn parse(text: &str, members: &Members) -> serde_json::Result<Record> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let record = members.deserialize(&mut parser)?;
    parser.end()?;
    Ok(record)
}

/// How the objects of a file become rows.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub members: Arc<Members>,
    pub fields: TextFields,
    /// What separates the names in a text that holds several.
    pub separator: Option<String>,
}

/// The rows of a file, in order. [`Error::Data`] has the line and, if there is one, the field at fault; reading may go on
/// behind it.
pub(super) fn rows(mut lines: Lines, shape: Shape) -> impl Iterator<Item = Result<Row>> {
    iter::from_fn(move || next_row(&mut lines, &shape).transpose())
}

fn next_row(lines: &mut Lines, shape: &Shape) -> Result<Option<Row>> {
    let Shape { members, fields, separator } = shape;
    if !lines.advance()? {
        return Ok(None);
    }
    let (record, nan) = match parse(lines.text(), members) {
        Ok(record) => (record, false),
        Err(error) => mend_and_read(lines, members, error)?,
    };
    let wrong = |field: &str, expected: &str, value: &Value, hint: Option<&str>| {
        let found = match value {
            Value::Null if nan => "null or NaN".into(),
            value => value.to_string(),
        };
        wrong(lines, Some(field), expected, found, hint)
    };
    if let Some(member) = record.doubled {
        let field = Some(members.names[member].as_str());
        return Err(self::wrong(lines, field, "the field once", "it again".into(), None));
    }
    if record.values.iter().all(Option::is_none) {
        check_object(lines, members)?;
    }

    let [title, content, labels] = record.values;
    let text = |field: &str, value: Option<Value>| match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(value) => {
            let hint = (value == Value::Object).then_some(PANDAS);
            Err(wrong(field, "a text or null", &value, hint))
        }
    };
    let [title_name, content_name, labels_name] = &members.names;
    let (mut title, content) = (text(title_name, title)?, text(content_name, content)?);
    let labels = match labels {
        None => None,
        Some(value) if members.named => Some(Labels::Names(names(value, separator.as_deref(), |expected, value| {
            wrong(labels_name, expected, value, None)
        })?)),
        Some(value) => {
            Some(Labels::Ids(ids(value, |expected, value, hint| wrong(labels_name, expected, value, hint))?))
        }
    };
    let has_content = content.as_ref().is_some_and(|content| !content.trim().is_empty());
    if *fields == TextFields::TitleAndContent {
        let text = title.get_or_insert_default();
        text.push(' ');
        text.push_str(content.as_deref().unwrap_or_default());
    }
    Ok(Some(Row {
        line: lines.number(),
        text: title.unwrap_or_default(),
        labels,
        unread: has_content && *fields == TextFields::Title,
    }))
}

/// Label ids.
fn ids(value: Value, wrong: impl Fn(&str, &Value, Option<&str>) -> Error) -> Result<Vec<u32>> {
    let id = |value: &Value| {
        let hint = matches!(value, Value::Text(_)).then_some(
            "ids are numbers, without quotes; where labels are names, the file is called train.jsonl and the field `labels`",
        );
        value.id().ok_or_else(|| wrong(&format!("{IDS} in the list"), value, hint))
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::List(values) => values.iter().map(id).collect(),
        value => {
            let hint = value.id().map(|id| format!("a row of one label has a list of one: [{id}]"));
            Err(wrong(&format!("a list of {IDS}"), &value, hint.as_deref()))
        }
    }
}

/// Label names: a list of them, or a text that is one, or several with a separator.
fn names(value: Value, separator: Option<&str>, wrong: impl Fn(&str, &Value) -> Error) -> Result<Vec<String>> {
    match (value, separator) {
        (Value::Null, _) => Ok(Vec::new()),
        (Value::Text(text), Some(separator)) => Ok(split_labels(&text, separator).map(str::to_owned).collect()),
        (Value::Text(text), None) if text.trim().is_empty() => Ok(Vec::new()),
        (Value::List(values), _) => {
            let names = values.into_iter().map(|value| value.into_name().map_err(|value| wrong(NAMES, &value)));
            names.collect()
        }
        (value, _) => Ok(vec![value.into_name().map_err(|value| wrong("a list of label names", &value))?]),
    }
}

/// Objects that have nothing of a row: one object may hold the whole data set.
fn check_object(lines: &Lines, members: &Members) -> Result<()> {
    let error = |found: &str, hint| Err(wrong(lines, None, "a row a line", found.into(), Some(hint)));
    if has_rows_as_members(lines.text(), members) {
        return error("an object whose members are rows", PANDAS);
    }
    if has_ids_as_names(lines.text()) {
        return error(
            "one object whose names are ids",
            "`jq -c '{title: .[]}' OLD > NEW` writes them in their order, which must be that of the ids",
        );
    }
    Ok(())
}

const PANDAS: &str = "pandas writes a row a line with to_json(FILE, orient=\"records\", lines=True)";

/// What a list of names lists.
const NAMES: &str = "label names (texts) in the list";

/// What `target_ind` lists.
const IDS: &str = "label ids (whole numbers from 0 to 4294967295)";

/// Reads a line once more, with what Python adds to JSON put right. Also says whether that was necessary.
fn mend_and_read(lines: &mut Lines, members: &Members, error: serde_json::Error) -> Result<(Record, bool)> {
    let text = lines.text().to_owned();
    let (text, error) = match mended(&text) {
        None => (text, error),
        Some(text) => match parse(&text, members) {
            Ok(record) => return Ok((record, true)),
            Err(error) => (text, error),
        },
    };
    let last = lines.is_last();
    let (found, hint) = mistake(&text, &error, lines.number() == 1, last);
    Err(wrong(lines, None, "one JSON object a line", found, hint))
}

fn wrong(lines: &Lines, field: Option<&str>, expected: &str, found: String, hint: Option<&str>) -> Error {
    let place = match field {
        Some(field) => lines.place().field(field),
        None => lines.place(),
    };
    super::wrong(place, expected, found, hint)
}

/// Whether this is an object of objects that have the fields of a row.
fn has_rows_as_members(line: &str, members: &Members) -> bool {
    let found = serde_json::from_str::<BTreeMap<String, Value>>(line).unwrap_or_default();
    found.values().any(|member| *member == Value::Object)
        && members.names.iter().any(|name| line.contains(&format!("\"{name}\"")))
}

/// Whether this is an object from ids to something.
fn has_ids_as_names(line: &str) -> bool {
    let members = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(line).unwrap_or_default();
    !members.is_empty() && members.keys().all(|name| name.parse::<u32>().is_ok())
}

/// The names of the fields of the first row; none if it cannot be read.
pub(super) fn first_names(path: &Path) -> Vec<String> {
    let names = || {
        let (_, line) = Lines::open(path).ok()?.next()?.ok()?;
        let line = mended(&line).unwrap_or(line);
        let members: BTreeMap<String, IgnoredAny> = serde_json::from_str(&line).ok()?;
        Some(members.into_keys().collect())
    };
    names().unwrap_or_default()
}

/// The names of the fields of the first row, for a message about one that no row has.
pub(super) fn fields(path: &Path) -> Option<String> {
    let names = first_names(path);
    let names: Vec<_> = names.iter().take(8).map(|name| format!("`{}`", json::beginning(name))).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn rows(content: &[u8], fields: TextFields) -> Result<Vec<Row>> {
        let lines = Lines::from_reader(Path::new("trn.json"), Cursor::new(content.to_vec()))?;
        super::rows(lines, Shape { members: Arc::new(Members::label_features()), fields, separator: None }).collect()
    }

    fn error(content: &str) -> String {
        let error = rows(content.as_bytes(), TextFields::TitleAndContent).unwrap_err();
        error.to_string()
    }

    /// What the row on the third line reads as.
    fn third(line: &str) -> (String, Option<Vec<u32>>) {
        let good = "{\"title\": \"a\", \"target_ind\": [1]}\n";
        let content = format!("{good}{good}{line}\n{good}");
        let mut rows = rows(content.as_bytes(), TextFields::Title).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rows.len(), 4);
        let row = rows.swap_remove(2);
        let labels = row.labels.map(|labels| match labels {
            Labels::Ids(ids) => ids,
            names => panic!("{names:?}"),
        });
        (row.text, labels)
    }

    #[test]
    fn what_common_writers_write_is_read() {
        for (line, text, labels) in [
            (r#"{"title": "b", "target_ind": [1.0, 2, 3e0]}"#, "b", Some(vec![1, 2, 3])),
            (r#"{"title": "b", "target_ind": []}"#, "b", Some(vec![])),
            (r#"{"title": "b", "target_ind": null}"#, "b", Some(vec![])),
            (r#"{"title": "b", "target_ind": NaN}"#, "b", Some(vec![])),
            (r#"{"title": null, "uid": {"a": []}}"#, "", None),
            (r#"{"title": NaN}"#, "", None),
            (r#"{"title": "b", "target_rel": [NaN, -Infinity, Infinity]}"#, "b", None),
            (r#"{"title": "b \ud83d c", "target_ind": [0]}"#, "b \u{fffd} c", Some(vec![0])),
            (r#"{"\u0074itle": "b", "x\udc00": "\udc00\ud83d"}"#, "b", None),
            (r#"{"title": "\ud83d\ude00 NaN"}"#, "\u{1f600} NaN", None),
            ("\t {\"title\": \"b\"} \r", "b", None),
        ] {
            assert_eq!(third(line), (text.to_owned(), labels), "{line}");
        }
    }

    #[test]
    fn a_wrong_value_names_its_line_its_field_and_what_is_expected() {
        let good = "{\"title\": \"a\", \"target_ind\": [1]}\n";
        let list = "expected a list of label ids (whole numbers from 0 to 4294967295), found";
        let inside = "expected label ids (whole numbers from 0 to 4294967295) in the list, found";
        for (field, value, expected) in [
            ("target_ind", "[\"1\"]", format!("{inside} the text \"1\"")),
            ("target_ind", "3", format!("{list} 3\n  help: a row of one label has a list of one: [3]")),
            ("target_ind", "\"3 4\"", format!("{list} the text \"3 4\"")),
            ("target_ind", "{\"0\": 1}", format!("{list} an object")),
            ("target_ind", "[-1]", format!("{inside} -1")),
            ("target_ind", "[null]", format!("{inside} null")),
            ("target_ind", "[0, NaN]", format!("{inside} null or NaN")),
            ("target_ind", "[1.5]", format!("{inside} 1.5")),
            ("target_ind", "[true]", format!("{inside} true")),
            ("target_ind", "[[1]]", format!("{inside} a list")),
            ("target_ind", "[4294967296]", format!("{inside} 4294967296")),
            ("target_ind", "[1e300]", format!("{inside} 1e300")),
            ("title", "3", "expected a text or null, found 3".into()),
            ("content", "[\"a\", \"b\"]", "expected a text or null, found a list".into()),
            ("content", "false", "expected a text or null, found false".into()),
            ("title", "{\"0\": \"a\"}", "expected a text or null, found an object".into()),
            ("title", "\"a\", \"title\": \"b\"", "expected the field once, found it again".into()),
        ] {
            let message = error(&format!("{good}{good}{{\"{field}\": {value}}}\n"));
            let expected = format!("trn.json:3: `{field}`: {expected}");
            assert!(message.starts_with(&expected), "{message}\n{expected}");
            for word in ["u32", "sequence", "expected value", "hex escape", "invalid type"] {
                assert!(!message.contains(word), "{message}");
            }
        }
    }

    #[test]
    fn layouts_other_than_one_object_a_line_are_named() {
        let row = "{\"title\": \"a\", \"target_ind\": [1]}";
        let (line, inside) = (format!("{row}\n"), "{\n \"title\": \"a\"\n}\n");
        for (content, at, found) in [
            (format!("[{row},\n{row}]\n"), 1, "a JSON array\n  help: the rows of an array"),
            (format!("[\n {row}\n]\n"), 1, "a JSON array"),
            (format!("{line}[\"apple\", \"pie\", [0]]\n"), 2, "a JSON array"),
            (format!("{line}[\"apple\", null, [0]]\n"), 2, "a JSON array"),
            (inside.to_owned(), 1, "an object that goes over several lines\n  help: `jq -c"),
            (format!("{row}\r{row}\r"), 1, "lines that end in CR alone\n  help: `tr"),
            (format!("{row}{row}\n"), 1, "several objects on one line\n  help: `jq -c"),
            (format!("{line}{row}, {row}\n"), 2, "several objects on one line"),
            (format!("{row},\n{row}\n"), 1, "`,` behind the object\n  help: `sed"),
            (format!("{{\"0\": {row}, \"1\": {row}}}\n"), 1, "an object whose members are rows\n  help: pandas"),
            ("title,target\na,1\n".into(), 1, "`title,target`, which looks like a table"),
            ("title\ttarget\n".into(), 1, "`title target`, which looks like a table"),
            ("{\"0\": \"a\", \"1\": \"b\"}\n".into(), 1, "one object whose names are ids\n  help: `jq -c '{title"),
            ("apple\nbread\n".into(), 1, "`apple`\n  help: `jq -cR"),
            (format!("\u{1e}{line}"), 1, "a record separator (`\\u{1e}`)\n  help: `tr -d"),
            (format!("{line}\u{feff}{line}"), 2, "a byte order mark (`\\u{feff}`) within the file\n  help: "),
            ("{\"title\": None}\n".into(), 1, "`None}` at column 11\n  help: JSON has null"),
            ("{\"title\": \"a\", \"b\": True}\n".into(), 1, "`True}` at column 21\n  help: JSON has null"),
            (format!("{line}{}\n{line}", &row[..20]), 2, "a line that breaks off\n  help: the file is damaged"),
            (format!("{}\n{line}", &row[..20]), 1, "a line that breaks off\n  help: the file is damaged"),
            (format!("{line}{}", &row[..20]), 2, "a line that breaks off\n  help: the file is incomplete"),
            (format!("{line}\n"), 2, "an empty line\n  help: rows are known by their line number"),
            ("<!DOCTYPE html>\n".into(), 1, "HTML or XML\n  help: "),
            ("version https://git-lfs.github.com/spec/v1\n".into(), 1, "a git-lfs pointer"),
            ("{'title': 'a'}\n".into(), 1, "`'title': 'a'}` at column 2\n  help: JSON has names and texts in double"),
            ("{\"title\": \"a\tb\"}\n".into(), 1, "a raw control character at column 13"),
            ("{\"title\": \"a\",}\n".into(), 1, "`}` at column 15"),
            ("\"a\"\n".into(), 1, "the text \"a\"\n  help: `jq -c "),
            ("3\n".into(), 1, "3"),
        ] {
            let message = error(&content);
            let place = format!("trn.json:{at}: expected ");
            assert!(message.starts_with(&place), "{content}\n{message}");
            assert!(message.contains(&format!(" a line, found {found}")), "{content}\n{message}");
        }
    }

    #[test]
    fn text_is_what_the_fields_say() {
        let line = br#"{"title": "a", "content": "b"}"#;
        let row = |fields| rows(line, fields).unwrap().remove(0);
        let title = row(TextFields::Title);
        assert_eq!((title.text.as_str(), title.unread), ("a", true));
        let both = row(TextFields::TitleAndContent);
        assert_eq!((both.text.as_str(), both.unread), ("a b", false));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, json in "[\\[\\]{}\":,\\\\uNaI0-9tile\r\n -]{0,60}") {
            for content in [&bytes[..], json.as_bytes(), format!("{{\"target_ind\": {json}").as_bytes()] {
                let _ = rows(content, TextFields::TitleAndContent);
            }
        }
    }
}
