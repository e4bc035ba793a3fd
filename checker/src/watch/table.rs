//! The table on the screen: rows in, a frame out. Knows no source, reads no clock and no key.

use std::ffi::OsString;
use std::{iter, mem};

use heartbeat::verdict::Verdict;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, Wrap};

use super::row::{HEADINGS, Row, Tone};

/// Which columns there is room for, by the least width that they need.
const ROOM: [(u16, &[usize]); 3] = [(72, &[0, 1, 2, 3, 4, 5, 6, 7]), (48, &[0, 1, 2, 7]), (0, &[0, 1, 2])];

/// Where there are fewer lines than this, nothing stands below the table.
const LOW: u16 = 12;

/// What is to be shown.
#[derive(Debug)]
pub struct Board<'r> {
    /// Where the rows come from.
    pub title: String,
    /// What is wrong with that place.
    pub notice: Option<&'r str>,
    /// What is said where there are no rows.
    pub emptiness: &'static str,
    /// In the order in which they are shown.
    pub rows: Vec<&'r Row>,
}

/// Which part of the table is in sight, and which row is looked at more closely.
#[derive(Debug, Default)]
pub struct View {
    /// The row that was chosen, wherever it moves; `None`: whichever is the first.
    chosen: Option<OsString>,
    index: usize,
    offset: usize,
    page: usize,
}

/// A way to another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

impl View {
    /// Chooses another row.
    pub fn turn(&mut self, way: Move, rows: &[&Row]) {
        self.find(rows);
        let last = rows.len().saturating_sub(1);
        let page = self.page.max(1);
        self.index = match way {
            Move::Up => self.index.saturating_sub(1),
            Move::Down => (self.index + 1).min(last),
            Move::PageUp => self.index.saturating_sub(page),
            Move::PageDown => (self.index + page).min(last),
            Move::First => 0,
            Move::Last => last,
        };
        // At the top one stays at the top, whoever gets there.
        self.chosen = if self.index == 0 { None } else { rows.get(self.index).map(|row| row.key.clone()) };
    }

    /// Finds the chosen row again after the rows have changed.
    fn find(&mut self, rows: &[&Row]) {
        let Some(chosen) = &self.chosen else {
            self.index = 0;
            return;
        };
        if let Some(index) = rows.iter().position(|row| row.key == *chosen) {
            self.index = index;
        } else {
            self.index = self.index.min(rows.len().saturating_sub(1));
            self.chosen = rows.get(self.index).map(|row| row.key.clone());
        }
    }

    /// Brings the chosen row into sight, where `height` rows are.
    fn scroll(&mut self, rows: &[&Row], height: usize) {
        self.find(rows);
        self.page = height;
        let lowest = (self.index + 1).saturating_sub(height);
        self.offset =
            self.offset.clamp(lowest, self.index.max(lowest)).min(rows.len().saturating_sub(height));
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame, board: &Board<'_>, view: &mut View) {
    let low = frame.area().height < LOW;
    let [top, counts, table, detail, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        // A blank line, a sentence of up to two, and the whereabouts.
        Constraint::Length(if low { 0 } else { 4 }),
        Constraint::Length(u16::from(!low)),
    ])
    .areas(frame.area());
    frame.render_widget(heading(board), top);
    frame.render_widget(tally_line(&board.rows), counts);
    if board.rows.is_empty() {
        frame.render_widget(Line::from(board.emptiness).dim(), table);
    } else {
        // One line is the headings'.
        view.scroll(&board.rows, usize::from(table.height.saturating_sub(1)));
        draw_rows(frame, table, board, view);
    }
    frame.render_widget(closer_look(board, view), detail);
    frame.render_widget(Line::from("q leave   ↑ ↓ PgUp PgDn Home End choose").dim(), bottom);
    frame.render_widget(position(board, view).dim().right_aligned(), bottom);
}

