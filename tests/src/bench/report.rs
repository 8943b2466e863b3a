//! Results of a run: tables in Markdown, and a JSON file with the figures of every round.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::figures::Row;

/// A table, and its figures.
#[derive(Deserialize)]
pub struct Table {
    /// Title of the table.
    pub title: String,
    head: Vec<String>,
    /// Cells, line by line.
    pub lines: Vec<Vec<String>>,
    /// Figures behind the cells.
    pub rows: Vec<Row>,
    /// The picture of the rows that have a position on a curve.
    pub picture: Option<Picture>,
}

/// Labels and explanation of a curve.
#[derive(Deserialize)]
pub struct Picture {
    /// Name of the file, without `.svg`.
    pub name: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// Reason for the shape of the curve.
    pub why: String,
}

/// Results of one run of a section.
#[derive(Deserialize)]
pub struct Section {
    kernel: String,
    machine: String,
    date: String,
    command: String,
    /// Tables of the section.
    pub tables: Vec<Table>,
}

/// Results of all sections, each of its latest run.
#[derive(Deserialize)]
pub struct Results {
    /// Sections by name.
    pub sections: BTreeMap<String, Section>,
}

impl Table {
    /// A table with these columns and no lines.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(ToString::to_string).collect();
        Self { title: title.into(), head, lines: Vec::new(), rows: Vec::new(), picture: None }
    }

    /// Adds a line.
    pub fn line<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.lines.push(cells.into_iter().map(Into::into).collect());
    }

    /// Adds figures.
    pub fn keep<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        self.rows.extend(rows.into_iter().cloned());
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let width = self.head.len();
        let line = |cells: &[String]| {
            let missing = vec![String::new(); width.saturating_sub(cells.len())];
            format!("| {} |\n", [cells, &missing].concat().join(" | "))
        };
        let lines: String = self.lines.iter().map(|cells| line(cells)).collect();
        format!("{}\n\n{}|{}\n{lines}", self.title, line(&self.head), "---|".repeat(width))
    }

    /// The rows that have a position on a curve, one list for each curve.
    pub fn curves(&self) -> Vec<Vec<&Row>> {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.at.is_some()).collect();
        rows.chunk_by(|one, next| one.what == next.what).map(<[_]>::to_vec).collect()
    }

    /// The cell of a column in the line that begins with this text.
    pub fn cell(&self, line: &str, column: &str) -> Option<&str> {
        let place = self.head.iter().position(|head| head == column)?;
        let line = self.lines.iter().find(|cells| cells.first().is_some_and(|first| first == line))?;
        line.get(place).map(String::as_str)
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let mut all = json!({ "title": self.title, "head": self.head, "lines": self.lines, "rows": rows });
        if let Some(Picture { name, x, y, why }) = &self.picture {
            all["picture"] = json!({ "name": name, "x": x, "y": y, "why": why });
        }
        all
    }
}

impl Section {
    /// Command, machine, kernel and date of the measurement.
    pub fn origin(&self) -> String {
        format!("`{}`, {}, Linux {}, {}", self.command, self.machine, self.kernel, self.date)
    }
}

impl Results {
    /// Reads the results of earlier runs from a file.
    pub fn read(path: &Path) -> Self {
        let text =
            fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
    }

    /// The figures of a section with this name.
    pub fn rows(&self, section: &str, what: &str) -> impl Iterator<Item = &Row> {
        let tables = self.sections.get(section).into_iter().flat_map(|section| &section.tables);
        tables.flat_map(|table| &table.rows).filter(move |row| row.what == what && !row.rounds.is_empty())
    }

    /// The first figures of a section with this name.
    pub fn row(&self, section: &str, what: &str) -> Option<&Row> {
        self.rows(section, what).next()
    }
}

/// Prints the tables of a section.
pub fn print(tables: &[Table]) {
    tables.iter().for_each(|table| println!("{}", table.markdown()));
}

/// Writes a section into the file, beside the sections of earlier runs.
pub fn write(path: &Path, section: &str, tables: &[Table]) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let old = serde_json::from_str::<Value>(&text).unwrap_or_default();
    let mut all: Map<String, Value> = old["sections"].as_object().cloned().unwrap_or_default();
    let tables: Vec<Value> = tables.iter().map(Table::json).collect();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let command = format!("cargo xtask bench {section}");
    let found = json!({
        "kernel": release, "machine": machine(), "date": today(), "command": command, "tables": tables
    });
    all.insert(section.to_owned(), found);
    let text = serde_json::to_string_pretty(&json!({ "command": "cargo xtask bench", "sections": all }));
    fs::write(path, in_rows(&text.expect("JSON"))).expect("writing the results");
}

/// Puts the numbers of an array on one line, so that a diff shows which rows changed.
fn in_rows(text: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let is_number = line.trim().trim_end_matches(',').parse::<f64>().is_ok();
        if is_number && !all.is_empty() {
            all.push(' ');
            all.push_str(line.trim());
        } else {
            if !all.is_empty() {
                all.push('\n');
            }
            all.push_str(line);
        }
    }
    all + "\n"
}

/// Name and number of the processors.
fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{count} x {}", name.unwrap_or("a processor without a name"))
}

fn today() -> String {
    let ran = Command::new("date").args(["-u", "+%F"]).output();
    ran.map(|ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown_and_short_lines_are_filled_up() {
        let mut table = Table::new("title", &["a", "b", "c"]);
        table.line(["1", "2", "3"]);
        table.line(["x", "not available"]);
        assert_eq!(
            table.markdown(),
            "title\n\n| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| x | not available |  |\n"
        );
    }

    #[test]
    fn a_section_is_written_beside_the_others_and_its_numbers_stand_in_rows() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("results.json");
        let mut table = Table::new("title", &["a"]);
        table.keep([&Row { rounds: vec![1.0, 2.5, 3.0], ..Row::new("w", "ns") }]);
        for section in ["one", "two"] {
            write(&path, section, std::slice::from_ref(&table));
        }
        let text = fs::read_to_string(&path).expect("the file");
        assert!(text.contains("\"rounds\": [ 1.0, 2.5, 3.0\n"), "{text}");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(found["sections"]["one"]["tables"], found["sections"]["two"]["tables"]);
        assert_eq!(found["sections"]["one"]["tables"][0]["rows"][0]["median"], 2.5);
    }
}
