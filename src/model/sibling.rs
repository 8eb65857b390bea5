//! Names of siblings: `plan.md` in conflict shows `plan.conflict-yoga.md` beside it.
//!
//! Must: a name that a real entry has is never taken; no two siblings share one; every name fits a directory entry
//! and is the same on every device that shows the same heads and real names.

use super::path::NAME_MAX;
use super::view::View;

/// The names of `view`'s siblings, in their order. `name` is the entry's own; `taken` tells of names in that directory
/// that belong to real entries, or to siblings named before.
pub fn sibling_names(name: &str, view: &View, taken: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut labels: Vec<&str> = view.shown.filter(|_| !view.is_dir).map(|v| v.place().0).into_iter().collect();
    let mut names: Vec<String> = Vec::with_capacity(view.siblings.len());
    for sibling in &view.siblings {
        let place = sibling.head.place().0;
        let label = if labels.contains(&place) { &sibling.head.device_name } else { place };
        labels.push(label);
        let free = |n: &String| n != name && !names.contains(n) && !taken(n);
        let found = (1..).map(|n| sibling_name(name, label, n)).find(free);
        // The numbers do not run out before the directory does.
        names.extend(found);
    }
    names
}

/// `<stem>.conflict-<label><ext>`, with `-<n>` after the label from the second on.
pub fn sibling_name(name: &str, label: &str, n: u32) -> String {
    let (mut stem, mut ext) = split(name);
    let number = if n > 1 { format!("-{n}") } else { String::new() };
    let mark = format!(".conflict-{label}{number}");
    if mark.len() + ext.len() >= NAME_MAX {
        (stem, ext) = (name, "");
    }
    let mut end = stem.len().min(NAME_MAX.saturating_sub(mark.len() + ext.len()));
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}{ext}", &stem[..end])
}

/// Stem and extension. A leading dot makes no extension; only `.tar.*` is double.
fn split(name: &str) -> (&str, &str) {
    let dots = name.len() - name.trim_start_matches('.').len();
    let Some(at) = name[dots..].rfind('.').map(|i| i + dots) else { return (name, "") };
    if at + 1 == name.len() {
        return (name, "");
    }
    let double = name[..at].strip_suffix(".tar").filter(|s| s.len() > dots);
    name.split_at(double.map_or(at, str::len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_stay_at_the_end() {
        for (name, expected) in [
            ("plan.md", "plan.conflict-yoga.md"),
            ("Makefile", "Makefile.conflict-yoga"),
            (".bashrc", ".bashrc.conflict-yoga"),
            (".bashrc.bak", ".bashrc.conflict-yoga.bak"),
            ("a.tar.gz", "a.conflict-yoga.tar.gz"),
            (".tar.gz", ".tar.conflict-yoga.gz"),
            ("a.b.c", "a.b.conflict-yoga.c"),
            ("end.", "end..conflict-yoga"),
            ("...", "....conflict-yoga"),
        ] {
            assert_eq!(sibling_name(name, "yoga", 1), expected);
        }
        assert_eq!(sibling_name("plan.md", "yoga", 2), "plan.conflict-yoga-2.md");
    }

    #[test]
    fn long_names_are_cut_between_characters_and_fit() {
        for name in ["é".repeat(127), format!("{}.md", "日".repeat(84)), format!("a.{}", "x".repeat(253)), "x".repeat(255)] {
            let n = sibling_name(&name, "yoga", 12);
            assert!(n.len() <= NAME_MAX && n.contains(".conflict-yoga-12"), "{n}");
        }
    }
}
