//! The files of the control directory as resources: `tcfs:///status.json` and so on.

use super::{Drive, unexpected};
use crate::daemon::protocol::{Request, Response, ToldFile};
use crate::error::Kind;
use rmcp::ErrorData;
use rmcp::model::{ListResourcesResult, ReadResourceResponse, ReadResourceResult, Resource, ResourceContents};

const SCHEME: &str = "tcfs:///";

/// Name, type, what it is.
const FILES: [(&str, &str, &str); 7] = [
    ("status.json", "application/json", "State of the drive on this machine"),
    ("devices.json", "application/json", "Machines of the fleet, as far as known here"),
    ("conflicts.json", "application/json", "Files that several machines changed at once"),
    ("pending.json", "application/json", "What is not in the store yet"),
    ("metrics", "text/plain", "Counters and gauges in Prometheus' text format"),
    ("events", "application/jsonl", "What happened last, a line of JSON each"),
    ("log", "text/plain", "The end of the daemon's log"),
];

pub(super) fn list() -> ListResourcesResult {
    let of = |(name, mime, about): &(&str, &str, &str)| {
        Resource::new(format!("{SCHEME}{name}"), *name).with_mime_type(*mime).with_description(*about)
    };
    ListResourcesResult::with_all_items(FILES.iter().map(of).collect())
}

pub(super) async fn read(drive: &Drive, uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    let found = uri.strip_prefix(SCHEME).and_then(|n| FILES.iter().find(|(name, ..)| *name == n));
    let Some((name, mime, _)) = found else {
        return Err(ErrorData::resource_not_found(format!("{uri}: no such resource"), None));
    };
    let failed = |e: crate::error::Error| {
        let hint = e.hint_text().map_or(String::new(), |h| format!(" ({h})"));
        let text = format!("{e}{hint}");
        if e.kind() == Kind::NotFound { ErrorData::resource_not_found(text, None) } else { ErrorData::internal_error(text, None) }
    };
    let answer = drive.ask(Request::Told(ToldFile { name: (*name).to_owned() })).await.map_err(failed)?.1;
    let Response::Told(t) = answer else { return Err(failed(unexpected(&answer))) };
    let contents = ResourceContents::text(t.text, uri).with_mime_type(*mime);
    Ok(ReadResourceResult::new(vec![contents]).into())
}
