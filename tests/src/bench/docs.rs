//! Writes the results into the documents: tables, pictures, and whether the aims are met. Every figure comes
//! from the file of results.
//!
//! The text between `<!-- bench: NAME -->` and `<!-- end -->` is generated. NAME is a section of the bench,
//! or a part of [`aims`].

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::report::{Picture, Results, Table};
use super::{aims, draw};

/// The documents with generated parts, in the repository.
const DOCUMENTS: [&str; 2] = ["docs/performance.md", "README.md"];
/// Directory of the pictures, beside the first document.
const PICTURES: &str = "pictures";
const END: &str = "<!-- end -->";
/// Ratio of the end of a curve to its start at which the curve is called flat. Two runs differ by as much.
const FLAT: RangeInclusive<f64> = 0.8..=1.25;

/// Generates the parts and pictures of a repository from its results.
pub fn renew(repository: &Path) {
    for (path, text) in all(repository) {
        fs::create_dir_all(path.parent().expect("a directory")).expect("making a directory");
        fs::write(&path, text).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
    }
}

/// Path and content of all generated files.
fn all(repository: &Path) -> Vec<(PathBuf, String)> {
    let results = Results::read(&repository.join("bench/results.json"));
    let renewed = DOCUMENTS.map(|document| {
        let path = repository.join(document);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
        (path, filled(&text, |name| part(&results, name)))
    });
    let tables = results.sections.values().flat_map(|section| &section.tables);
    let pictures = tables.filter_map(|table| {
        let name = &table.picture.as_ref()?.name;
        Some((repository.join(format!("docs/{PICTURES}/{name}.svg")), draw::svg(table)?))
    });
    renewed.into_iter().chain(pictures).collect()
}

/// The text with a new part between each pair of marks.
fn filled(text: &str, part: impl Fn(&str) -> String) -> String {
    let mut pieces = text.split("<!-- bench: ");
    let mut made = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(" -->").expect("the end of a mark");
        let (_, after) =
            rest.split_once(END).unwrap_or_else(|| panic!("no {END} behind the mark of {name:?}"));
        made += &format!("<!-- bench: {name} -->\n{}\n{END}{after}", part(name).trim_end());
    }
    made
}

/// The part for a mark of this name.
fn part(results: &Results, name: &str) -> String {
    if let Some(part) = aims::part(results, name) {
        return part;
    }
    let Some(section) = results.sections.get(name) else {
        return format!("Not measured yet: `cargo xtask bench {name}`.");
    };
    let tables: Vec<String> = section.tables.iter().map(shown).collect();
    format!("{}\n\n{}", section.origin(), tables.join("\n"))
}

/// A table, behind its picture and a sentence on its curves, if it has one.
fn shown(table: &Table) -> String {
    let Some(Picture { name, x, y, why }) = &table.picture else { return table.markdown() };
    let curves = table.curves();
    let ends = curves.first().and_then(|rows| Some([rows.first()?.at?, rows.last()?.at?].map(draw::grouped)));
    let [first, last] = ends.unwrap_or_default();
    let growth: Vec<String> = curves
        .iter()
        .filter_map(|rows| {
            let times = rows.last()?.ratio(rows.first()?);
            let flat = if FLAT.contains(&times) { " (flat)" } else { "" };
            Some(format!("{} {times:.2} times{flat}", rows.first()?.what))
        })
        .collect();
    let growth = growth.join(", ");
    format!(
        "![{y}, by {x}]({PICTURES}/{name}.svg)\n\nAt {last} {x} against {first}: {growth}. {why}.\n\n{}",
        table.markdown()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_was_found() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (path, text) in all(&repository) {
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == text,
                "{} is not of bench/results.json: `cargo xtask bench --draw`",
                path.display()
            );
        }
    }

    #[test]
    fn what_stands_between_the_marks_is_replaced_and_nothing_else() {
        let text = "a\n<!-- bench: one -->\nold\n<!-- end -->\nb <!-- bench: two --><!-- end -->";
        let once = filled(text, |name| format!("new {name}\n"));
        assert_eq!(
            once,
            "a\n<!-- bench: one -->\nnew one\n<!-- end -->\nb <!-- bench: two -->\nnew two\n<!-- end -->"
        );
        assert_eq!(filled(&once, |name| format!("new {name}\n")), once);
    }
}
