# The few of nixpkgs' packages that the modules name, as places on this machine, and the functions they call.
{ system, lib }:

let
  b = builtins;
  at = path: name: { outPath = path; pname = name; inherit name; type = "derivation"; };

  # TOML: tables after what is no table. A JSON string is a TOML string.
  value = v: if b.isList v then "[${b.concatStringsSep ", " (map value v)}]" else b.toJSON v;
  table = prefix: s:
    let
      of = p: b.filter (n: p s.${n}) (b.attrNames s);
      name = n: b.toJSON n;
      lines = map (n: "${name n} = ${value s.${n}}\n") (of (v: !(b.isAttrs v)));
      tables = map (n: "\n[${prefix}${name n}]\n${table "${prefix}${name n}." s.${n}}") (of b.isAttrs);
    in
    b.concatStringsSep "" (lines ++ tables);
in
rec {
  inherit system;
  stdenv.hostPlatform = {
    inherit system;
    isDarwin = b.match ".*-darwin" system != null;
    isLinux = b.match ".*-linux" system != null;
  };
  tcfs = at "/opt/tcfs" "tcfs";
  coreutils = at "/usr" "coreutils";
  git = at "/usr" "git";
  nats-server = at "/opt/nats" "nats-server";
  seaweedfs = at "/opt/weed" "seaweedfs";
  writeText = name: text: { inherit name text; outPath = "/nix/store/00000000000000000000000000000000-${name}"; };
  formats.toml = _: {
    type = lib.types.attrsOf lib.types.anything;
    generate = name: v: writeText name (table "" v);
  };
}
