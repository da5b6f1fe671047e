//! Draws tables: whole ones, and ones whose rows come one after the other.
//!
//! Width is the terminal's, or `None` where the output is no terminal; then nothing is wrapped. Control characters never
//! reach the terminal: data must not be able to move the cursor.

use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Row, Table, TableStyle, Width,
};

const STYLE: TableStyle = ASCII_FULL_CONDENSED.header_separator(LineStyle::new('+', '-', '+', '+'));

/// Narrowest column, without its padding.
const COLUMN_WIDTH_MIN: usize = 4;
/// What a wide column keeps when narrower ones take what they need.
const COLUMN_WIDTH_FAIR: usize = 16;
/// Characters of one cell; the form JSON gives all of them.
const CELL_CHARS_MAX: usize = 10_000;
/// Lines of one cell on a terminal; what is longer is cut.
const CELL_LINES_MAX: usize = 10;
/// A blank on each side and the line between two columns.
const COLUMN_EXTRA: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Numbers stand on the right.
    pub right: bool,
    /// What values of its type need, where more rows come than were seen; 0 where all are there.
    pub width_usual: usize,
}

impl Column {
    pub fn text(name: &str) -> Self {
        Self { name: name.to_string(), right: false, width_usual: 0 }
    }

    pub fn number(name: &str) -> Self {
        Self { name: name.to_string(), right: true, width_usual: 0 }
    }
}

/// A table whose rows are all there.
pub fn draw(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let widths = fit(columns, rows, width);
    let mut text = lines(columns, true, rows, &widths, width).join("\n");
    text.push('\n');
    text
}

/// A table that is drawn while its rows come. The widths of its columns are fixed by the first rows.
pub struct Growing {
    columns: Vec<Column>,
    width: Option<usize>,
    widths: Option<Vec<usize>>,
    is_empty: bool,
}

impl Growing {
    pub fn new(columns: Vec<Column>, width: Option<usize>) -> Self {
        Self { columns, width, widths: None, is_empty: true }
    }

    /// Whether the head was drawn.
    pub fn is_begun(&self) -> bool {
        self.widths.is_some()
    }

    /// The text of some more rows, with the head in front of the first ones. No rows: the head, if it was not drawn yet.
    pub fn rows(&mut self, rows: &[Vec<String>]) -> String {
        let begun = self.is_begun();
        let widths = match self.widths.take() {
            Some(widths) => widths,
            None => fit(&self.columns, rows, self.width),
        };
        let drawn = match (begun, rows) {
            (true, []) => Vec::new(),
            // The line above belongs to the head.
            (true, rows) => lines(&self.columns, false, rows, &widths, self.width).split_off(1),
            (false, rows) => lines(&self.columns, true, rows, &widths, self.width),
        };
        self.widths = Some(widths);
        self.is_empty &= rows.is_empty();
        // The line below comes with the end.
        let shown = drawn.len().saturating_sub(1);
        drawn.into_iter().take(shown).map(|line| line + "\n").collect()
    }

