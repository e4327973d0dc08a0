//! Tables with a header: CSV with any of the usual delimiters, and TSV.

use std::{
    io::Read,
    iter,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use csv::{ByteRecord, ReaderBuilder};

use super::{
    columns::{Chosen, Columns, guess_separator, separator, split_labels},
    listed, wrong,
};
use crate::{
    data::{
        Progress, Watch,
        plain::{Text, unreadable},
        row::{Labels, Row, TextFields},
    },
    error::{Error, Place, Result},
};

/// How a table is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub columns: Chosen,
    delimiter: u8,
    /// The names of all columns.
    names: Vec<String>,
    /// What stands between two labels; `None` where a row has one.
    pub separator: Option<String>,
}

/// Rows that are looked at to find out what separates labels.
const LOOKED_AT: usize = 1000;

impl Layout {
    /// Finds out how a table is to be read.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if it has no header with columns for text and labels.
    pub fn of(path: &Path, wanted: Columns) -> Result<Self> {
        let delimiter = delimiter(path)?;
        let names = header(path, delimiter)?;
        let columns = Chosen::choose(&names, wanted, &Place::line(path, 1))?;
        let mut layout = Self { columns, delimiter, names, separator: None };
        layout.separator = match wanted.separator {
            Some(word) => Some(separator(word).to_owned()),
            // Annif's tables.
            None if layout.columns.labels == "subject_uris" => Some(" ".into()),
            None => {
                let labels = layout.place(&layout.columns.labels);
                let cells = records(path, &layout, "reading", &Watch::default())?.take(LOOKED_AT);
                let cells: Vec<String> =
                    cells.flatten().map(|(_, record)| String::from_utf8_lossy(&record[labels]).into_owned()).collect();
                guess_separator(cells.iter().map(String::as_str).filter(|cell| list(cell).is_none()))
            }
        };
        Ok(layout)
    }

    /// The layout of another table of the same columns.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] if it does not have them.
    pub fn like(&self, path: &Path) -> Result<Self> {
        let delimiter = delimiter(path)?;
        let names = header(path, delimiter)?;
        let Chosen { title, content, labels } = &self.columns;
        let wanted = [Some(title), content.as_ref(), Some(labels)];
        match wanted.into_iter().flatten().find(|column| !names.contains(column)) {
            None => Ok(Self { columns: self.columns.clone(), delimiter, names, separator: self.separator.clone() }),
            Some(missing) => {
                let expected = format!("a column `{missing}`, as the training file has it");
                Err(wrong(Place::line(path, 1), expected, listed(names.iter().map(String::as_str)), None))
            }
        }
    }

    /// For people: `columns text and labels, separated by ;`.
    pub fn words(&self) -> String {
        let Chosen { title, content, labels } = &self.columns;
        let content = content.as_ref().map_or(String::new(), |content| format!(", {content}"));
        let split = match self.separator.as_deref() {
            None => "one label a row".into(),
            Some(" ") => "split at spaces".into(),
            Some("\t") => "split at tabs".into(),
            Some(separator) => format!("split at `{separator}`"),
        };
        format!("text of {title}{content}, labels of {labels}, {split}")
    }

    fn place(&self, column: &str) -> usize {
        self.names.iter().position(|name| name == column).expect("columns are chosen among the names")
    }
}

/// Whether the first line of a table names columns for text and labels.
pub(super) fn has_header(path: &Path) -> bool {
    let names = delimiter(path).and_then(|delimiter| header(path, delimiter));
    names.is_ok_and(|names| Chosen::are_known(&names))
}

