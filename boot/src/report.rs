//! Tables for people: columns as wide as their widest cell, numbers right-aligned.

use std::fmt;

/// A table with a head.
#[derive(Clone, Debug)]
pub struct TextTable {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Makes an empty table with these columns.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the head's columns are dropped.
    pub fn row(&mut self, cells: &[String]) {
        self.rows.push(cells.iter().take(self.head.len()).cloned().collect());
    }

    /// Returns the table as text, each line indented by two columns.
    pub fn indented(&self) -> String {
        self.to_string().lines().map(|line| format!("  {line}\n")).collect()
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).chain(self.head.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// Returns whether a column holds only numbers; such a column is right-aligned.
    fn is_number(&self, column: usize) -> bool {
        let number = |cell: &String| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit());
        !self.rows.is_empty() && self.rows.iter().filter_map(|row| row.get(column)).all(number)
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, cells: &[String]) -> fmt::Result {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = self.width(column);
            let cell = if self.is_number(column) {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            };
            line.push_str(&cell);
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line(f, &self.head)?;
        self.rows.iter().try_for_each(|row| self.line(f, row))
    }
}

/// Names and values, one pair a line, with the values aligned.
#[derive(Clone, Debug, Default)]
pub struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a fact.
    pub fn add(&mut self, name: &str, value: impl fmt::Display) {
        self.0.push((name.to_owned(), value.to_string()));
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "  {name:<width$}  {value}"))
    }
}

/// Formats nanoseconds in a unit that is easy to read.
pub fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} us", ns / 1000),
        10_000_000..10_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut table = TextTable::new(&["id", "ticks"]);
        table.row(&["E1".into(), "150".into()]);
        table.row(&["long name".into(), "-".into()]);
        assert_eq!(table.to_string(), "id         ticks\nE1           150\nlong name      -\n");
    }

    #[test]
    fn times_have_the_unit_that_people_read() {
        assert_eq!(
            [9_999, 10_000, 81_000_000, 12_340_000_000].map(time),
            ["9999 ns", "10 us", "81 ms", "12.3 s"]
        );
    }
}
