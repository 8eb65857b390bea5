//! `tcfs mcp`, spoken to by the official SDK's own client over standard input and output.

use super::common::{Mounted, until};
use super::{SOON, in_conflict, sibling};
use rmcp::ServiceExt;
use rmcp::model::{CallToolRequestParams, CallToolResult, ReadResourceRequestParams, ResourceContents};
use rmcp::service::{Peer, RoleClient, RunningService};
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

type Running = RunningService<RoleClient, ()>;

async fn client(m: &Mounted) -> Running {
    let command = tokio::process::Command::from(m.tcfs(&["mcp"]));
    ().serve(TokioChildProcess::new(command).unwrap()).await.unwrap()
}

async fn call(peer: &Peer<RoleClient>, tool: &str, args: Value) -> CallToolResult {
    let args = args.as_object().unwrap().clone();
    peer.call_tool(CallToolRequestParams::new(tool.to_owned()).with_arguments(args)).await.unwrap()
}

/// A call that must work: its structured result, which its schema describes.
async fn ok(peer: &Peer<RoleClient>, tool: &str, args: Value) -> Value {
    let r = call(peer, tool, args).await;
    assert_ne!(r.is_error, Some(true), "{tool}: {r:?}");
    let value = r.structured_content.unwrap();
    let tools = peer.list_all_tools().await.unwrap();
    let tool = tools.into_iter().find(|t| t.name == tool).unwrap();
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("tool.json", Value::Object((*tool.output_schema.unwrap()).clone())).unwrap();
    let index = compiler.compile("tool.json", &mut schemas).unwrap();
    if let Err(e) = schemas.validate(&value, index) {
        panic!("{}: {value}\n{e}", tool.name);
    }
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_lists_reads_resolves_and_the_mounts_agree() {
    let (w, a, b) = in_conflict();
    let running = client(&a).await;
    let p = running.peer();
    let mut tools: Vec<String> = p.list_all_tools().await.unwrap().into_iter().map(|t| t.name.to_string()).collect();
    tools.sort();
    let mut wanted = [
        "daemon_status",
        "device_status",
        "sync_status",
        "list_conflicts",
        "resolve_conflict",
        "hydrate",
        "unsync",
        "pin",
        "push",
        "pull",
        "history",
        "restore",
        "why",
        "list",
    ];
    wanted.sort_unstable();
    assert_eq!(tools, wanted);
    for t in p.list_all_tools().await.unwrap() {
        let notes = t.annotations.unwrap();
        let reads = ["daemon_status", "device_status", "sync_status", "list_conflicts", "history", "why", "list"].contains(&&*t.name);
        assert_eq!(notes.read_only_hint, Some(reads), "{}", t.name);
        let destroys = ["resolve_conflict", "push", "pull", "restore"].contains(&&*t.name);
        assert!(reads || notes.destructive_hint == Some(destroys), "{}", t.name);
        assert!(t.description.is_some_and(|d| d.len() > 20), "{}", t.name);
    }

    let status = ok(p, "daemon_status", json!({})).await;
    assert_eq!((&status["device"]["name"], &status["conflicts"]), (&json!("ann"), &json!(1)));
    let devices = ok(p, "device_status", json!({})).await;
    assert_eq!((&devices["total"], &devices["active"]), (&json!(2), &json!(2)));
    for d in devices["devices"].as_array().unwrap() {
        for field in ["name", "device_id", "public_key", "enrolled_at", "revoked", "last_nats_seq", "description"] {
            assert!(d.get(field).is_some(), "{field} in {d}");
        }
    }
    let sync = ok(p, "sync_status", json!({})).await;
    assert_eq!((&sync["in_sync"], &sync["conflicts"]), (&json!(false), &json!(1)));

    let conflicts = ok(p, "list_conflicts", json!({})).await;
    assert_eq!((&conflicts["total"], &conflicts["conflicts"][0]["path"]), (&json!(1), &json!("plan.md")));
    let deferred = ok(p, "resolve_conflict", json!({"path": "plan.md", "resolution": "defer"})).await;
    assert_eq!(deferred, json!({"success": true, "resolved_path": "plan.md", "error": null}));
    let local = conflicts["conflicts"][0]["heads"].as_array().unwrap().iter().find(|h| h["own"] == true).unwrap().clone();
    assert_eq!(local["device"]["name"], "ann");
    let resolved = ok(p, "resolve_conflict", json!({"path": "plan.md", "resolution": "keep_local"})).await;
    assert_eq!(resolved, json!({"success": true, "resolved_path": "plan.md", "error": null}));
    for m in [&a, &b] {
        until("the mounts agree", SOON, || {
            let same = fs::read(m.path("plan.md")).ok()? == b"from ann\n";
            (same && !m.path(sibling("plan.md")).exists() && !m.path(super::other("plan.md")).exists()).then_some(())
        });
    }
    let again = ok(p, "resolve_conflict", json!({"path": "plan.md", "resolution": "keep_both"})).await;
    assert!(again["success"] == false && again["error"].as_str().unwrap().contains("not in conflict"), "{again}");

    // Copies in and out, history, restore, pins.
    let source = w.dir().join("report.txt");
    fs::write(&source, "one").unwrap();
    let pushed = ok(p, "push", json!({"source": source, "to": "notes/report.txt"})).await;
    assert_eq!(pushed["files"], 1);
    fs::write(&source, "two").unwrap();
    ok(p, "push", json!({"source": source, "to": "notes/report.txt"})).await;
    let versions = ok(p, "history", json!({"path": "notes/report.txt"})).await;
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    let first = versions["versions"][1]["version"].clone();
    ok(p, "restore", json!({"path": "notes/report.txt", "version": first})).await;
    let out = w.dir().join("out.txt");
    ok(p, "pull", json!({"path": "notes/report.txt", "destination": out})).await;
    assert_eq!(fs::read(&out).unwrap(), b"one");
    let listing = ok(p, "list", json!({"path": "notes"})).await;
    assert_eq!(listing["entries"][0]["path"], "notes/report.txt");
    assert_eq!(ok(p, "pin", json!({"path": "notes"})).await["pinned"], true);
    let kept = ok(p, "unsync", json!({"path": "notes"})).await;
    assert_eq!(kept["kept"][0]["why"], "pinned");
    assert_eq!(ok(p, "pin", json!({"path": "notes", "unpin": true})).await["pinned"], false);
    ok(p, "unsync", json!({"path": "notes"})).await;
    assert_eq!(ok(p, "why", json!({"path": "notes/report.txt"})).await["residence"], "stub");
    assert_eq!(ok(p, "hydrate", json!({"path": "notes"})).await["files"], 1);

    // The control files.
    let resources = p.list_all_resources().await.unwrap();
    assert_eq!(resources.len(), 7);
    for r in resources {
        let got = p.read_resource(ReadResourceRequestParams::new(r.uri.clone())).await.unwrap();
        let ResourceContents::TextResourceContents { text, .. } = &got.contents[0] else { panic!("{}", r.uri) };
        if r.uri.ends_with(".json") {
            serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{}: {e}", r.uri));
        }
        assert!(!text.is_empty(), "{}", r.uri);
    }
    assert!(p.read_resource(ReadResourceRequestParams::new("tcfs:///etc/passwd")).await.is_err());
    running.cancel().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_and_a_daemon_that_went_away_is_found_again() {
    let w = super::World::new();
    let a = w.mount("ann");
    let running = client(&a).await;
    let p = running.peer();
    for (tool, args, says) in [
        ("history", json!({"path": "never"}), "no such file"),
        ("why", json!({"path": "never"}), "ever was"),
        ("why", json!({"path": 5}), "invalid type"),
        ("why", json!({}), "missing field"),
        ("why", json!({"path": "x", "more": 1}), "unknown field"),
        ("push", json!({"source": "relative"}), "not absolute"),
        ("restore", json!({"path": "x", "at": "tomorrow"}), "such as"),
        ("resolve_conflict", json!({"path": "x", "resolution": "burn"}), "unknown variant"),
        ("list", json!({"path": "a/../../b"}), "a/../../b"),
    ] {
        let r = call(p, tool, args.clone()).await;
        let text = format!("{:?}", r.content);
        assert!(r.is_error == Some(true) && text.contains(says), "{tool} {args}: {text}");
    }
    assert!(p.call_tool(CallToolRequestParams::new("format_disk")).await.is_err());
    a.unmount();
    let r = call(p, "daemon_status", json!({})).await;
    assert!(r.is_error == Some(true) && format!("{r:?}").contains("no_daemon"), "{r:?}");
    a.mount();
    assert_eq!(ok(p, "daemon_status", json!({})).await["device"]["name"], "ann");
    running.cancel().await.unwrap();
}

/// Whatever comes in, it goes on, or ends when its input does; never with a crash.
#[test]
fn lines_that_are_no_messages_do_no_harm() {
    let w = super::World::new();
    let a = w.mount("ann");
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}});
    let mut child = a.tcfs(&["mcp"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut say = |text: &str| writeln!(to, "{text}").unwrap();
    say(&hello.to_string());
    assert!(from.next().unwrap().unwrap().contains("serverInfo"));
    say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    for bad in [
        "",
        "x",
        "{",
        "[]",
        "{}",
        "null",
        "\u{0}\u{1}",
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":5}",
        &"[".repeat(10_000),
        &"a".repeat(200_000),
    ] {
        say(bad);
    }
    say(&json!({"jsonrpc": "2.0", "id": 7, "method": "no/such"}).to_string());
    say(&json!({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {"name": "daemon_status", "arguments": {}}}).to_string());
    let answer = from.map(Result::unwrap).find(|l| l.contains("\"id\":8")).unwrap();
    assert!(answer.contains("structuredContent"), "{answer}");
    drop(to);
    assert!(child.wait().unwrap().success());
}
