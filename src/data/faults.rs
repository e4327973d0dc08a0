//! What is done about a fault in a file: the first one ends a training, and an inspection goes on and lists them.

use crate::error::{Error, Result};

/// Faults, as they are found.
#[derive(Debug)]
pub(super) struct Faults {
    kept: Vec<Error>,
    count: usize,
    /// How many are kept; `None` where the first one ends it.
    limit: Option<usize>,
}

impl Faults {
    /// The first fault is an error.
    pub fn fatal() -> Self {
        Self { kept: Vec::new(), count: 0, limit: None }
    }

    /// All are counted, and the first `limit` are kept.
    pub fn listed(limit: usize) -> Self {
        Self { limit: Some(limit), ..Self::fatal() }
    }

    /// A fault was found.
    ///
    /// # Errors
    /// The fault, where it ends the work.
    pub fn found(&mut self, fault: Error) -> Result<()> {
        let Some(limit) = self.limit else {
            return Err(fault);
        };
        self.count += 1;
        if self.kept.len() < limit {
            self.kept.push(fault);
        }
        Ok(())
    }

    /// What is good; a fault otherwise.
    ///
    /// # Errors
    /// As [`Faults::found`].
    pub fn good<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(fault) => self.found(fault).map(|()| None),
        }
    }

    /// Those that were kept, and the number of all.
    pub fn finish(self) -> (Vec<Error>, usize) {
        (self.kept, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;

    #[test]
    fn the_first_is_an_error_or_all_are_counted() {
        let fault =
            |line| Error::Data { place: Place::line("f", line), expected: "a".into(), found: "b".into(), hint: None };
        assert!(Faults::fatal().found(fault(1)).is_err());
        let mut faults = Faults::listed(2);
        for line in 1..=5 {
            assert_eq!(faults.good::<()>(Err(fault(line))).unwrap(), None);
        }
        assert_eq!(faults.good(Ok(7)).unwrap(), Some(7));
        let (kept, count) = faults.finish();
        assert_eq!((kept.len(), count), (2, 5));
        assert!(kept[1].to_string().starts_with("f:2"));
    }
}
