//! What the dashboard shows, and what its keys mean.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    crossterm::event::{Event as TerminalEvent, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Stylize},
    symbols::Marker,
    text::Line,
    widgets::{Axis, Block, Chart, Clear, Dataset, Gauge, GraphType, Paragraph},
};

use crate::train::{Event, Rows};

/// Points of a curve; with more, neighbours are joined.
const MAX_POINTS: usize = 2000;
/// Lines of text that are kept.
const MAX_LINES: usize = 100;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, or nothing outside the dashboard.
    Nothing,
    /// Ctrl-C.
    Interrupt,
    /// To stop after the current step.
    AfterStep,
    /// To stop at once.
    AtOnce,
}

/// Measurements over a training. Where there are many, a point is the mean of several.
#[derive(Default)]
struct Curve {
    points: Vec<(f64, f64)>,
    /// Measurements a point; 0 stands for 1.
    each: usize,
    /// Those of the next point.
    waiting: Vec<(f64, f64)>,
}

impl Curve {
    fn push(&mut self, x: f64, y: f64) {
        self.waiting.push((x, y));
        if self.waiting.len() >= self.each {
            self.points.push(mean(&self.waiting));
            self.waiting.clear();
        }
        if self.points.len() > MAX_POINTS {
            self.points = self.points.chunks(2).map(mean).collect();
            self.each = 2 * self.each.max(1);
        }
    }
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (x / count, y / count)
}

/// See the module.
pub struct View {
    title: String,
    /// What goes on, and which share of it is done.
    doing: String,
    done: f64,
    /// Loss a row, over the steps that computed it.
    loss: Curve,
    /// P@1 on validation in percent, over the epochs.
    precision: Curve,
    lines: VecDeque<String>,
    menu: bool,
}

impl View {
    /// Nothing has happened yet.
    pub fn new(title: String) -> Self {
        Self {
            title,
            doing: "the first step".into(),
            done: 0.0,
            loss: Curve::default(),
            precision: Curve::default(),
            lines: VecDeque::new(),
            menu: false,
        }
    }

    /// Takes in what happened; `line` is what a run without a dashboard would print of it.
    pub fn tell(&mut self, event: &Event, line: Option<&str>) {
        match event {
            Event::Step(step) => {
                self.progress(&format!("epoch {}/{}", step.epoch, step.epochs), step.rows, step.total_rows);
                if let Some(loss) = step.step_loss {
                    self.loss.push(step.steps as f64, loss);
                }
            }
            Event::Ranked(ranked) => {
                let what = match ranked.of {
                    Rows::Validation => "validation",
                    Rows::Test => "test",
                    Rows::Training => "training rows",
                };
                self.progress(what, ranked.rows, ranked.total_rows);
            }
            Event::Epoch(epoch) => {
                if let Some(metrics) = &epoch.metrics {
                    self.precision.push(epoch.epoch as f64, 100.0 * metrics.precision_at(1));
                }
            }
            Event::Warning(_) => {}
        }
        if let Some(line) = line {
            self.lines.push_back(line.to_owned());
            if self.lines.len() > MAX_LINES {
                self.lines.pop_front();
            }
        }
    }

    fn progress(&mut self, what: &str, rows: usize, total: usize) {
        self.done = rows as f64 / total.max(1) as f64;
        self.doing = format!("{what}  {rows} of {total} rows");
    }

    /// What a key asks for. Ctrl-C comes as a key here: the terminal is told not to make a signal of it.
    pub fn on_event(&mut self, event: &TerminalEvent) -> Action {
        let TerminalEvent::Key(key) = event else {
            return Action::Nothing;
        };
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::Interrupt,
            KeyCode::Char('q') => {
                self.menu = true;
                Action::Nothing
            }
            KeyCode::Char(answer @ ('s' | 'k' | 'c')) if self.menu => {
                self.menu = false;
                match answer {
                    's' => Action::AfterStep,
                    'k' => Action::AtOnce,
                    _ => Action::Nothing,
                }
            }
            KeyCode::Esc => {
                self.menu = false;
                Action::Nothing
            }
            _ => Action::Nothing,
        }
    }

    /// Draws all of it. `is_stopping`: the training has been asked to stop.
    pub fn draw(&self, frame: &mut Frame, is_stopping: bool) {
        let rows = [
            Constraint::Length(1),
            Constraint::Fill(3),
            Constraint::Fill(2),
            Constraint::Length(3),
            Constraint::Length(1),
        ];
        let [title, charts, lines, progress, keys] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(Line::from(self.title.as_str()).bold(), title);

        let share = if self.precision.points.is_empty() { 0 } else { 1 };
        let columns = [Constraint::Fill(1), Constraint::Fill(share)];
        let [left, right] = Layout::horizontal(columns).areas(charts);
        draw_curve(frame, left, "loss a row, over the steps", &self.loss.points, Color::Yellow);
        if share > 0 {
            let title = "P@1 on validation in percent, over the epochs";
            draw_curve(frame, right, title, &self.precision.points, Color::Green);
        }

        let height = usize::from(lines.height).saturating_sub(2);
        let last = self.lines.iter().skip(self.lines.len().saturating_sub(height));
        let text: Vec<Line> = last.map(|line| Line::from(line.as_str())).collect();
        frame.render_widget(Paragraph::new(text).block(Block::bordered().title("epochs")), lines);

        let gauge = Gauge::default().block(Block::bordered()).gauge_style(Color::Cyan);
        frame.render_widget(gauge.ratio(self.done.clamp(0.0, 1.0)).label(self.doing.as_str()), progress);
        let text = match is_stopping {
            true => "stopping after this step (Ctrl-C again: at once)".yellow(),
            false => "q or Ctrl-C: stop".dim(),
        };
        frame.render_widget(text, keys);
        if self.menu {
            draw_menu(frame);
        }
    }
}