fn draw_rows(frame: &mut Frame, area: Rect, board: &Board<'_>, view: &View) {
    let columns = columns(area.width);
    let in_sight = board.rows.iter().enumerate().skip(view.offset).take(view.page);
    let rows = in_sight.map(|(index, row)| table_row(row, index == view.index, columns));
    let headings = columns.iter().map(|column| cell(*column, HEADINGS[*column].to_owned()));
    let headings = TableRow::new(iter::once(Cell::from(" ")).chain(headings)).dim();
    let widths = iter::once(Constraint::Length(1)).chain(columns.iter().map(|column| WIDTHS[*column]));
    frame.render_widget(Table::new(rows, widths).header(headings).column_spacing(1), area);
}

fn columns(width: u16) -> &'static [usize] {
    ROOM.iter().find(|(least, _)| width >= *least).map_or(&[], |(_, columns)| columns)
}

/// As in [`HEADINGS`].
const WIDTHS: [Constraint; 8] = [
    Constraint::Fill(1),
    Constraint::Length(13),
    Constraint::Length(5),
    Constraint::Length(8),
    Constraint::Length(4),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Fill(1),
];

fn table_row<'r>(row: &Row, chosen: bool, columns: &[usize]) -> TableRow<'r> {
    let mark = Cell::from(if chosen { "›" } else { " " });
    let mut texts = row.cells();
    let cells = columns.iter().map(|column| {
        let cell = cell(*column, mem::take(&mut texts[*column]));
        if HEADINGS[*column] == "verdict" { cell.style(style(Tone::of(row.verdict))) } else { cell }
    });
    let line = TableRow::new(iter::once(mark).chain(cells));
    if chosen { line.bold() } else { line }
}

/// Numbers stand to the right.
fn cell<'r>(column: usize, text: String) -> Cell<'r> {
    let line = Line::from(text);
    Cell::from(if matches!(column, 2 | 4..=6) { line.right_aligned() } else { line })
}

fn style(tone: Tone) -> Style {
    Style::new().fg(match tone {
        Tone::Bad => Color::Red,
        Tone::Unsure => Color::Magenta,
        Tone::Between => Color::Yellow,
        Tone::Good => Color::Green,
    })
}

/// Where the rows come from, and what is wrong there.
fn heading<'r>(board: &Board<'r>) -> Line<'r> {
    let notice = board.notice.map(|notice| format!("  {notice}")).unwrap_or_default();
    Line::from(vec![Span::from(board.title.clone()).bold(), Span::from(notice).yellow()])
}

/// How many workers there are, and how many of each verdict.
fn tally_line<'r>(rows: &[&Row]) -> Line<'r> {
    let workers = if rows.len() == 1 { "worker" } else { "workers" };
    let mut spans = vec![Span::from(format!("{} {workers}", rows.len()))];
    for (verdict, count) in tally(rows) {
        spans.push(Span::styled(format!("   {count} {verdict}"), style(Tone::of(verdict))));
    }
    Line::from(spans)
}

/// How often each verdict was given, the worst first.
fn tally(rows: &[&Row]) -> Vec<(Verdict, usize)> {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let mut tally: Vec<_> = Verdict::ALL.map(|verdict| (verdict, count(verdict))).into();
    tally.retain(|(_, count)| *count > 0);
    tally.sort_by_key(|(verdict, _)| Tone::of(*verdict));
    tally
}

fn closer_look<'r>(board: &Board<'_>, view: &View) -> Paragraph<'r> {
    let Some(row) = board.rows.get(view.index) else { return Paragraph::default() };
    Paragraph::new(vec![
        Line::default(),
        Line::styled(row.sentence(), style(Tone::of(row.verdict))),
        Line::from(row.whereabouts()).dim(),
    ])
    .wrap(Wrap { trim: true })
}

