//! Markdown as the man macros of roff.
//!
//! A heading becomes a section, and a row of a table an entry: its first cell is the tag, the cells between
//! are in parentheses beside the tag, and the last cell is the text. Links keep their text alone.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Adds a text in Markdown to a page, without its title.
pub fn render(markdown: &str, page: &mut Roff) {
    let (line, cells) = (Vec::new(), Vec::new());
    let mut renderer = Renderer { page, line, cells, font: roman, at_section: true };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(tag) => renderer.start(&tag),
            Event::End(tag) => renderer.end(tag),
            Event::Text(text) => renderer.text(&text),
            Event::Code(text) => renderer.line.push(bold(text.into_string())),
            Event::SoftBreak | Event::HardBreak => renderer.end_line(),
            // HTML, footnotes and the like have no place in a manual page.
            _ => {}
        }
    }
}

struct Renderer<'a> {
    page: &'a mut Roff,
    /// The line that is being read.
    line: Vec<Inline>,
    /// The complete cells of the row that is being read.
    cells: Vec<Vec<Inline>>,
    font: fn(String) -> Inline,
    /// True after a heading, where a paragraph needs no macro.
    at_section: bool,
}

impl Renderer<'_> {
    fn control(&mut self, name: &str, args: &[&str]) {
        self.page.control(name, args.iter().copied());
    }

    fn start(&mut self, tag: &Tag) {
        match tag {
            Tag::Paragraph if !self.at_section => self.control("PP", &[]),
            Tag::Item => self.control("IP", &["\\(bu", "2"]),
            Tag::CodeBlock(_) => {
                if !self.at_section {
                    self.control("PP", &[]);
                }
                self.control("nf", &[]);
            }
            Tag::Strong => self.font = bold,
            Tag::Emphasis => self.font = italic,
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            // The title of the page takes its place.
            TagEnd::Heading(HeadingLevel::H1) => self.line.clear(),
            TagEnd::Heading(level) => {
                self.control(if level == HeadingLevel::H2 { "SH" } else { "SS" }, &[]);
                self.end_line();
                self.at_section = true;
            }
            TagEnd::TableHead => self.cells.clear(),
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableRow => self.end_row(),
            TagEnd::Paragraph | TagEnd::Item => self.end_line(),
            TagEnd::CodeBlock => {
                self.end_line();
                self.control("fi", &[]);
            }
            TagEnd::Strong | TagEnd::Emphasis => self.font = roman,
            _ => {}
        }
    }

    /// Adds text. Only the text of a code block has more than one line.
    fn text(&mut self, text: &str) {
        for (position, line) in text.trim_end_matches('\n').split('\n').enumerate() {
            if position > 0 {
                self.end_line();
            }
            self.line.push((self.font)(line.to_owned()));
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.page.text(line);
            self.at_section = false;
        }
    }

    fn end_row(&mut self) {
        let mut cells = std::mem::take(&mut self.cells).into_iter();
        let (tag, text) = (cells.next(), cells.next_back());
        self.control("TP", &[]);
        self.line = tag.unwrap_or_default();
        for cell in cells.filter(|cell| !cell.is_empty()) {
            self.line.push(roman(" ("));
            self.line.extend(cell);
            self.line.push(roman(")"));
        }
        self.end_line();
        self.line = text.unwrap_or_default();
        self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(markdown: &str) -> String {
        let mut page = Roff::new();
        render(markdown, &mut page);
        page.to_roff()
    }

    #[test]
    fn a_heading_is_a_section_and_a_sentence_a_line() {
        let text = "# Title\n## `[host]`\nOne **two**.\nSee [other](other.md).\n\n- three\n- four\n";
        let section = ".SH\n\\fB[host]\\fR\nOne \\fBtwo\\fR.\nSee other.\n";
        let list = ".IP \\(bu 2\nthree\n.IP \\(bu 2\nfour\n";
        assert_eq!(rendered(text), format!("{section}{list}"));
    }

    #[test]
    fn a_row_of_a_table_is_an_entry_with_the_middle_cells_beside_the_tag() {
        let text =
            "| key | values | meaning |\n|---|---|---|\n| `mode` | `\"egress\"` | tc |\n| `x` | | y |\n";
        assert_eq!(rendered(text), ".TP\n\\fBmode\\fR (\\fB\"egress\"\\fR)\ntc\n.TP\n\\fBx\\fR\ny\n");
    }

    #[test]
    fn a_code_block_keeps_its_lines() {
        assert_eq!(rendered("x\n```\na b\n.c\n```\n"), "x\n.PP\n.nf\na b\n\\&.c\n.fi\n");
    }
}
