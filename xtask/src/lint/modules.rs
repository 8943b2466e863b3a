//! Reads the modules of a crate and resolves their imports.
//!
//! A module is a file. An inline module belongs to its file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::parser::{Module, Reference, parse};

/// The path of a module from the root of the crate, which is empty.
pub type ModulePath = Vec<String>;

/// The modules of a crate.
#[derive(Default)]
pub struct Modules {
    files: BTreeMap<ModulePath, (PathBuf, Module)>,
}

/// An import from one module of another.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    /// The module with the import.
    pub from: ModulePath,
    /// The module that declares the imported item.
    pub to: ModulePath,
    /// The file and the line of the import, for messages.
    pub place: String,
}

/// The target of a path.
enum Target {
    Module(ModulePath),
    /// An item of this module.
    Item(ModulePath),
    /// Another crate, or a name that the path does not show to be a module.
    Other,
}

/// Re-exports that lead to each other would not end.
const MAX_DEPTH: u32 = 16;

impl Modules {
    /// Reads the modules below a crate root (`lib.rs` or `main.rs`). Test modules are left out.
    pub fn read(root: &Path) -> Result<Self> {
        let mut modules = Self::default();
        modules.read_file(root.to_path_buf(), Vec::new(), root.parent().unwrap_or(Path::new("")))?;
        Ok(modules)
    }

    fn read_file(&mut self, file: PathBuf, path: ModulePath, children: &Path) -> Result<()> {
        let source = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        for child in self.add(file, path.clone(), &source) {
            let flat = children.join(&child).with_extension("rs");
            let nested = children.join(&child).join("mod.rs");
            let path = [path.clone(), vec![child.clone()]].concat();
            // A file behind `#[path]` belongs to another crate too and is not followed.
            if let Some(file) = [flat, nested].into_iter().find(|file| file.is_file()) {
                self.read_file(file, path, &children.join(&child))?;
            }
        }
        Ok(())
    }

    /// Adds a module and returns the names of its children in other files.
    fn add(&mut self, file: PathBuf, path: ModulePath, source: &str) -> Vec<String> {
        let module = parse(&path, source);
        let children = module.children.clone();
        self.files.insert(path, (file, module));
        children
    }

    /// Returns the imports between different modules.
    ///
    /// A re-export (`pub use`) is an import only if its own module uses the name: a path through the
    /// re-export leads to the module with the item.
    pub fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, (file, module)) in &self.files {
            let is_used = |name: &String| module.words.contains(name);
            let uses = module
                .uses
                .iter()
                .filter(|declared| !declared.is_public || declared.name.as_ref().is_some_and(is_used));
            for reference in uses.map(|declared| &declared.reference).chain(&module.paths) {
                let to = match self.resolve(from, reference, 0) {
                    // A module names one of its parents to reach the items below.
                    Target::Module(to) if from.starts_with(&to) => continue,
                    Target::Module(to) | Target::Item(to) if to != *from => to,
                    _ => continue,
                };
                let place = format!("{}:{}", file.display(), reference.line);
                imports.push(Import { from: from.clone(), to, place });
            }
        }
        imports
    }

    fn resolve(&self, from: &ModulePath, reference: &Reference, depth: u32) -> Target {
        let Reference { segments, is_relative, .. } = reference;
        if depth > MAX_DEPTH {
            return Target::Other;
        }
        let start = if *is_relative { from.clone() } else { Vec::new() };
        self.descend(start, segments, *is_relative, depth)
    }

    fn descend(&self, at: ModulePath, segments: &[String], is_relative: bool, depth: u32) -> Target {
        let Some((name, rest)) = segments.split_first() else { return Target::Module(at) };
        let child = [at.clone(), vec![name.clone()]].concat();
        if self.files.contains_key(&child) {
            return self.descend(child, rest, false, depth);
        }
        let Some((_, module)) = self.files.get(&at) else { return Target::Other };
        if module.items.contains(name) {
            return Target::Item(at);
        }
        if let Some(declared) = module.uses.iter().find(|declared| declared.name.as_ref() == Some(name)) {
            // `use anyhow;` would resolve the name by itself.
            if declared.reference.is_relative && declared.reference.segments.first() == Some(name) {
                return Target::Other;
            }
            return match self.resolve(&at, &declared.reference, depth + 1) {
                Target::Module(found) => self.descend(found, rest, false, depth + 1),
                target => target,
            };
        }
        for glob in module.uses.iter().filter(|declared| declared.name.is_none()) {
            let Target::Module(found) = self.resolve(&at, &glob.reference, depth + 1) else { continue };
            if let Target::Item(found) = self.descend_known(found, segments, depth + 1) {
                return Target::Item(found);
            }
        }
        // The first segment of a relative path may be a crate or a type; a macro may declare any other name.
        if is_relative { Target::Other } else { Target::Item(at) }
    }

    /// Like `descend`, but a name that the module does not show is no item of the module.
    fn descend_known(&self, at: ModulePath, segments: &[String], depth: u32) -> Target {
        if depth > MAX_DEPTH { Target::Other } else { self.descend(at, segments, true, depth) }
    }
}

