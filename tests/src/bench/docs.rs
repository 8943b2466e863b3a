//! Writes what was found into the documents: tables, pictures and whether the aims are met, all from the file of results, so that no
//! figure in a document is another than there.
//!
//! A document says where: between `<!-- bench: NAME -->` and `<!-- end -->`, the name one of a section, or of [`aims`].

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::report::{Picture, Results, Table};
use super::{aims, draw};

/// Documents that have such places, in the repository.
const DOCUMENTS: [&str; 2] = ["docs/performance.md", "README.md"];
/// Where the pictures are, beside the first of them.
const PICTURES: &str = "pictures";
const END: &str = "<!-- end -->";
/// What the end of a curve that is flat costs against its start: less differs between two runs.
const FLAT: RangeInclusive<f64> = 0.8..=1.25;

/// Renews the documents and pictures of the repository from its results.
pub fn renew(repository: &Path) {
    for (path, text) in all(repository) {
        fs::create_dir_all(path.parent().expect("a directory")).expect("making a directory");
        fs::write(&path, text).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
    }
}

/// What they are by the results.
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

/// The text with something new between each pair of marks.
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

/// What stands at the mark of this name.
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

/// A table; behind its picture and what that shows, where it has one.
fn shown(table: &Table) -> String {
    let Some(Picture { name, x, y, why }) = &table.picture else { return table.markdown() };
    let curves = table.curves();
    let ends = curves.first().and_then(|rows| Some([rows.first()?.at?, rows.last()?.at?].map(draw::grouped)));
    let [first, last] = ends.unwrap_or_default();
    let told: Vec<String> = curves
        .iter()
        .filter_map(|rows| {
            let times = rows.last()?.ratio(rows.first()?);
            let flat = if FLAT.contains(&times) { " (flat)" } else { "" };
            Some(format!("{} {times:.2} times{flat}", rows.first()?.what))
        })
        .collect();
    let told = told.join(", ");
    format!(
        "![{y}, by {x}]({PICTURES}/{name}.svg)\n\nAt {last} {x} against {first}: {told}. {why}.\n\n{}",
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