    /// The line under the last row, or the head if no row ever came.
    pub fn end(&mut self) -> String {
        let mut text = self.rows(&[]);
        if self.is_empty {
            return text;
        }
        let widths = self.widths.as_deref().unwrap_or_default();
        let empty = vec![vec![String::new(); self.columns.len()]];
        if let Some(line) = lines(&self.columns, false, &empty, widths, self.width).pop() {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn total(widths: &[usize]) -> usize {
    widths.iter().map(|w| w + COLUMN_EXTRA).sum::<usize>() + 1
}

/// The width of each column's text: what it needs or usually will, or, where that is too much for all, a fair share of the
/// terminal.
fn fit(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<usize> {
    let mut table = Table::new();
    table.force_no_tty();
    fill(&mut table, columns, true, rows, None);
    let needed = table.column_max_content_widths().into_iter().map(usize::from);
    let wanted: Vec<usize> = needed.zip(columns).map(|(needed, column)| needed.max(column.width_usual)).collect();
    let Some(width) = width.filter(|width| total(&wanted) > *width) else { return wanted };
    let mut room = width.saturating_sub(wanted.len() * COLUMN_EXTRA + 1);
    // From the narrowest on, which shall not be broken as long as the wider ones stay readable.
    let mut order: Vec<(usize, usize)> = wanted.into_iter().enumerate().collect();
    order.sort_by_key(|(_, wanted)| *wanted);
    for i in 0..order.len() {
        let behind = order.get(i + 1..).unwrap_or_default();
        let reserved: usize = behind.iter().map(|(_, wanted)| (*wanted).min(COLUMN_WIDTH_FAIR)).sum();
        let share = (room / (behind.len() + 1)).max(room.saturating_sub(reserved)).max(COLUMN_WIDTH_MIN);
        if let Some((_, wanted)) = order.get_mut(i) {
            *wanted = (*wanted).min(share);
            room = room.saturating_sub(*wanted);
        }
    }
    order.sort_unstable();
    order.into_iter().map(|(_, width)| width).collect()
}

fn lines(columns: &[Column], head: bool, rows: &[Vec<String>], widths: &[usize], width: Option<usize>) -> Vec<String> {
    let mut table = Table::new();
    table.force_no_tty().load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_truncation_indicator("...");
    fill(&mut table, columns, head, rows, width);
    table.set_constraints(widths.iter().map(|w| {
        let w = Width::Fixed(u16::try_from(w + COLUMN_EXTRA - 1).unwrap_or(u16::MAX));
        // Where nothing limits the line, a long value moves its own line instead of being broken.
        if width.is_some() { ColumnConstraint::Absolute(w) } else { ColumnConstraint::LowerBoundary(w) }
    }));
    table.lines().collect()
}

fn fill(table: &mut Table, columns: &[Column], head: bool, rows: &[Vec<String>], width: Option<usize>) {
    if head {
        table.set_header(columns.iter().map(|c| aligned(c, &c.name)));
    }
    for row in rows {
        let mut row = Row::from(row.iter().zip(columns).map(|(text, column)| aligned(column, text)));
        if width.is_some() {
            row.max_height(CELL_LINES_MAX);
        }
        table.add_row(row);
    }
}

fn aligned(column: &Column, text: &str) -> Cell {
    let cell = Cell::new_owned(match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "...",
        None => printable(text),
    });
    if column.right { cell.set_alignment(CellAlignment::Right) } else { cell }
}

/// The text with control characters spelt out.
pub fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_string();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect()
    }

    fn columns() -> Vec<Column> {
        vec![Column::text("NAME"), Column::number("N"), Column::text("NOTE")]
    }

    #[test]
    fn numbers_stand_on_the_right() {
        let rows = rows(&[&["a", "1", "null"], &["weiß", "1000", "tab\there \u{1b}[2J"]]);
        expect![[r#"
            +------+------+---------------------+
            | NAME |    N | NOTE                |
            +------+------+---------------------+
            | a    |    1 | null                |
            | weiß | 1000 | tab\there \u{1b}[2J |
            +------+------+---------------------+
        "#]]
        .assert_eq(&draw(&columns(), &rows, None));
    }

    #[test]
    fn a_narrow_terminal_wraps_the_wide_columns() {
        let rows = rows(&[&["alice", "12", "the quick brown fox jumps over the lazy dog, and over its kennel"]]);
        let text = draw(&columns(), &rows, Some(40));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        expect![[r#"
            +-------+----+-------------------------+
            | NAME  |  N | NOTE                    |
            +-------+----+-------------------------+
            | alice | 12 | the quick brown fox     |
            |       |    | jumps over the lazy     |
            |       |    | dog, and over its       |
            |       |    | kennel                  |
            +-------+----+-------------------------+
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_long_cell_is_cut() {
        let text = draw(&columns(), &rows(&[&["x", "1", &"word ".repeat(500)]]), Some(60));
        assert!(text.contains("..."), "{text}");
        assert!(text.lines().count() < 20, "{text}");
        // No terminal: one line, but not without end.
        let text = draw(&columns(), &rows(&[&["x", "1", &"y".repeat(200_000)]]), None);
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn a_growing_table_looks_like_a_whole_one() {
        let all = rows(&[&["a", "1", "x"], &["b", "22", "y"], &["c", "3", "z"]]);
        for width in [None, Some(80), Some(20)] {
            let mut growing = Growing::new(columns(), width);
            let mut text = growing.rows(&all[1..2]);
            for row in &all {
                text += &growing.rows(std::slice::from_ref(row));
            }
            text += &growing.end();
            let same = rows(&[&["b", "22", "y"], &["a", "1", "x"], &["b", "22", "y"], &["c", "3", "z"]]);
            assert_eq!(text, draw(&columns(), &same, width));
        }
    }

    #[test]
    fn a_table_without_rows_has_a_head() {
        let mut growing = Growing::new(vec![Column { width_usual: 8, ..Column::text("ID") }], Some(80));
        expect![[r#"
            +----------+
            | ID       |
            +----------+
        "#]]
        .assert_eq(&growing.end());
    }
}
