//! Replays recorded fleets, step by step, and compares the trees (`tests/model/generate.py` says where they are from).

#![allow(clippy::unwrap_used)]

#[path = "common/fleet.rs"]
mod fleet;

use fleet::{Device, World, file, link};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use tcfs::model::Kind;
use tcfs::model::resolve::Keep;

#[derive(Deserialize)]
struct Trace {
    name: String,
    devices: Vec<(String, String)>,
    steps: Vec<Vec<Value>>,
}

fn do_step(w: &mut World, d: &mut Device, image: &mut Option<Device>, op: &str, args: &[Value]) {
    let text = |i: usize| args[i].as_str().unwrap();
    let kind = |i: usize| -> Kind { if args.get(i + 1).and_then(Value::as_str) == Some("L") { link(text(i)) } else { file(text(i)) } };
    match op {
        "write" => d.write(w, text(0), kind(1)),
        "save" => d.save(w, text(0), file(text(1))),
        "mkdir" => d.mkdir(w, text(0)),
        "chmod" => d.chmod(w, text(0), args[1].as_u64().map(|m| m as u32), args[2].as_i64()),
        "rm" => d.rm(w, text(0)),
        "rmr" => d.rmr(w, text(0)),
        "mv" => d.mv(w, text(0), text(1)),
        "keep" => {
            let keep = HashMap::from([("both", Keep::Both), ("local", Keep::Local), ("remote", Keep::Remote)]);
            d.keep(w, text(0), &keep[text(1)]);
        }
        "publish" => d.publish(w, args[0].as_u64().unwrap() as usize, args[1].as_str()),
        "apply" => d.apply_from(w, text(0), args[1].as_u64()),
        "image" => *image = Some(d.clone()),
        "restore" => *d = image.clone().expect("an image was taken before"),
        other => panic!("unknown step {other}"),
    }
}

#[test]
fn every_recorded_fleet_shows_the_same_trees_step_by_step() {
    let traces: Vec<Trace> = serde_json::from_str(include_str!("model/traces.json")).unwrap();
    assert!(traces.len() > 300, "the traces are there");
    for trace in traces {
        let mut w = World::default();
        let mut devices: Vec<Device> = trace.devices.iter().map(|(n, m)| w.device(n, m.parse().unwrap())).collect();
        let mut images: Vec<Option<Device>> = devices.iter().map(|_| None).collect();
        let mut trees: Vec<BTreeMap<String, String>> = devices.iter().map(|_| BTreeMap::new()).collect();
        for (n, step) in trace.steps.iter().enumerate() {
            let i = step[0].as_u64().unwrap() as usize;
            let tree = step.last().filter(|v| v.is_object());
            let args = &step[2..step.len() - usize::from(tree.is_some())];
            do_step(&mut w, &mut devices[i], &mut images[i], step[1].as_str().unwrap(), args);
            if let Some(t) = tree {
                trees[i] = serde_json::from_value(t.clone()).unwrap();
            }
            let what = || format!("{}: step {n} {step:?}\n{:#?}", trace.name, devices[i].entries);
            assert_eq!(devices[i].tree(), trees[i], "{}", what());
        }
    }
}
