//! Rows of different lengths in two flat arrays (compressed sparse rows).

/// Rows of numbers: labels of points, filters of points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ragged {
    /// Row `i` is `values[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<usize>,
    values: Vec<u32>,
}

impl Ragged {
    pub fn new() -> Self {
        Self { offsets: vec![0], values: Vec::new() }
    }

    /// Rows `0..rows` from `(row, value)` pairs that are sorted by row.
    pub fn from_sorted_pairs(rows: usize, pairs: &[(u32, u32)]) -> Self {
        let offsets = (0..=rows).map(|row| pairs.partition_point(|pair| (pair.0 as usize) < row)).collect();
        Self { offsets, values: pairs.iter().map(|pair| pair.1).collect() }
    }

    pub fn push(&mut self, row: impl IntoIterator<Item = u32>) {
        self.values.extend(row);
        self.offsets.push(self.values.len());
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn row(&self, row: usize) -> &[u32] {
        &self.values[self.offsets[row]..self.offsets[row + 1]]
    }

    pub fn rows(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// All values, row after row.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// These rows, in this order.
    pub fn select(&self, rows: &[u32]) -> Self {
        let mut selected = Self::new();
        for &row in rows {
            selected.push(self.row(row as usize).iter().copied());
        }
        selected
    }

    /// Replaces every value by `of(value)`.
    pub fn map(&mut self, of: impl Fn(u32) -> u32) {
        for value in &mut self.values {
            *value = of(*value);
        }
    }

    /// Replaces every value by `of(value)` and sorts the rows.
    pub fn map_and_sort(mut self, of: impl Fn(u32) -> u32) -> Self {
        self.map(of);
        for row in 0..self.len() {
            self.values[self.offsets[row]..self.offsets[row + 1]].sort_unstable();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_rows_with_empty_ones_in_between() {
        let ragged = Ragged::from_sorted_pairs(4, &[(1, 7), (1, 9), (3, 2)]);
        let rows: Vec<_> = ragged.rows().collect();
        assert_eq!(rows, [&[][..], &[7, 9], &[], &[2]]);
        assert_eq!(ragged.select(&[3, 1]).values(), [2, 7, 9]);
    }
}
