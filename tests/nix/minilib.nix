# minilib.nix: own ~100-line stand-in for the part of nixpkgs `lib` a small module uses (no nixpkgs code).
# Same call shape as lib.evalModules, so tests take `lib ? import ./minilib.nix` and accept the real lib when present.
let
  b = builtins;
  isOpt = x: b.isAttrs x && (x._type or "") == "option";
  isTyped = t: x: b.isAttrs x && (x._type or "") == t;
  setByPath = path: v: if path == [ ] then v else { ${b.head path} = setByPath (b.tail path) v; };
  show = b.concatStringsSep ".";
  recUpd = l: r: l // b.mapAttrs (n: v: if b.isAttrs v && b.isAttrs (l.${n} or null) && !(v ? _type) && !(l.${n} ? _type) then recUpd l.${n} v else v) r;
  # property handling: flatten mkIf / mkMerge / mkDefault / mkForce into [{ prio; value; }]
  props = prio: v:
    if isTyped "if" v then (if v.condition then props prio v.content else [ ])
    else if isTyped "merge" v then b.concatMap (props prio) v.contents
    else if isTyped "override" v then props v.priority v.content
    else [{ inherit prio; value = v; }];
  pushDown = v: # mkIf/mkMerge above attrs -> list of plain attrs whose leaves keep the wrapper
    if isTyped "if" v then map (b.mapAttrs (_: x: { _type = "if"; inherit (v) condition; content = x; })) (pushDown v.content)
    else if isTyped "merge" v then b.concatMap pushDown v.contents
    else if isTyped "override" v then map (b.mapAttrs (_: x: { _type = "override"; inherit (v) priority; content = x; })) (pushDown v.content)
    else [ v ];
  best = defs: let m = b.foldl' (a: d: if d.prio < a then d.prio else a) 9999 defs; in map (d: d.value) (b.filter (d: d.prio == m) defs);
  mkType = name: check: merge: { _type = "option-type"; inherit name check merge; };
  one = name: loc: vs: if b.length vs == 1 || b.all (v: v == b.head vs) vs then b.head vs else throw "conflicting definitions for option `${show loc}' (${name})";
  scalar = name: check: mkType name check (one name);
  types = rec {
    str = scalar "string" b.isString;
    singleLineStr = str;
    nonEmptyStr = scalar "non-empty string" (x: b.isString x && x != "");
    bool = scalar "boolean" b.isBool;
    int = scalar "integer" b.isInt;
    package = scalar "package" (x: b.isAttrs x && x ? outPath || b.isString x);
    raw = scalar "raw" (_: true);
    anything = mkType "anything" (_: true) (loc: vs: if b.all b.isAttrs vs then b.foldl' recUpd { } vs else one "anything" loc vs);
    unspecified = anything;
    path = scalar "path" (x: b.isPath x || (b.isString x && b.substring 0 1 x == "/"));
    float = scalar "float" b.isFloat;
    attrs = mkType "attrs" b.isAttrs (_loc: vs: b.foldl' (a: v: a // v) { } vs);
    lines = mkType "lines" b.isString (_: vs: b.concatStringsSep "\n" vs);
    number = either int float;
    port = ints.between 0 65535;
    ints = { between = lo: hi: scalar "integer between ${toString lo} and ${toString hi}" (x: b.isInt x && x >= lo && x <= hi); positive = scalar "positive integer" (x: b.isInt x && x > 0); unsigned = scalar "unsigned integer" (x: b.isInt x && x >= 0); u16 = ints.between 0 65535; };
    enum = xs: scalar "one of ${b.toJSON xs}" (x: b.elem x xs);
    strMatching = re: scalar "string matching ${re}" (x: b.isString x && b.match re x != null);
    nullOr = t: mkType "null or ${t.name}" (x: x == null || t.check x) (loc: vs: if b.all (v: v == null) vs then null else t.merge loc vs);
    either = x: y: mkType "${x.name} or ${y.name}" (v: x.check v || y.check v) (loc: vs: if b.all x.check vs then x.merge loc vs else y.merge loc vs);
    oneOf = ts: b.foldl' either (b.head ts) (b.tail ts);
    listOf = t: mkType "list of ${t.name}" b.isList (loc: vs: map (v: mergeDefs (loc ++ [ "*" ]) t [ v ]) (b.concatLists vs));
    attrsOf = t: mkType "attribute set of ${t.name}" b.isAttrs (loc: vs: b.mapAttrs (n: ds: mergeDefs (loc ++ [ n ]) t ds) (b.zipAttrsWith (_: x: x) vs));
    lazyAttrsOf = attrsOf;
    submodule = m: mkType "submodule" (x: b.isAttrs x || b.isFunction x) (loc: vs: (evalModules { prefix = loc; modules = (if b.isList m then m else [ m ]) ++ map (v: { config = v; }) vs; }).config);
    functionTo = _t: scalar "function" b.isFunction;
  };
  mergeDefs = loc: t: raw:
    let vs = best (b.concatMap (props 100) raw); bad = b.filter (v: !t.check v) vs; in
    if bad != [ ] then throw "A definition for option `${show loc}' is not of type `${t.name}'" else t.merge loc vs;
  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      call = m: if b.isFunction m then m (b.mapAttrs (n: _: argFor n) (b.functionArgs m)) else if b.isPath m || b.isString m then call (import m) else m;
      norm = m: let x = call m; in if x ? options || x ? config then { options = x.options or { }; config = x.config or { }; imports = x.imports or [ ]; freeform = (x.config or { })._freeform or x.freeformType or x.options._freeform or null; } else { options = { }; config = removeAttrs x [ "imports" ]; imports = x.imports or [ ]; freeform = x.freeformType or null; };
      collect = ms: b.concatMap (m: let n = norm m; in [ n ] ++ collect n.imports) ms;
      all = collect modules;
      freeform = b.foldl' (a: m: if m.freeform != null then m.freeform else a) null all;
      options = b.foldl' recUpd { } (map (m: removeAttrs m.options [ "_freeform" ]) all);
      cfgs = let r = b.foldl' (a: x: [ x ] ++ a) [ ]; in r (b.concatMap (m: pushDown m.config) all);
      margs = b.foldl' (a: c: a // (c._module.args or { })) { } cfgs;
      go = loc: opts: defs:
        let
          known = b.mapAttrs
            (n: o:
              let ds = b.concatMap (d: if d ? ${n} then [ d.${n} ] else [ ]) defs; l = loc ++ [ n ]; in
              if isOpt o then (let flat = b.concatMap (props 100) ds; in if flat == [ ] then (if o ? default then (o.apply or (x: x)) o.default else throw "The option `${show l}' was accessed but has no value defined.") else (o.apply or (x: x)) (mergeDefs l (o.type or types.anything) ds))
              else go l o (b.concatMap pushDown ds))
            opts;
          extra = b.filter (n: !(opts ? ${n}) && n != "_module") (b.concatMap b.attrNames defs);
          free = b.listToAttrs (map (n: { name = n; value = mergeDefs (loc ++ [ n ]) (freeform.nestedTypes.elemType or types.anything) (b.concatMap (d: if d ? ${n} then [ d.${n} ] else [ ]) defs); }) extra);
        in
        if extra == [ ] then known else if freeform != null then known // free else throw "The option `${show (loc ++ [ (b.head extra) ])}' does not exist.";
      config = go prefix options cfgs;
      base = { inherit config options; lib = self; } // specialArgs;
      argFor = n: if base ? ${n} then base.${n} else margs.${n};
    in
    { inherit config options; };
  self = rec {
    inherit evalModules types; inherit (b) attrNames attrValues concatMap concatStringsSep elem filter head isString length map mapAttrs match toJSON tail trace;
    mkOption = o: o // { _type = "option"; };
    mkEnableOption = d: mkOption { type = types.bool; default = false; description = "Whether to enable ${d}."; };
    mkPackageOption = pkgs: name: _o: mkOption { type = types.package; default = pkgs.${name}; description = "package"; };
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    optional = c: x: if c then [ x ] else [ ];
    optionals = c: x: if c then x else [ ];
    optionalString = c: s: if c then s else "";
    optionalAttrs = c: s: if c then s else { };
    filterAttrs = p: s: b.listToAttrs (b.concatMap (n: if p n s.${n} then [{ name = n; value = s.${n}; }] else [ ]) (b.attrNames s));
    mapAttrsToList = f: s: map (n: f n s.${n}) (b.attrNames s);
    nameValuePair = name: value: { inherit name value; };
    escapeShellArg = s: "'" + b.replaceStrings [ "'" ] [ "'\\''" ] (toString s) + "'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;
    concatMapStringsSep = sep: f: l: b.concatStringsSep sep (map f l);
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    mdDoc = x: x;
    getExe = p: "${p}/bin/${p.meta.mainProgram or p.pname or p.name}";
    getExe' = p: n: "${p}/bin/${n}";
    hasPrefix = p: s: b.substring 0 (b.stringLength p) s == p;
    id = x: x;
    recursiveUpdate = recUpd;
    genAttrs = ns: f: b.listToAttrs (map (n: { name = n; value = f n; }) ns);
    setAttrByPath = setByPath;
  };
in
self
