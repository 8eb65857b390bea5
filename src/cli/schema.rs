//! `tcfs schema`: what `--json` prints, as JSON Schema made from the types that are printed.

use super::output::Output;
use super::printed::Printed;
use crate::daemon::protocol::{Item, Response};
use crate::error::{Error, Kind, Result};
use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

/// Which lines a command prints: by the `type` of each.
const LINES: &[(&str, &[&str])] = &[
    ("mount", &["mounted"]),
    ("unmount", &["unmounted"]),
    ("status", &["status"]),
    ("ls", &["entry", "listed"]),
    ("find", &["entry", "found"]),
    ("why", &["why"]),
    ("push", &["pushed"]),
    ("pull", &["pulled"]),
    ("hydrate", &["hydrated"]),
    ("unsync", &["unsynced"]),
    ("pin", &["pinned"]),
    ("unpin", &["unpinned"]),
    ("cache", &["cached", "cache"]),
    ("ignore", &["ignored", "ignoring"]),
    ("git", &["repository", "git"]),
    ("wait", &["waited"]),
    ("history", &["version", "history"]),
    ("restore", &["restored"]),
    ("diff", &["diff"]),
    ("log", &["change", "logged"]),
    ("trash", &["removed", "trash", "restored"]),
    ("conflicts", &["conflict", "parted", "conflicts", "diff"]),
    ("resolve-conflict", &["resolved"]),
    ("approve", &["held_back", "approved"]),
    ("adopt", &["adopted"]),
    ("gc", &["collected"]),
    ("device", &["device", "devices", "enrolled", "revoked"]),
    ("store", &["store", "store_moved", "store_copied"]),
    ("doctor", &["check", "checked"]),
    ("report", &["reported"]),
    ("daemon", &["started", "stopped", "status"]),
    ("service", &["installed", "uninstalled", "service", "file"]),
    ("config", &["setting", "config_path", "config_checked"]),
    ("man", &["pages"]),
];

/// Print the JSON Schema of what --json prints
///
/// One schema (draft 2020-12) that every line of the command's output matches; without COMMAND, of any command. Lines have a
/// field `type`; a list prints one object per element and its sum last; a command that fails prints {"error": …}. Fields are
/// only ever added.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tcfs schema ls
  tcfs schema > tcfs.schema.json")]
pub struct SchemaOf {
    /// Command
    command: Option<String>,
}

/// A command that failed, as it is printed.
#[derive(JsonSchema)]
#[allow(dead_code)] // a shape, never made
struct Failed {
    /// What failed.
    error: crate::daemon::protocol::WireError,
}

impl SchemaOf {
    pub fn run(&self, out: &Output) -> Result<u8> {
        let text = serde_json::to_string_pretty(&of(self.command.as_deref())?).unwrap_or_default();
        out.raw(&format!("{text}\n"));
        Ok(0)
    }
}

/// The schema of a line that a command prints; of any command.
fn of(command: Option<&str>) -> Result<Value> {
    let wanted = match command {
        None => None,
        Some(c) => {
            let known = LINES.iter().find(|(name, _)| *name == c);
            let names: Vec<&str> = LINES.iter().map(|(n, _)| *n).collect();
            let none = || Error::new(Kind::Usage, format!("no command {c:?} prints JSON")).hint(format!("one of: {}", names.join(", ")));
            Some(known.ok_or_else(none)?.1)
        }
    };
    let mut generator = SchemaGenerator::default();
    let mut lines = Vec::new();
    for schema in [Item::json_schema(&mut generator), Response::json_schema(&mut generator), Printed::json_schema(&mut generator)] {
        let all = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array).cloned().unwrap_or_default();
        lines.extend(all.into_iter().filter(|s| wanted.is_none_or(|w| type_of(s).is_some_and(|t| w.contains(&t)))));
    }
    lines.push(generator.subschema_for::<Failed>().to_value());
    let title = command.map_or("A line of tcfs --json".to_owned(), |c| format!("A line of tcfs {c} --json"));
    let mut schema = Schema::try_from(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "anyOf": lines,
    }))
    .map_err(|e| Error::new(Kind::Internal, "making a schema").source(e))?
    .to_value();
    schema["$defs"] = Value::Object(generator.take_definitions(true));
    keep_used(&mut schema);
    Ok(schema)
}

/// What a schema of a line says that its `type` is.
fn type_of(schema: &Value) -> Option<&str> {
    schema.get("properties")?.get("type")?.get("const")?.as_str()
}

/// Leaves out definitions that nothing refers to.
fn keep_used(schema: &mut Value) {
    loop {
        let text = schema.to_string();
        let Some(defs) = schema.get_mut("$defs").and_then(Value::as_object_mut) else { return };
        let before = defs.len();
        defs.retain(|name, _| text.contains(&format!("\"#/$defs/{name}\"")));
        if defs.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::protocol as p;

    #[test]
    fn every_type_of_the_table_is_one_that_is_printed() {
        let any = of(None).unwrap();
        let types: Vec<&str> = any["anyOf"].as_array().unwrap().iter().filter_map(type_of).collect();
        for (command, wanted) in LINES {
            for t in *wanted {
                assert!(types.contains(t), "{command} prints {t:?}, which is nothing: {types:?}");
            }
        }
        assert_eq!(of(Some("sl")).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn a_command_has_its_lines_and_its_errors_and_no_more() {
        let ls = of(Some("ls")).unwrap();
        let types: Vec<Option<&str>> = ls["anyOf"].as_array().unwrap().iter().map(type_of).collect();
        assert_eq!(types, [Some("entry"), Some("listed"), None]);
        let line = serde_json::to_value(p::Item::Entry(p::Entry::default())).unwrap();
        let entry = &ls["anyOf"][0];
        for required in entry["required"].as_array().unwrap() {
            assert!(line.get(required.as_str().unwrap()).is_some(), "{required}");
        }
        assert!(ls["$defs"].get("WireError").is_some() && ls["$defs"].get("Status").is_none());
    }
}
