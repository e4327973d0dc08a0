//! A picture in characters: how often labels occur, from the most frequent one on, both on logarithmic scales.

const WIDTH: usize = 64;
const HEIGHT: usize = 10;
/// A column filled to eighths.
const BLOCKS: [char; 9] =
    [' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];

/// Draws counts that fall from the first to the last, of which none is 0; nothing if there are none.
pub(super) fn draw(counts: &[u32]) -> String {
    let Some(&most) = counts.first() else {
        return String::new();
    };
    let height_of = |count: f64| match most {
        1 => 8 * HEIGHT,
        // A count of one is still seen.
        _ => (1.0 + (8.0 * HEIGHT as f64 - 1.0) * count.ln() / f64::from(most).ln()).round() as usize,
    };
    let rank = |column: f64| (counts.len() as f64).powf(column / WIDTH as f64);
    let heights: Vec<usize> = (0..WIDTH)
        .map(|column| {
            // The middle of the ranks of a column, of which the first ones share a rank.
            let middle = (rank(column as f64) * rank(column as f64 + 1.0)).sqrt();
            height_of(counts[(middle.round() as usize).clamp(1, counts.len()) - 1].into())
        })
        .collect();
    let margin = most.to_string().len();
    let mut picture = String::new();
    for row in (0..HEIGHT).rev() {
        let name = match row {
            _ if row == HEIGHT - 1 => most.to_string(),
            0 if most > 1 => "1".into(),
            _ => String::new(),
        };
        let filled = heights.iter().map(|height| BLOCKS[height.saturating_sub(8 * row).min(8)]);
        let line: String = filled.collect();
        picture.push_str(&format!("{name:>margin$} \u{2502}{}\n", line.trim_end()));
    }
    let last = counts.len().to_string();
    picture.push_str(&format!("{:margin$} \u{2514}{}\n", "", "\u{2500}".repeat(WIDTH)));
    picture.push_str(&format!("{:margin$}  1{last:>rest$}", "", rest = WIDTH - 1));
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_law_falls_on_a_line() {
        let counts: Vec<u32> = (1..=1000).map(|rank| 1000 / rank).collect();
        let picture = draw(&counts);
        let lines: Vec<_> = picture.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 2);
        assert!(lines[0].starts_with("1000 │█") && lines[HEIGHT - 1].starts_with("   1 │"), "{picture}");
        let filled = |line: &str| line.chars().filter(|c| BLOCKS[1..].contains(c)).count();
        for (above, below) in lines.iter().zip(&lines[1..HEIGHT]) {
            let step = filled(below) - filled(above);
            assert!((4..=9).contains(&step), "every row is as much longer: {step}\n{picture}");
        }
        assert!(lines[HEIGHT + 1].ends_with("1000"), "{picture}");
    }

    #[test]
    fn any_counts_can_be_drawn() {
        assert_eq!(draw(&[]), "");
        for counts in [vec![1], vec![1; 500], vec![u32::MAX, 1], vec![5, 5]] {
            assert_eq!(draw(&counts).lines().count(), HEIGHT + 2);
        }
    }
}
