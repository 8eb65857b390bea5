//! Rows, goals, and how they are printed.

use crate::work::Plan;

/// What a figure counts.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Operations per second; more is better.
    PerSecond,
    /// Millions of bytes per second; more is better.
    MegabytesPerSecond,
    /// Milliseconds; less is better.
    Milliseconds,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::PerSecond => "/s",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::Milliseconds => "ms",
        }
    }

    fn less_is_better(self) -> bool {
        self == Unit::Milliseconds
    }
}

/// What a row is to reach: a multiple of another system's figure, or a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    Native(f64),
    Bindfs(f64),
    Rclone(f64),
    AtLeast(f64),
    AtMost(f64),
}

/// One line of the table.
pub struct Row {
    pub name: String,
    pub unit: Unit,
    pub goals: Vec<Goal>,
    pub tcfs: f64,
    pub native: Option<f64>,
    pub bindfs: Option<f64>,
    pub rclone: Option<f64>,
}

impl Row {
    /// A row that has no figures of others.
    pub fn alone(name: &str, unit: Unit, goal: Goal, tcfs: f64) -> Row {
        Row { name: name.into(), unit, goals: vec![goal], tcfs, native: None, bindfs: None, rclone: None }
    }

    fn sign(&self) -> &'static str {
        if self.unit.less_is_better() { "≤" } else { "≥" }
    }

    fn goal_text(&self, g: &Goal) -> String {
        match g {
            Goal::Native(x) => format!("{} {} × native", self.sign(), (x * 1000.0).round() / 1000.0),
            Goal::Bindfs(x) => format!("{} {x} × bindfs", self.sign()),
            Goal::Rclone(x) => format!("{} {x} × rclone", self.sign()),
            Goal::AtLeast(x) => format!("≥ {x} {}", self.unit.name()),
            Goal::AtMost(x) => format!("≤ {x} {}", self.unit.name()),
        }
    }

    /// Whether a goal is reached; none if its peer was not measured.
    fn reached(&self, g: &Goal) -> Option<bool> {
        let against = |other: Option<f64>, x: f64| {
            let ratio = self.tcfs / other?;
            Some(if self.unit.less_is_better() { ratio <= x } else { ratio >= x })
        };
        match *g {
            Goal::Native(x) => against(self.native, x),
            Goal::Bindfs(x) => against(self.bindfs, x),
            Goal::Rclone(x) => against(self.rclone, x),
            Goal::AtLeast(x) => Some(self.tcfs >= x),
            Goal::AtMost(x) => Some(self.tcfs <= x),
        }
    }
}

/// The middle one; the mean of the two middle ones of an even number.
pub fn median(figures: &[f64]) -> f64 {
    let mut f = figures.to_vec();
    f.sort_by(f64::total_cmp);
    assert!(!f.is_empty(), "no figure was measured");
    let m = f.len() / 2;
    if f.len() % 2 == 1 { f[m] } else { (f[m - 1] + f[m]) / 2.0 }
}

fn number(x: f64) -> String {
    if x >= 10_000.0 {
        format!("{:.0}k", x / 1000.0)
    } else if x >= 100.0 {
        format!("{x:.0}")
    } else {
        format!("{x:.1}")
    }
}

impl Row {
    /// As a line of the Markdown table.
    pub fn line(&self) -> String {
        let ratio = |other: Option<f64>| other.map_or("–".into(), |o| format!("{:.2}", self.tcfs / o));
        let plain = |f: Option<f64>| f.map_or("–".into(), |f| format!("{} {}", number(f), self.unit.name()));
        let goals: Vec<String> = self.goals.iter().map(|g| self.goal_text(g)).collect();
        let reached: Vec<&str> = self.goals.iter().map(|g| self.reached(g).map_or("?", |y| if y { "yes" } else { "no" })).collect();
        let cells = [
            self.name.clone(),
            ratio(self.native),
            ratio(self.bindfs),
            ratio(self.rclone),
            plain(Some(self.tcfs)),
            plain(self.native),
            plain(self.bindfs),
            plain(self.rclone),
            goals.join(", "),
            reached.join(", "),
        ];
        format!("| {} |", cells.join(" | "))
    }
}

/// A Markdown table, ratios first.
pub fn print_markdown(rows: &[Row], plan: &Plan) {
    println!("{}\n", plan.describe());
    println!("| measure | × native | × bindfs | × rclone | tcfs | native | bindfs | rclone | to reach | reached |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for r in rows {
        println!("{}", r.line());
    }
}

/// One object per line.
pub fn print_json(rows: &[Row]) {
    for r in rows {
        let goals: Vec<_> = r.goals.iter().map(|g| serde_json::json!({ "goal": r.goal_text(g), "reached": r.reached(g) })).collect();
        println!(
            "{}",
            serde_json::json!({ "measure": r.name, "unit": r.unit.name(), "tcfs": r.tcfs, "native": r.native, "bindfs": r.bindfs, "rclone": r.rclone, "goals": goals })
        );
    }
}