/// The rows of a table, in order. Reading goes on behind an error of one row.
///
/// # Errors
/// As [`Layout::of`].
pub(super) fn rows(
    path: &Path,
    layout: Layout,
    fields: TextFields,
    doing: &'static str,
    watch: &Watch,
) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let Chosen { title, content, labels } = layout.columns.clone();
    let [title_at, labels_at] = [&title, &labels].map(|column| layout.place(column));
    let content_at = content.as_ref().map(|content| layout.place(content));
    let path = path.to_owned();
    let records = records(&path, &layout, doing, watch)?;
    Ok(records.map(move |record| {
        let (line, record) = record?;
        let cell = |at: usize| {
            str::from_utf8(&record[at]).map_err(|error| {
                let found = format!("an invalid byte, the {}th of it", error.valid_up_to() + 1);
                let hint = "save the file as UTF-8, as `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` does";
                wrong(Place::line(&path, line).field(&layout.names[at]), "text in UTF-8", found, Some(hint))
            })
        };
        let mut text = cell(title_at)?.to_owned();
        let content = content_at.map(cell).transpose()?.unwrap_or_default();
        if content_at.is_some() && fields == TextFields::TitleAndContent {
            text.push(' ');
            text.push_str(content);
        }
        let labels = cell(labels_at)?;
        let labels = match (list(labels), layout.separator.as_deref()) {
            (Some(names), _) => names,
            (None, Some(separator)) => split_labels(labels, separator).map(str::to_owned).collect(),
            (None, None) => {
                Some(labels.trim()).filter(|label| !label.is_empty()).map(str::to_owned).into_iter().collect()
            }
        };
        let unread = fields == TextFields::Title && !content.trim().is_empty();
        Ok(Row { line, text, labels: Some(Labels::Names(labels)), unread })
    }))
}

/// The records behind the header, with the line on which they begin. Those of another length than the header are errors.
fn records(
    path: &Path,
    layout: &Layout,
    doing: &'static str,
    watch: &Watch,
) -> Result<impl Iterator<Item = Result<(usize, ByteRecord)>> + use<>> {
    let text = Text::open(path)?;
    let (read, size) = (text.read.clone(), text.size);
    let mut table = ReaderBuilder::new().delimiter(layout.delimiter).flexible(true).from_reader(text.line_feeds());
    let (path, names, watch): (PathBuf, _, _) = (path.to_owned(), layout.names.clone(), watch.clone());
    let (mut rows, mut ended) = (0, false);
    Ok(iter::from_fn(move || {
        if rows % 1024 == 0 {
            watch.tell(&Progress { doing, file: &path, done: read.load(Ordering::Relaxed), total: size, rows });
        }
        rows += 1;
        let mut record = ByteRecord::new();
        let line = |record: &ByteRecord| record.position().map_or(0, |position| position.line() as usize);
        match table.read_byte_record(&mut record) {
            _ if ended => None,
            Ok(false) => None,
            Ok(true) if record.len() == names.len() => Some(Ok((line(&record), record))),
            Ok(true) => {
                let place = Place::line(&path, line(&record));
                let expected = format!(
                    "{} columns, as the header has them ({})",
                    names.len(),
                    listed(names.iter().map(String::as_str))
                );
                let hint = match record.iter().any(|cell| cell.contains(&b'\n')) {
                    true => {
                        "a quote is opened here and closed on a later line: within a quoted cell, a quote is written twice"
                    }
                    false => "a cell with a delimiter or a line end in it is put into double quotes",
                };
                Some(Err(wrong(place, expected, record.len().to_string(), Some(hint))))
            }
            Err(error) => {
                ended = true;
                let line = table.position().line() as usize;
                Some(Err(table_error(&path, line, error)))
            }
        }
    }))
}

fn table_error(path: &Path, line: usize, error: csv::Error) -> Error {
    let words = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => unreadable(path, line, error),
        _ => wrong(Place::line(path, line), "a row of a table", words, None),
    }
}

