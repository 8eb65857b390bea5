//! The config file: TOML, flattened to dotted keys with the line each stands on.
//!
//! Must: every error names file and line. Not here: which keys exist (`keys`).

use super::value::Raw;
use crate::error::{Error, Kind, Result};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A key of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted name, such as `s3.endpoint`.
    pub name: String,
    /// Its value.
    pub raw: Raw,
    /// Line, from 1.
    pub line: usize,
}

/// Reads the text of a config file.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Setting>> {
    let table = DeTable::parse(text).map_err(|e| {
        let line = e.span().map_or(1, |s| line_of(text, s.start));
        Error::new(Kind::Usage, format!("{}, line {line}: {}", path.display(), e.message().replace('\n', ", ")))
            .hint("texts stand in quotes: store = \"s3://tcfs/default\"")
    })?;
    let mut out = Vec::new();
    flatten(table.get_ref(), "", text, path, &mut out)?;
    Ok(out)
}

fn flatten(table: &DeTable<'_>, prefix: &str, text: &str, path: &Path, out: &mut Vec<Setting>) -> Result<()> {
    for (key, value) in table.iter() {
        let name = format!("{prefix}{}", key.get_ref());
        let line = line_of(text, key.span().start);
        let bad = |what: &str| Error::new(Kind::Usage, format!("{}, line {line}: {name}: {what}", path.display()));
        let raw = match value.get_ref() {
            DeValue::Table(t) => {
                if t.is_empty() {
                    // An empty `[table]` sets nothing, but its name must be one of ours: the caller checks.
                    out.push(Setting { name: format!("{name}."), raw: Raw::List(Vec::new()), line });
                }
                flatten(t, &format!("{name}."), text, path, out)?;
                continue;
            }
            DeValue::String(s) => Raw::Text(s.to_string()),
            DeValue::Boolean(b) => Raw::Bool(*b),
            DeValue::Integer(n) => Raw::Int(i64::from_str_radix(n.as_str(), n.radix()).map_err(|_| bad("this number is too large"))?),
            DeValue::Array(a) => Raw::List(
                a.iter()
                    .map(|v| match v.get_ref() {
                        DeValue::String(s) => Ok(s.to_string()),
                        _ => Err(bad("expected a list of texts such as [\"*.swp\", \"*.swo\"]")),
                    })
                    .collect::<Result<_>>()?,
            ),
            DeValue::Float(_) | DeValue::Datetime(_) => return Err(bad("expected a text, a whole number, true, false or a list of texts")),
        };
        out.push(Setting { name, raw, line });
    }
    Ok(())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str) -> Result<Vec<(String, Raw, usize)>> {
        Ok(parse(text, Path::new("/c.toml"))?.into_iter().map(|s| (s.name, s.raw, s.line)).collect())
    }

    #[test]
    fn tables_are_flattened_with_lines() {
        let mut got = get("# c\nstore = \"x\"\n\n[s3]\nallow_http = true\n[cache]\nmax_bytes = 0x10\n").unwrap();
        got.sort_by_key(|g| g.2);
        assert_eq!(
            got,
            [
                ("store".to_owned(), Raw::Text("x".into()), 2),
                ("s3.allow_http".to_owned(), Raw::Bool(true), 5),
                ("cache.max_bytes".to_owned(), Raw::Int(16), 7)
            ]
        );
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, line) in
            [("\nstore = oops\n", 2), ("a = 1\n\nb = 1.5", 3), ("x = [1]", 1), ("x = 99999999999999999999", 1), ("a = 1\na = 2", 2)]
        {
            let e = get(text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("/c.toml, line {line}:")), "{text:?}: {e}");
        }
    }
}
