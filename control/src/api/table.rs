//! Columns for people: as wide as their widest cell, numbers to the right, two spaces between.

/// No cell is empty, so that columns can be cut by white space.
pub(super) fn filled(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

/// Where a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

use Align::{Left, Right};

/// A heading and rows below it.
pub(super) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings. One that begins with `>` stands above numbers.
    pub fn new(headings: &[&str]) -> Table {
        let align = |heading: &&str| {
            if heading.starts_with('>') {
                Right
            } else {
                Left
            }
        };
        Table {
            aligns: headings.iter().map(align).collect(),
            rows: vec![
                headings
                    .iter()
                    .map(|heading| heading.trim_start_matches('>').to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let cells = cells.map(|cell| filled(&cell).to_owned());
        self.rows.push(cells.collect());
    }

    /// The text, with `indent` spaces in front of each line.
    pub fn render(&self, indent: usize) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                match align {
                    Left => line.push_str(&format!("{cell:<width$}  ")),
                    Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_cell_is_empty() {
        let mut table = Table::new(&["name", ">packets", "note"]);
        table.row(["a".into(), "1000000".into(), String::new()]);
        table.row(["longer".into(), "7".into(), "x".into()]);
        let wanted = "  name    packets  note\n  a       1000000  -\n  longer        7  x\n";
        assert_eq!(table.render(2), wanted);
    }
}