/// The names of the columns.
fn header(path: &Path, delimiter: u8) -> Result<Vec<String>> {
    let mut table =
        ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(Text::open(path)?.line_feeds());
    let header = table.byte_headers().map_err(|error| table_error(path, 1, error))?;
    Ok(header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// What separates the cells of a table: the tab in a `.tsv`, else what its first line has most of.
fn delimiter(path: &Path) -> Result<u8> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.trim_end_matches(".gz").ends_with(".tsv") {
        return Ok(b'\t');
    }
    let mut reader = Text::open(path)?.reader;
    let mut line = Vec::new();
    reader.by_ref().take(1 << 16).read_to_end(&mut line).map_err(|error| unreadable(path, 1, error))?;
    let line = line.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
    let count = |delimiter: u8| line.iter().filter(|byte| **byte == delimiter).count();
    Ok([b'\t', b'|', b';', b','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b','))
}

/// The texts of a list as Python or JSON writes it, such as `['a', "b"]`; `None` if it is none.
fn list(cell: &str) -> Option<Vec<String>> {
    let inside = cell.trim().strip_prefix('[')?.strip_suffix(']')?;
    let (mut texts, mut rest) = (Vec::new(), inside.trim());
    while !rest.is_empty() {
        let (text, left) = item(rest)?;
        texts.push(text);
        let left = left.trim_start();
        rest = match left.strip_prefix(',') {
            Some(left) => left.trim_start(),
            None if left.is_empty() => left,
            None => return None,
        };
    }
    Some(texts)
}

/// The first text of a list, or its first number, and what is behind it.
fn item(rest: &str) -> Option<(String, &str)> {
    let quote = rest.chars().next()?;
    if !matches!(quote, '\'' | '"') {
        let end = rest.find(',').unwrap_or(rest.len());
        let (number, left) = rest.split_at(end);
        return number.trim().parse::<i64>().ok().map(|number| (number.to_string(), left));
    }
    let (mut text, mut escaped) = (String::new(), false);
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => {
                text.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            c if c == quote => return Some((text, &rest[at + c.len_utf8()..])),
            c => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::data::{testing::folder, text::tests::gzip};

    type Read = (Vec<(usize, String, Vec<String>)>, Vec<String>);

    /// The rows of a table, and its faults.
    fn read(name: &str, content: &[u8], wanted: Columns) -> Read {
        let dir = folder(&[]);
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        let rows = Layout::of(&path, wanted)
            .and_then(|layout| super::rows(&path, layout, TextFields::TitleAndContent, "reading", &Watch::default()));
        match rows {
            Err(error) => bad.push(error.to_string()),
            Ok(rows) => rows.for_each(|row| match row {
                Ok(Row { line, text, labels: Some(Labels::Names(names)), .. }) => good.push((line, text, names)),
                Ok(row) => panic!("{row:?}"),
                Err(error) => bad.push(error.to_string()),
            }),
        }
        (good, bad)
    }

    fn rows(name: &str, content: &str) -> Vec<(usize, String, Vec<String>)> {
        let (rows, faults) = read(name, content.as_bytes(), Columns::default());
        assert!(faults.is_empty(), "{faults:?}");
        rows
    }

    fn row(line: usize, text: &str, labels: &[&str]) -> (usize, String, Vec<String>) {
        (line, text.into(), labels.iter().map(|label| (*label).to_owned()).collect())
    }

    #[test]
    fn tables_are_read_as_common_programs_write_them() {
        let expected = [row(2, "a, b", &["x y", "z"]), row(3, "say \"c\"", &[]), row(4, "d\nd", &["w"])];
        let csv = "id,text,labels\n1,\"a, b\",x y;z\n2,\"say \"\"c\"\"\",\n3,\"d\nd\",w\n";
        assert_eq!(rows("train.csv", csv), expected);
        let semicolons = "id;text;labels\n1;a, b;x y|z\n2;\"say \"\"c\"\"\";\n3;\"d\nd\";w";
        assert_eq!(rows("train.csv", semicolons), expected);
        let tabs = "id\ttext\tlabels\r\n1\ta, b\tx y;z\r\n2\t\"say \"\"c\"\"\"\t\r\n3\t\"d\nd\"\tw\r\n";
        assert_eq!(rows("train.tsv", tabs), expected);
        for bytes in [gzip(csv.as_bytes()), [b"\xef\xbb\xbf", csv.as_bytes()].concat()] {
            assert_eq!(read("train.csv", &bytes, Columns::default()), (expected.to_vec(), vec![]));
        }
        let old = "text,labels\ra,x\rb,y\r";
        let texts: Vec<_> = rows("train.csv", old).into_iter().map(|row| row.1).collect();
        assert_eq!(texts, ["a", "b"]);
    }

    #[test]
    fn lists_of_python_are_read_as_lists() {
        let csv = "title,content,labels\na,b,\"['food, nutrient', \"\"chef's\"\", 7]\"\n";
        assert_eq!(rows("train.csv", csv), [row(2, "a b", &["food, nutrient", "chef's", "7"])]);
        for (cell, expected) in [
            ("[]", Some(vec![])),
            (r#"["a\"b", 'c\'d']"#, Some(vec!["a\"b", "c'd"])),
            ("[a]", None),
            ("['a' 'b']", None),
            ("['a", None),
            ("a", None),
        ] {
            let expected = expected.map(|texts| texts.into_iter().map(str::to_owned).collect());
            assert_eq!(list(cell), expected, "{cell}");
        }
    }

    #[test]
    fn the_separator_is_that_of_the_key_or_one_that_names_do_not_have() {
        let csv = "text,labels\na,\"b, c\"\n";
        assert_eq!(rows("train.csv", csv), [row(2, "a", &["b, c"])]);
        let wanted = Columns { separator: Some(","), ..Columns::default() };
        assert_eq!(read("train.csv", csv.as_bytes(), wanted).0, [row(2, "a", &["b", "c"])]);
        let wanted = Columns { separator: Some("space"), ..Columns::default() };
        assert_eq!(read("train.csv", b"text,labels\na,b c\n", wanted).0, [row(2, "a", &["b", "c"])]);
        assert_eq!(rows("train.csv", "text,subject_uris\na,u:1 u:2\n"), [row(2, "a", &["u:1", "u:2"])]);
    }

    #[test]
    fn faults_have_their_lines_and_reading_goes_on() {
        let csv = b"text,labels\na,x\nb\nc\xff,y\nd,z,1\ne,w\n";
        let (rows, faults) = read("train.csv", csv, Columns::default());
        assert_eq!(rows, [row(2, "a", &["x"]), row(6, "e", &["w"])]);
        for (fault, expected) in faults.iter().zip([
            "train.csv:3: expected 2 columns, as the header has them (`text`, `labels`), found 1",
            "train.csv:4: `text`: expected text in UTF-8, found an invalid byte, the 2th of it",
            "train.csv:5: expected 2 columns, as the header has them (`text`, `labels`), found 3",
        ]) {
            assert!(fault.contains(expected), "{fault}");
        }
        assert_eq!(faults.len(), 3);
        let (_, faults) = read("train.csv", b"text,labels\na,x\n\"b,y\nc,z\n", Columns::default());
        assert!(faults[0].contains("train.csv:3: ") && faults[0].contains("a quote is opened here"), "{faults:?}");
        let (_, faults) = read("train.csv", b"a,b\nc,d\n", Columns::default());
        assert!(faults[0].contains("train.csv:1: expected a column with the labels"), "{faults:?}");
        let utf_16: Vec<u8> = "text,labels\na,x\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (_, faults) = read("train.csv", &utf_16, Columns::default());
        assert!(faults[0].contains("expected text in UTF-8, found UTF-16LE"), "{faults:?}");
        let packed = gzip(&b"text,labels\na,x\n".repeat(5000));
        let (_, faults) = read("train.csv", &packed[..packed.len() - 9], Columns::default());
        assert!(faults.iter().any(|fault| fault.contains("expected a complete gzip archive")), "{faults:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cells in "[a\",;\\[\\]'\r\n\t]{0,60}") {
            let _ = read("train.csv", &bytes, Columns::default());
            let _ = read("train.csv", format!("text,labels\n{cells}").as_bytes(), Columns::default());
        }
    }
}
