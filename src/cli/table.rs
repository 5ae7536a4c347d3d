//! Tables for people: aligned, with a bold head, and plain where no terminal reads them
//! (print them by `anstream`).

use std::fmt;

use clap::builder::styling::{AnsiColor, Style};
use serde_json::Value;

/// Names of columns, and whether they are flushed right.
pub struct Table {
    head: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

/// Longer cells are cut.
const WIDEST: usize = 60;

pub const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const FAINT: Style = Style::new().dimmed();

impl Table {
    pub fn new(head: impl IntoIterator<Item = (&'static str, bool)>) -> Table {
        Table {
            head: head.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        self.rows.push(row.into_iter().collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Comma-separated, as RFC 4180 has it.
    pub fn csv(&self) -> String {
        let head = self.head.iter().map(|(name, _)| *name);
        let mut text = csv_line(head);
        for row in &self.rows {
            text += &csv_line(row.iter().map(|cell| cell.text.as_str()));
        }
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| cell.width());
            cells.fold(self.head[column].0.chars().count(), usize::max)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let head = self
            .head
            .iter()
            .map(|(name, _)| Cell::from(*name).in_style(BOLD));
        let head: Vec<Cell> = head.collect();
        for row in [&head].into_iter().chain(&self.rows) {
            let last = row.len() - 1;
            for (column, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[column].saturating_sub(cell.width()));
                let gap = if column == 0 { "" } else { "  " };
                match self.head[column].1 {
                    true => write!(f, "{gap}{space}{cell}")?,
                    false if column == last && cell.text.is_empty() => {}
                    false if column == last => write!(f, "{gap}{cell}")?,
                    false => write!(f, "{gap}{cell}{space}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Cell {
    pub fn in_style(self, style: Style) -> Cell {
        Cell { style, ..self }
    }

    /// A status in its colour.
    pub fn status(text: &str) -> Cell {
        let style = match text {
            "succeeded" | "delivered" => GOOD,
            "failed" | "dead" | "lost" => BAD,
            "cancelled" | "cancelling" | "resting" | "off" => WARNING,
            _ => Style::new(),
        };
        Cell::from(text).in_style(style)
    }

    pub fn good(text: impl Into<String>) -> Cell {
        Cell::from(text.into()).in_style(GOOD)
    }

    pub fn warning(text: impl Into<String>) -> Cell {
        Cell::from(text.into()).in_style(WARNING)
    }

    /// Text as it is, numbers and the like as JSON, a dash for what is not known.
    pub fn value(value: &Value) -> Cell {
        match value {
            Value::Null => Cell::from("-").in_style(FAINT),
            Value::String(text) => Cell::from(text.as_str()),
            other => Cell::from(other.to_string()),
        }
    }

    /// An RFC 3339 instant to the second, in UTC as the server tells it.
    pub fn instant(value: &Value) -> Cell {
        match value.as_str().and_then(|text| text.split_once('.')) {
            Some((seconds, _)) => Cell::from(format!("{}Z", seconds.replace('T', " "))),
            None => Cell::value(value),
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count().min(WIDEST)
    }
}

impl From<&str> for Cell {
    /// Names are the callers': none of them steers the terminal.
    fn from(text: &str) -> Cell {
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        Cell {
            text: text.collect(),
            style: Style::new(),
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::from(text.as_str())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = self.style;
        match self.text.char_indices().nth(WIDEST) {
            None => write!(f, "{style}{}{style:#}", self.text),
            Some(_) => {
                let kept: String = self.text.chars().take(WIDEST - 1).collect();
                write!(f, "{style}{kept}…{style:#}")
            }
        }
    }
}

fn csv_line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let quoted = |cell: &str| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    };
    cells.map(quoted).collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([("name", false), ("count", true), ("why", false)]);
        table.push(["é, \"b\"", "7", ""].map(Cell::from));
        table.push([
            Cell::from("x".repeat(70)),
            Cell::from("1234567"),
            Cell::status("failed"),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let plain = anstream::adapter::strip_str(&table().to_string()).to_string();
        let x = "x".repeat(59);
        let pad = " ".repeat(54);
        let expected = format!(
            "name{}    count  why\né, \"b\"{pad}        7\n{x}…  1234567  failed\n",
            " ".repeat(56)
        );
        assert_eq!(plain, expected);
    }

    #[test]
    fn nothing_that_is_told_steers_the_terminal() {
        let cell = Cell::from("a\u{1b}[31mb\u{7}\u{9b}c").to_string();
        assert!(
            !anstream::adapter::strip_str(&cell)
                .to_string()
                .contains(char::is_control)
        );
        assert_eq!(cell.matches('\u{1b}').count(), 0, "{cell:?}");
    }

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let text = table().csv();
        assert!(
            text.starts_with("name,count,why\r\n\"é, \"\"b\"\"\",7,\r\n"),
            "{text}"
        );
    }
}