#[cfg(test)]
impl Modules {
    /// Makes modules from sources, named as in `a::b`; the empty name is the root.
    pub fn of(sources: &[(&str, &str)]) -> Self {
        let mut modules = Self::default();
        for (name, source) in sources {
            let path = name.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            modules.add(PathBuf::from(name).with_extension("rs"), path, source);
        }
        modules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(sources: &[(&str, &str)]) -> Vec<String> {
        let show = |import: Import| {
            format!("{} -> {} at {}", import.from.join("::"), import.to.join("::"), import.place)
        };
        Modules::of(sources).imports().into_iter().map(show).collect()
    }

    #[test]
    fn use_declarations_and_paths_are_imports() {
        let a = "use crate::b::{B, c::{self, C}};\nfn f() { super::d::D::new() }";
        let sources =
            [("", "mod a;"), ("a", a), ("b", "struct B;"), ("b::c", "struct C;"), ("d", "struct D;")];
        assert_eq!(
            imports(&sources),
            ["a -> b at a.rs:1", "a -> b::c at a.rs:1", "a -> b::c at a.rs:1", "a -> d at a.rs:2"]
        );
    }

    #[test]
    fn comments_strings_and_tests_are_no_imports() {
        let a = "//! [`crate::b`]\n/// crate::b::B\nconst S: &str = \"crate::b::B\"; // crate::b::B\n\
                 #[cfg(test)]\nmod tests { use crate::b::B; }";
        assert!(imports(&[("a", a), ("b", "struct B;")]).is_empty());
    }

    #[test]
    fn a_path_through_a_re_export_leads_to_the_item() {
        let b = "mod c;\npub use c::C;\npub use self::d::*;";
        let sources = [
            ("", ""),
            ("a", "use crate::b::{C, D};"),
            ("b", b),
            ("b::c", "struct C;"),
            ("b::d", "enum D {}"),
        ];
        assert_eq!(imports(&sources), ["a -> b::c at a.rs:1", "a -> b::d at a.rs:1"]);
    }

    #[test]
    fn a_re_export_that_its_module_uses_is_an_import() {
        let sources = [("", ""), ("b", "pub use c::C;\nfn f(_: C) {}"), ("b::c", "struct C;")];
        assert_eq!(imports(&sources), ["b -> b::c at b.rs:1"]);
    }

    #[test]
    fn a_path_through_an_imported_module_leads_to_the_item() {
        let sources =
            [("", ""), ("a::x", "use crate::a;\nfn f() { a::y::g() }"), ("a", ""), ("a::y", "fn g() {}")];
        assert_eq!(imports(&sources), ["a::x -> a::y at a::x.rs:2"]);
    }

    #[test]
    fn other_crates_are_no_imports() {
        let a = "use std::fmt;\nuse anyhow::Result;\nfn f() -> fmt::Result { b::c() }";
        assert!(imports(&[("", "mod a; mod b;"), ("a", a), ("b", "fn c() {}")]).is_empty());
    }
}
