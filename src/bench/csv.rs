//! Measurements as rows of a CSV file that grows: one row a task, and one a kernel below it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{Bench, Measurement, Spread, Work};
use crate::error::{Error, Place, Result};

const HEADER: &str = "version,device,hardware,driver,shape,labels,dim,batch,positives,precision,operands,chunk,loss,\
                      task,kernel,clock,samples,launches,median_ms,p10_ms,p90_ms,free_running_ms,tflops,gbytes_per_s,\
                      floor_ms,weights_mib,peak_mib";

/// A file of measurements.
#[derive(Clone, Debug)]
pub struct CsvFile(PathBuf);

/// The columns of whole training steps.
const STEP_HEADER: &str = "version,device,hardware,driver,shape,labels,batch,layers,dim,float,precision,operands,kernels,lengths,\
     activations,tokens,part,launches,median_ms,p10_ms,p90_ms,host_ms,own_ms,first_s,pool_mib,card_mib";

impl CsvFile {
    /// Makes the file with its header, or checks that it has this one.
    ///
    /// # Errors
    /// [`Error::Data`] if it has another header, [`Error::Io`]. Such a file is left as it is.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with_header(path, HEADER)
    }

    /// The same for measurements of whole training steps, which have columns of their own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for_steps(path: &Path) -> Result<Self> {
        Self::with_header(path, STEP_HEADER)
    }

    fn with_header(path: &Path, header: &str) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let file = Self(path.to_owned());
        match text.lines().next() {
            None => file.append(&format!("{header}\n"))?,
            Some(first) if first == header && text.ends_with('\n') => {}
            // The last row was cut off, or written by hand.
            Some(first) if first == header => file.append("\n")?,
            Some(other) => {
                return Err(Error::Data {
                    place: Place::line(path, 1),
                    expected: format!("the header `{header}`"),
                    found: format!("`{}`", other.chars().take(80).collect::<String>()),
                    hint: Some("name another file, or move this one away".into()),
                });
            }
        }
        Ok(file)
    }

    /// Appends the rows of one task.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn add(&self, bench: &Bench, measured: &Measurement) -> Result<()> {
        self.append(&rows(bench, measured))
    }

    /// In one write, so that rows of two programs do not mix.
    pub(super) fn append(&self, text: &str) -> Result<()> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(Error::io("write", &self.0))
    }
}

fn rows(bench: &Bench, measured: &Measurement) -> String {
    let (shape, options) = (&bench.shape, &bench.options);
    let start = [
        env!("CARGO_PKG_VERSION").to_owned(),
        bench.compute.name.clone(),
        quoted(&bench.hardware.name),
        quoted(bench.hardware.driver.as_deref().unwrap_or_default()),
        quoted(&shape.name),
        shape.labels.to_string(),
        shape.dim.to_string(),
        shape.batch.to_string(),
        shape.positives.to_string(),
        options.precision.to_string(),
        options.operands.to_string(),
        bench.chunk(measured.task).to_string(),
        options.loss.to_string(),
        measured.task.name(options),
    ]
    .join(",");
    let mib = |bytes: u64| format!("{:.2}", bytes as f64 / (1 << 20) as f64);
    let row = |kernel: &str, launches: String, time: Spread, work: Work, end: [String; 4]| {
        let [free_running, floor, weights, peak] = end;
        let ms = |seconds: f64| format!("{:.4}", 1e3 * seconds);
        let rate = |rate: Option<f64>| rate.map_or(String::new(), |rate| format!("{rate:.4}"));
        let fields = [
            measured.clock.name().into(),
            options.steps.to_string(),
            launches,
            ms(time.median),
            ms(time.p10),
            ms(time.p90),
            free_running,
            rate(work.tflops(time.median)),
            rate(work.gbytes_per_s(time.median)),
            floor,
            weights,
            peak,
        ];
        format!("{start},{kernel},{}\n", fields.join(","))
    };
    let whole = [
        format!("{:.4}", 1e3 * measured.free_running),
        (bench.floor(measured.task)).map_or(String::new(), |floor| format!("{:.4}", 1e3 * floor)),
        mib(bench.weight_bytes()),
        measured.reserved.map_or(String::new(), mib),
    ];
    let mut rows = row("all", String::new(), measured.time, measured.work, whole);
    for kernel in &measured.kernels {
        let launches = kernel.launches.to_string();
        let end = [const { String::new() }; 4];
        rows += &row(kernel.name, launches, kernel.time, kernel.work, end);
    }
    rows
}

/// A field that may hold anything.
pub(super) fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_continued_on_a_new_line_and_foreign_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        let file = CsvFile::open(&path).unwrap();
        file.append("cut off").unwrap();
        CsvFile::open(&path).unwrap().append("whole\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}\ncut off\nwhole\n"));

        fs::write(&path, "a,b\n1,2\n").unwrap();
        let error = CsvFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("rows.csv:1") && error.contains("`a,b`"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a,b\n1,2\n");
    }

    #[test]
    fn fields_with_commas_are_quoted() {
        assert_eq!(quoted("a CPU"), "a CPU");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
