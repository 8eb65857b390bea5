#!/usr/bin/env python3
"""Writes traces.json: operations on small fleets with the trees that result, from the executable model of the rules.

Usage: generate.py MODEL_DIR > traces.json      (MODEL_DIR has m.py, rows.py, sim.py)

The traces are committed; tests/model_traces.rs replays them and needs neither Python nor the model. Where the rules in
src/model/MERGE.md say more than the model does, the class below adds it, so that trees can be compared step by step.
"""
import copy
import itertools
import json
import os
import random
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # the model iterates over sets of strings
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable] + sys.argv)
sys.path.insert(0, sys.argv[1])
import m  # noqa: E402
import rows  # noqa: E402
import sim  # noqa: E402


class Heads(frozenset):
    """Heads in order of precedence, so that a run does not depend on hashes of strings."""

    def __iter__(self):
        return iter(sorted(super().__iter__(), key=m.okey))


plain_norm = m.norm
m.norm = lambda vs, rules: Heads(plain_norm(vs, rules))


class Dev(m.Dev):
    """The model's device, recording what is done to it."""

    depth, moving_directory, in_conflict = 0, False, ()

    def __init__(self, world, name, rules, cm="auto", idx=None):
        super().__init__(world, name, rules, cm, idx)
        if not hasattr(world, "steps"):
            world.steps, world.devices = [], []
        self.number, self.last_tree = len(world.devices), None
        world.devices.append([name, cm])

    # -- what the rules say beyond the model
    def view(self, cm=None):
        out = super().view(cm)
        for p, node in out.items():
            shown = [v for _, g in node.sibs for v in g]
            empty = [v for v in self.live(p) if v.kind == "F" and v.content == ""]
            hidden = all(v.base is None and v not in shown and v is not node.shown for v in empty)
            # An operation on a sibling also accepts the empty creates that hide beside it.
            node.sibs = [(h, g + (empty if hidden and h.kind == "F" and h.content else [])) for h, g in node.sibs]
        return out

    def keep(self, p, how):
        if how == "both":
            return self.recorded("keep", m.Dev.keep, p, how)
        return self.recorded("keep", Dev.keep_one, p, how)

    def keep_one(self, p, how):
        """Local is the head of this device's own place, remote the first other one."""
        n = self.view().get(p)
        if not n or not n.sibs or n.isdir:
            return
        visible = [n.shown] + [h for h, _ in n.sibs]
        local = next((v for v in visible if v.filed[1] == self.id), n.shown)
        v = local if how == "local" else next(v for v in visible if v is not local)
        b = []
        self.mk(b, p, v.kind, v.content, list(self.E[p]), m.hsh(n.shown), mode=v.mode)
        self.seal(b)

    def _mv1(self, b, p, sh, group, mode, mtime, dst, tn):
        """In the move of a directory, the shown head of a conflict keeps its place as its siblings do."""
        if not self.moving_directory or p not in self.in_conflict:
            return super()._mv1(b, p, sh, group, mode, mtime, dst, tn)
        accepted = list(self.E.get(dst, ()))
        self.mk(b, dst, sh.kind, sh.content, accepted, None, mode=mode, mtime=mtime, filed=sh.filed)
        self.mk(b, p, "T", "", group, m.hsh(sh), moved_to=dst, wrote=sh.clock)

    def move(self, src, dst, batch):
        view = self.view()
        self.in_conflict = {p for p, n in view.items() if n.sibs}
        name = self.names(view)[src]
        self.moving_directory = name[1] is None and view[name[0]].isdir
        m.Dev.mv(self, src, dst, batch)

    def heal(self, tomb):
        """As the model, but never to a path that this device has itself moved the head from meanwhile."""
        own = lambda t, h: any(x.kind == "T" and x.dev == self.id and x.moved_to == h for x in self.E.get(t, ()))  # noqa: E731
        here = self.E.get(tomb.path, ())
        if tomb not in here:
            return
        mine = lambda k: k == self.id or k.startswith(self.id + ".")  # noqa: E731
        wrote = m.D(tomb.wrote)
        todo = [
            (h, tomb.moved_to)
            for h in here
            if h.kind != "T"
            and h.dev == self.id
            and h.clock != tomb.clock
            and tomb.wrote
            and m.ge(h.clock, tomb.wrote)
            and all(mine(k) or wrote.get(k) == n for k, n in h.clock)
        ]
        moved_dir = lambda a: any(x.kind == "T" and x.moved_to and x.base is None for x in self.E.get(a, ()))  # noqa: E731
        if tomb.base is None:
            for q in sorted(self.E):
                if not q.startswith(tomb.path + "/") or any(x.kind == "T" for x in self.E[q]):
                    continue
                if next((a for a in m.parents(q) if moved_dir(a)), None) == tomb.path:
                    todo += [(h, tomb.moved_to + q[len(tomb.path) :]) for h in self.live(q) if h.dev == self.id]
        b = []
        for h, t in todo:
            seen = {h.path}
            while t not in seen and self.E.get(t) and not self.live(t):
                onward = [x for x in self.E[t] if x.moved_to]
                if not onward:
                    break
                seen.add(t)
                t = onward[0].moved_to
            if t == h.path or t in h.healed or own(t, h.path):
                continue
            acc = [x for x in self.E.get(t, ()) if x.kind == "T" or (tomb.base and m.hsh(x) == tomb.base) or m.hsh(x) == m.hsh(h)]
            self.mk(b, t, h.kind, h.content, acc, tomb.base, mode=h.mode, mtime=h.mtime, healed=h.healed + (h.path,))
            gone = [h] + [x for x in self.E[h.path] if x.kind == "T"]
            self.mk(b, h.path, "T", "", gone, m.hsh(h), moved_to=t, wrote=h.clock)
        self.seal(b)

    def spans(self):
        """Sealed batches that must stay together: from the first to the last version of a path."""
        last = {v.path: i for i, b in enumerate(self.outbox) for v in b}
        out, start, end = [], 0, 0
        for i, b in enumerate(self.outbox):
            end = max([end, i] + [last[v.path] for v in b])
            if end == i:
                out.append(self.outbox[start : i + 1])
                start = i + 1
        return out

    def coalesced(self):
        out = []
        for span in self.spans():
            flat = [v for b in span for v in b]
            if len(span) == 1 and len({v.path for v in flat}) == len(flat):
                out.append(flat)
                continue
            by_path = {}
            for v in flat:
                by_path.setdefault(v.path, []).append(v)
            keep = [v for v in flat if not any(m.covers(w, v, self.R) for w in by_path[v.path])]
            made_here = {p for p, vs in by_path.items() if any(v.kind != "T" for v in vs)}
            live = {v.path for v in keep if v.kind != "T"}
            gone = {v.path: v.moved_to for v in keep if v.kind == "T" and v.path in made_here and not self.pub.get(v.path)}
            res = []
            for v in keep:
                if v.kind == "T" and v.path in gone and v.path not in live:
                    self.E.pop(v.path, None)
                    self.actors.pop(v.path, None)
                    continue
                if v.kind == "T" and v.moved_to in gone:
                    t, seen = v.moved_to, set()
                    while t in gone and t not in seen:
                        seen.add(t)
                        t = gone[t]
                    new = m.replace(v, moved_to=t if t != v.path else None)
                    self.E[v.path] = Heads(new if x == v else x for x in self.E[v.path])
                    v = new
                res.append(v)
            if res:
                out.append(res)
        return out

    def publish_(self, crash=None, maxobj=99):
        for _ in range(maxobj):
            if self.inflight is None:
                self.outbox = self.coalesced()
                if not self.outbox:
                    return
                self.inflight = (self.seq + 1, tuple(self.outbox.pop(0)))
            seq, obj = self.inflight
            if crash == "before_put":
                return
            log = self.w.log.setdefault(self.id, {})
            if seq in log and log[seq] != obj:
                self.newid()
                continue
            log[seq] = obj
            if crash == "after_put":
                return
            self.seq = seq
            for v in obj:
                self.pub[v.path] = True
            self.inflight = None

    # -- recording
    def state(self):
        return (self.E, self.outbox, self.cur, self.seq, self.inflight, self.id, len(self.w.log.get(self.id, ())))

    def recorded(self, op, f, *args):
        self.depth += 1
        before = None if self.depth > 1 else copy.deepcopy(self.state())
        try:
            return f(self, *args)
        finally:
            self.depth -= 1
            if self.depth == 0 and before != self.state():
                self.step(op, *[int(a) if isinstance(a, bool) else a for a in args])

    def step(self, op, *args):
        tree = {}
        for name, what in self.tree(self.cm).items():
            tree[name] = what if isinstance(what, str) else f"{what[0]}|{what[1][2:]}"
        step = [self.number, op, *args]
        if tree != self.last_tree:
            self.last_tree = tree
            step.append(tree)
        self.w.steps.append(step)

    def write(self, name, content, seal=True, batch=None, kind="F", base="auto", filed=None):
        return self.recorded("write", lambda s, *a: m.Dev.write(s, name, content, kind=kind), name, content, kind)

    def mkdir(self, p, batch=None):
        return self.recorded("mkdir", lambda s, p: m.Dev.mkdir(s, p, batch), p)

    def chmod(self, name, mode=None, mtime=None):
        return self.recorded("chmod", m.Dev.chmod, name, mode, mtime)

    def rm(self, name, batch=None):
        return self.recorded("rm", lambda s, name: m.Dev.rm(s, name, batch), name)

    def rmr(self, d):
        return self.recorded("rmr", m.Dev.rmr, d)

    def mv(self, src, dst, batch=None):
        return self.recorded("mv", lambda s, a, b: s.move(a, b, batch), src, dst)

    def save(self, f, content):
        return self.recorded("save", m.Dev.save, f, content)

    def publish(self, crash=None, maxobj=99):
        return self.recorded("publish", lambda s, n, c: Dev.publish_(s, c, n), maxobj, crash)

    def apply_from(self, did, upto=None):
        return self.recorded("apply", m.Dev.apply_from, did, upto)


