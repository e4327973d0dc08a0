//! Which columns of a table, or fields of an object, hold the text and the labels of a row.

use super::{listed, wrong};
use crate::error::{Place, Result};

/// What the user says of them; what is `None` is found out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Columns<'a> {
    /// The column with the text.
    pub text: Option<&'a str>,
    /// The column with the labels.
    pub labels: Option<&'a str>,
    /// What stands between two labels of a row; `space` for spaces of any kind, `tab` for a tab.
    pub separator: Option<&'a str>,
}

/// The columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The title, or the only text.
    pub title: String,
    pub content: Option<String>,
    pub labels: String,
}

/// What the column of the only text is called, the likeliest first.
const TEXTS: [&str; 10] =
    ["text", "title", "content", "document", "body", "abstract", "description", "sentence", "question", "name"];
/// What stands beside a column `title`, the likeliest first.
const CONTENTS: [&str; 5] = ["content", "text", "body", "abstract", "description"];
const LABELS: [&str; 15] = [
    "labels",
    "label",
    "subject_uris",
    "subjects",
    "tags",
    "categories",
    "category",
    "keywords",
    "topics",
    "classes",
    "class",
    "targets",
    "target",
    "codes",
    "code",
];

impl Chosen {
    /// Chooses among columns of these names; `place` is where they stand.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data) if a column that is wanted, or any for texts or labels, is not there.
    pub fn choose(names: &[String], wanted: Columns, place: &Place) -> Result<Self> {
        let like = |candidates: &[&str]| {
            let named = |wanted: &&str| names.iter().find(|name| name.trim().eq_ignore_ascii_case(wanted));
            candidates.iter().find_map(named).cloned()
        };
        let find = |wanted: Option<&str>, candidates: &[&str], what: &str, key: &str| {
            let found = match wanted {
                Some(wanted) => names.iter().find(|name| name.trim() == wanted).cloned(),
                None => like(candidates),
            };
            found.ok_or_else(|| {
                let expected = match wanted {
                    Some(wanted) => format!("the column `{wanted}`, which dataset.data.{key} names"),
                    None => format!("a column with the {what}, such as `{}`", candidates[0]),
                };
                let hint = format!("dataset.data.{key}=NAME names the column with the {what}");
                wrong(place.clone(), expected, listed(names.iter().map(String::as_str)), Some(&hint))
            })
        };
        let labels = find(wanted.labels, &LABELS, "labels", "label_column")?;
        let title = like(&["title"]).filter(|title| wanted.text.is_none() && *title != labels);
        if let (Some(title), Some(content)) = (title, like(&CONTENTS).filter(|content| *content != labels)) {
            return Ok(Self { title, content: Some(content), labels });
        }
        let title = find(wanted.text, &TEXTS, "texts", "text_column")?;
        Ok(Self { title, content: None, labels })
    }

    /// Whether these look like the columns of a data set.
    pub fn are_known(names: &[String]) -> bool {
        Self::choose(names, Columns::default(), &Place::file("")).is_ok()
    }
}

/// The separator that a word stands for.
pub(super) fn separator(word: &str) -> &str {
    match word {
        "space" => " ",
        "tab" | "\\t" => "\t",
        other => other,
    }
}

/// What stands between two labels of these texts, each the labels of a row: `|` or `;`, if any has it. A comma or a
/// space may be part of a name, so they are only taken where they are asked for.
pub(super) fn guess_separator<'a>(mut texts: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut best = None;
    // `|` is the rarer one in a name.
    for text in texts.by_ref() {
        match () {
            () if text.contains('|') => return Some("|".into()),
            () if text.contains(';') => best = Some(";".into()),
            () => {}
        }
    }
    best
}

/// The labels in a text, without the spaces around them. A separator of one space stands for any number of any kind.
pub(super) fn split_labels<'a>(text: &'a str, separator: &'a str) -> impl Iterator<Item = &'a str> {
    let blank = separator == " ";
    let by_blank = blank.then(|| text.split_whitespace()).into_iter().flatten();
    let by_separator = (!blank).then(|| text.split(separator)).into_iter().flatten();
    by_blank.chain(by_separator).map(str::trim).filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(names: &[&str], wanted: Columns) -> Result<(String, Option<String>, String), String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let columns = Chosen::choose(&names, wanted, &Place::line("train.csv", 1));
        columns.map(|c| (c.title, c.content, c.labels)).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_known_by_their_names_or_by_the_keys() {
        let found = |title: &str, content: Option<&str>, labels: &str| {
            Ok((title.to_owned(), content.map(str::to_owned), labels.to_owned()))
        };
        let auto = Columns::default();
        assert_eq!(choose(&["id", "Text", "labels"], auto), found("Text", None, "labels"));
        assert_eq!(choose(&["title", "content", "tags"], auto), found("title", Some("content"), "tags"));
        assert_eq!(choose(&["title", "text", "label"], auto), found("title", Some("text"), "label"));
        let named = Columns { text: Some("content"), labels: Some("x"), separator: None };
        assert_eq!(choose(&["title", "content", "x"], named), found("content", None, "x"));

        let message = choose(&["a", "b"], auto).unwrap_err();
        assert!(
            message.starts_with("train.csv:1: expected a column with the labels, such as `labels`, found `a`, `b`")
        );
        assert!(message.contains("help: dataset.data.label_column=NAME"), "{message}");
        let message = choose(&["text", "labels"], named).unwrap_err();
        assert!(message.contains("expected the column `x`, which dataset.data.label_column names"), "{message}");
    }

    #[test]
    fn labels_are_split_where_the_separator_says() {
        let split = |text, separator| split_labels(text, separator).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(split(" food, nutrient ;wine;; ", ";"), ["food, nutrient", "wine"]);
        assert_eq!(split(" a  b\tc ", " "), ["a", "b", "c"]);
        assert_eq!(guess_separator(["a, b", "c;d"].into_iter()).as_deref(), Some(";"));
        assert_eq!(guess_separator(["a;b", "c|d"].into_iter()).as_deref(), Some("|"));
        assert_eq!(guess_separator(["a, b", "c d"].into_iter()), None);
    }
}
