//! Finds modules that import each other.
//!
//! The modules of one directory are siblings, and the file of their parent (`mod.rs`, `lib.rs` or `main.rs`)
//! is one more sibling. An import from one subtree of another is an edge between the siblings above them. No
//! ring of such edges is allowed. A parent may therefore use its children, or the children their parent, but
//! not both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::modules::{Import, ModulePath};

/// The name of the parent's own file among the siblings.
const PARENT: &str = "(itself)";

/// The edges between the siblings of one parent, each with its first place.
type Edges = BTreeMap<(String, String), String>;

/// Describes the shortest ring in each group of modules that import each other, with the file and line of
/// each edge.
pub fn rings(imports: &[Import]) -> Vec<String> {
    let mut levels: BTreeMap<ModulePath, Edges> = BTreeMap::new();
    for Import { from, to, place } in imports {
        let common = from.iter().zip(to).take_while(|(one, other)| one == other).count();
        let sibling = |path: &ModulePath| path.get(common).map_or(PARENT.to_owned(), Clone::clone);
        let edges = levels.entry(from[..common].to_vec()).or_default();
        edges.entry((sibling(from), sibling(to))).or_insert_with(|| place.clone());
    }
    levels.iter().flat_map(|(parent, edges)| rings_of(parent, edges)).collect()
}

fn rings_of(parent: &ModulePath, edges: &Edges) -> Vec<String> {
    let nodes: BTreeSet<&String> = edges.keys().map(|(from, _)| from).collect();
    let mut reported = BTreeSet::new();
    let mut rings = Vec::new();
    for node in nodes {
        let Some(ring) = shortest_ring(node, edges) else { continue };
        if reported.contains(node) {
            continue;
        }
        let reaches = |from: &str, to: &str| path(from, to, edges).is_some();
        let all = edges.keys().map(|(from, _)| from);
        let group: BTreeSet<String> =
            all.filter(|other| reaches(node, other) && reaches(other, node)).cloned().collect();
        rings.push(description(parent, &ring, group.len(), edges));
        reported.extend(group);
    }
    rings
}

fn description(parent: &ModulePath, ring: &[String], group: usize, edges: &Edges) -> String {
    let parent =
        if parent.is_empty() { "the crate root".to_owned() } else { format!("`{}`", parent.join("::")) };
    let steps: Vec<String> = ring
        .windows(2)
        .map(|step| {
            let (from, to) = (step[0].clone(), step[1].clone());
            let place = &edges[&(from.clone(), to.clone())];
            format!("\n    {from} imports {to}: {place}")
        })
        .collect();
    format!("{group} modules below {parent} import each other:{}", steps.concat())
}

/// Returns the nodes of the shortest ring through a node; the first and the last are the node.
fn shortest_ring(node: &str, edges: &Edges) -> Option<Vec<String>> {
    path(node, node, edges)
}

/// Returns the shortest path of at least one edge.
fn path(from: &str, to: &str, edges: &Edges) -> Option<Vec<String>> {
    let mut queue = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        let last = path.last()?;
        for (_, next) in edges.keys().filter(|(start, _)| start == last) {
            let longer = [path.clone(), vec![next.clone()]].concat();
            if next == to {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                queue.push_back(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::modules::Modules;

    fn of(sources: &[(&str, &str)]) -> Vec<String> {
        rings(&Modules::of(sources).imports())
    }

    #[test]
    fn a_ring_of_siblings_is_found_with_its_places() {
        let sources = [
            ("", ""),
            ("a", "use crate::b::B;\nstruct A;"),
            ("b", "\nuse super::c::C;\nstruct B;"),
            ("c", "struct C(crate::a::A);"),
        ];
        let expected = "3 modules below the crate root import each other:\n    \
                        a imports b: a.rs:1\n    b imports c: b.rs:2\n    c imports a: c.rs:1";
        assert_eq!(of(&sources), [expected]);
    }

    #[test]
    fn a_ring_inside_a_directory_is_found() {
        let sources = [
            ("", ""),
            ("d", ""),
            ("d::a", "use super::b::B; struct A;"),
            ("d::b", "use super::a::A; struct B;"),
        ];
        assert_eq!(of(&sources).len(), 1);
        assert!(of(&sources)[0].starts_with("2 modules below `d`"));
    }

    #[test]
    fn a_ring_between_directories_is_found_at_their_parent() {
        let sources = [
            ("", ""),
            ("a", ""),
            ("a::x", "use crate::b::y::Y; struct X;"),
            ("b", ""),
            ("b::y", "struct Y;"),
            ("b::z", "use crate::a::x::X;"),
        ];
        assert!(of(&sources)[0].starts_with("2 modules below the crate root"));
    }

    #[test]
    fn a_parent_and_its_child_that_use_each_other_are_a_ring() {
        let child = "use super::P; fn c() {}";
        assert_eq!(of(&[("", ""), ("p", "struct P; fn f() { c::c() }"), ("p::c", child)]).len(), 1);
        assert!(of(&[("", ""), ("p", "struct P;"), ("p::c", child)]).is_empty());
        assert!(of(&[("", ""), ("p", "fn f() { c::c() }"), ("p::c", "fn c() {}")]).is_empty());
    }

    #[test]
    fn comments_and_tests_make_no_ring() {
        let a = "//! See [`crate::b`].\nuse crate::b::B; struct A;";
        let b = "// crate::a::A\nstruct B;\n#[cfg(test)]\nmod tests { use crate::a::A; }";
        assert!(of(&[("", ""), ("a", a), ("b", b)]).is_empty());
    }
}