rows.Dev = Dev


def from_rows():
    out = []
    for key, row in rows.rows.items():
        for setup, first, swap, seed in (("X", "A", False, None), ("A", "B", False, None), ("B", "A", True, 1)):
            worlds = []
            rows.World = lambda: worlds.append(m.World()) or worlds[-1]
            try:
                rows.run(row, m.FIX, setup, first, swap, random.Random(seed) if seed else None)
            except (KeyError, IndexError):
                pass  # a role that this row does not have; what was done until then still is a trace
            w = worlds[0]
            out.append({"name": f"row {key} {setup}{first}{'s' if swap else ''}", "devices": w.devices, "steps": w.steps})
    return out


def random_fleet(seed, steps=45):
    rnd, w, ctr = random.Random(seed), m.World(), itertools.count(1)
    rollback = seed % 3 == 0
    ds = [Dev(w, n, m.FIX, cm=rnd.choice(["auto", "auto", "interactive"])) for n in ("ann", "bob", "cat")]
    for p in ("a", "b"):
        ds[0].mkdir(p)
    ds[0].write("a/a", "i1")
    ds[0].write("b/b", "i2")
    m.settle(ds)
    images = {}
    for _ in range(steps):
        i, x = rnd.randrange(3), rnd.random()
        d = ds[i]
        if x < 0.55:
            try:
                sim.ops(rnd, d, ctr)
            except AssertionError:
                pass  # the simulation's own expectations; here only the steps matter
        elif x < 0.75:
            d.publish(maxobj=rnd.choice([1, 99]), crash=rnd.choice([None, None, "before_put", "after_put"]))
        else:
            o = rnd.choice(list(w.log))
            d.apply_from(o, upto=d.cur.get(o, 0) + rnd.choice([1, 1, 5]))
        if rollback:
            y = rnd.random()
            if y < 0.05:
                images[i] = copy.deepcopy({k: v for k, v in d.__dict__.items() if k not in ("w", "last_tree")})
                w.steps.append([i, "image"])
            elif y < 0.08 and i in images:
                d.__dict__.update(copy.deepcopy(images[i]))
                d.step("restore")
    m.settle(ds)
    return {"name": f"fleet {seed}", "devices": w.devices, "steps": w.steps}


if __name__ == "__main__":
    traces = from_rows() + [random_fleet(seed) for seed in range(1, 481)]
    print("[")
    print(",\n".join(json.dumps(t, separators=(",", ":")) for t in traces))
    print("]")