/// Which rows are in sight, where not all are.
fn position<'r>(board: &Board<'_>, view: &View) -> Line<'r> {
    let (all, last) = (board.rows.len(), view.offset + view.page);
    if all <= view.page {
        return Line::default();
    }
    Line::from(format!("{}-{} of {all}", view.offset + 1, last.min(all)))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::row::tests::row;
    use super::*;

    fn board(rows: &[Row]) -> Board<'_> {
        Board {
            title: "/run/beats".to_owned(),
            notice: None,
            emptiness: "no workers yet",
            rows: rows.iter().collect(),
        }
    }

    fn screen(width: u16, height: u16, board: &Board<'_>, view: &mut View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
        terminal.draw(|frame| draw(frame, board, view)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let symbol = |x, y| buffer.cell((x, y)).map_or("", |cell| cell.symbol());
        let line = |y| (0..width).map(|x| symbol(x, y)).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    fn many() -> Vec<Row> {
        (0..100).map(|number| row(&format!("w{number:02}"), Verdict::Alive)).collect()
    }

    #[test]
    fn every_verdict_is_legible_in_80_columns() {
        for verdict in Verdict::ALL {
            let rows = [row("orders-worker-16", verdict)];
            let screen = screen(80, 24, &board(&rows), &mut View::default());
            assert_eq!(
                screen[3],
                format!(
                    "› orders-worker-16 {:<13}  0.8s busy        2    1M     3 in 29s encode",
                    verdict.as_str()
                )
            );
            assert_eq!(screen[0], "/run/beats");
            assert_eq!(screen[1], format!("1 worker   1 {verdict}"));
            assert!(screen.contains(&format!("orders-worker-16 is {verdict}: for a reason")));
        }
    }

    #[test]
    fn no_size_is_too_small_and_wide_characters_stay_in_their_cells() {
        let rows = [row("工作者工作者工作者工作者工作者", Verdict::Alive), row("é\u{301}🦀", Verdict::Gone)];
        for (width, height) in [(1, 1), (10, 3), (40, 10), (79, 11), (200, 60)] {
            screen(width, height, &board(&rows), &mut View::default());
        }
        let screen = screen(40, 12, &board(&rows), &mut View::default());
        assert!(screen[3].contains("alive"), "{screen:#?}");
    }

    #[test]
    fn an_empty_folder_and_a_lost_one_say_so() {
        let mut board = board(&[]);
        board.notice = Some("the folder is gone");
        let screen = screen(80, 24, &board, &mut View::default());
        assert_eq!(screen[0], "/run/beats  the folder is gone");
        assert!(screen[2].starts_with("no workers yet"));
    }

    #[test]
    fn more_rows_than_lines_can_all_be_reached() {
        let rows = many();
        let board = board(&rows);
        let mut view = View::default();
        let first = screen(80, 20, &board, &mut view);
        assert!(first[3].contains("w00") && first[19].ends_with("1-12 of 100"), "{first:#?}");
        let shown = |view: &mut View, way| {
            view.turn(way, &board.rows);
            let screen = screen(80, 20, &board, view);
            screen.into_iter().find(|line| line.starts_with('›')).expect("a chosen row")[4..7].to_owned()
        };
        for (way, chosen) in [
            (Move::Up, "w00"),
            (Move::Down, "w01"),
            (Move::PageDown, "w13"),
            (Move::Last, "w99"),
            (Move::Down, "w99"),
            (Move::PageUp, "w87"),
            (Move::First, "w00"),
        ] {
            assert_eq!(shown(&mut view, way), chosen, "{way:?}");
        }
    }

    #[test]
    fn a_chosen_row_stays_chosen_where_others_come_and_go() {
        let rows = many();
        let mut view = View::default();
        let all = board(&rows);
        view.turn(Move::Last, &all.rows);
        let fewer = board(&rows[50..]);
        assert!(screen(80, 20, &fewer, &mut view).iter().any(|line| line.starts_with("› w99")));
        let without = board(&rows[..10]);
        assert!(screen(80, 20, &without, &mut view).iter().any(|line| line.starts_with("› w09")));
    }
}