fn draw_menu(frame: &mut Frame) {
    let text = ["s  stop after this step", "k  stop at once", "c  go on", "", "Checkpoints of complete epochs stay."];
    let [area] = Layout::vertical([Constraint::Length(7)]).flex(ratatui::layout::Flex::Center).areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Length(40)]).flex(ratatui::layout::Flex::Center).areas(area);
    frame.render_widget(Clear, area);
    let lines = text.map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("Stop?")), area);
}

fn draw_curve(frame: &mut Frame, area: Rect, title: &str, points: &[(f64, f64)], color: Color) {
    let [x, y] = [range(points.iter().map(|point| point.0)), range(points.iter().map(|point| point.1))];
    let label = |value: f64, digits: usize| format!("{value:.digits$}");
    let data = Dataset::default().marker(Marker::Braille).style(color).data(points);
    let data = match points.len() {
        0 | 1 => data,
        _ => data.graph_type(GraphType::Line),
    };
    let chart = Chart::new(vec![data])
        .block(Block::bordered().title(title))
        .x_axis(Axis::default().bounds(x).labels(x.map(|at| label(at, 0))))
        .y_axis(Axis::default().bounds(y).labels(y.map(|at| label(at, 2))));
    frame.render_widget(chart, area);
}

/// From the smallest to the largest value, and never nothing.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let [low, high] =
        values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)]);
    match (low < high, low.is_finite()) {
        (true, _) => [low, high],
        (false, true) => [low - 0.5, high + 0.5],
        (false, false) => [0.0, 1.0],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyEvent};

    use super::*;
    use crate::train::StepEvent;

    fn press(view: &mut View, keys: &str) -> Vec<Action> {
        let press = |key| match key {
            '^' => KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
            key => KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE),
        };
        keys.chars().map(|key| view.on_event(&TerminalEvent::Key(press(key)))).collect()
    }

    fn step(steps: u64, step_loss: Option<f64>) -> Event {
        Event::Step(StepEvent {
            epoch: 1,
            epochs: 2,
            rows: 10,
            total_rows: 40,
            steps,
            step_loss,
            loss: Some(3.0),
            elapsed: Duration::ZERO,
        })
    }

    #[test]
    fn keys() {
        use Action::*;
        for (keys, expected) in [
            ("^", vec![Interrupt]),
            ("q^", vec![Nothing, Interrupt]),
            ("qs", vec![Nothing, AfterStep]),
            ("qk", vec![Nothing, AtOnce]),
            ("qc", vec![Nothing, Nothing]),
            ("qck", vec![Nothing, Nothing, Nothing]),
            ("skc", vec![Nothing, Nothing, Nothing]),
            ("qqs", vec![Nothing, Nothing, AfterStep]),
        ] {
            assert_eq!(press(&mut View::new(String::new()), keys), expected, "{keys}");
        }
    }

    #[test]
    fn the_curve_has_what_was_measured_and_nothing_else() {
        let mut view = View::new(String::new());
        for (steps, loss) in [(1, Some(9.0)), (2, None), (3, None), (4, Some(7.0)), (5, None), (6, Some(5.0))] {
            view.tell(&step(steps, loss), None);
        }
        assert_eq!(view.loss.points, [(1.0, 9.0), (4.0, 7.0), (6.0, 5.0)]);
        for steps in 7..20_000 {
            view.tell(&step(steps, Some(1.0)), None);
        }
        assert!(view.loss.points.len() <= MAX_POINTS);
        assert!(view.loss.points.is_sorted_by(|one, next| one.0 < next.0));
        assert!(view.loss.points[100..].iter().all(|point| point.1 == 1.0));
    }

    #[test]
    fn it_draws_in_any_size() {
        let mut view = View::new("title".into());
        for size in [(1, 1), (20, 5), (120, 40)] {
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            view.menu = false;
            terminal.draw(|frame| view.draw(frame, false)).unwrap();
            view.menu = true;
            view.tell(&step(3, Some(1.0)), Some("epoch 1/2"));
            terminal.draw(|frame| view.draw(frame, true)).unwrap();
        }
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| view.draw(frame, true)).unwrap();
        let text = terminal.backend().to_string();
        for part in ["title", "epoch 1/2", "10 of 40 rows", "stopping", "stop at once"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
