# What the modules make of a configuration, for `tests/nix/main.rs`: as JSON. `lib` may be that of nixpkgs.
{ lib ? import ./minilib.nix }:

let
  b = builtins;
  systems = import ./systems.nix { inherit lib; };
  root = ../../nix;

  evaluate = { base, modules, system ? "x86_64-linux" }: (lib.evalModules {
    modules = [ base { _module.args.pkgs = import ./pkgs.nix { inherit lib system; }; } ] ++ modules;
  }).config;
  nixos = modules: evaluate { base = systems.nixos; inherit modules; };
  home = system: modules: evaluate { base = systems.homeManager; inherit system modules; };

  # Units, as NixOS and Home Manager write them.
  text = v: if v == true then "true" else if v == false then "false" else toString v;
  line = name: v: b.concatStringsSep "" (map (x: "${name}=${text x}\n") (if b.isList v then v else [ v ]));
  section = name: s: "[${name}]\n${b.concatStringsSep "" (lib.mapAttrsToList line s)}\n";
  unit = s:
    section "Unit" { Description = s.description; Documentation = s.documentation; After = s.after; }
    + section "Service" (s.serviceConfig // {
      Environment = lib.mapAttrsToList (n: v: b.toJSON "${n}=${v}") s.environment
      ++ lib.optional (s.path != [ ]) "\"PATH=${b.concatStringsSep ":" (map (p: "${p}/bin") s.path)}:/usr/bin:/bin\"";
    })
    + section "Install" { WantedBy = s.wantedBy; };
  userUnit = s: section "Unit" s.Unit + section "Service" s.Service + section "Install" s.Install;

  contents = f: if f.text != null then f.text else f.source.text;
  failed = config: map (a: a.message) (b.filter (a: !a.assertion) config.assertions);
  # What a configuration gives; an evaluation that fails gives `error`, without the reason (Nix keeps that to itself).
  attempt = given: let r = b.tryEval (b.deepSeq given given); in if r.success then r.value else { error = true; };

  nixosResult = modules:
    let c = nixos modules; in
    {
      failed = failed c;
      inherit (c) warnings;
      etc = b.mapAttrs (_: contents) c.environment.etc;
      units = b.mapAttrs (_: unit) c.systemd.services;
      users = c.users.users;
      userAllowOther = c.programs.fuse.userAllowOther;
      ports = c.networking.firewall.allowedTCPPorts;
    };
  homeResult = system: modules:
    let c = home system modules; in
    {
      failed = failed c;
      inherit (c) warnings;
      files = b.mapAttrs (_: contents) c.home.file;
      units = b.mapAttrs (_: userUnit) c.systemd.user.services;
      agents = b.mapAttrs (_: a: a.config) c.launchd.agents;
    };

  # Machines by name.
  nodes = b.mapAttrs (name: node: nixosResult [{ config.networking.hostName = name; } node]);

  # Every option below `set`, by its path.
  optionPaths = prefix: set: b.concatMap
    (n:
      let o = set.${n}; path = if prefix == "" then n else "${prefix}.${n}"; in
      if (o._type or "") == "option" then [ path ] else optionPaths path o)
    (b.filter (n: n != "_module") (b.attrNames set));
  declared = base: modules: (lib.evalModules {
    modules = [ base { _module.args.pkgs = import ./pkgs.nix { inherit lib; system = "x86_64-linux"; }; } ] ++ modules;
  }).options;

  each = make: map (c: attempt (make c));
in
{
  daemon = each (c: nixosResult [ (root + "/modules/tcfs-daemon.nix") { config.services.tcfsd = c; } ]);
  user = system: each (c: homeResult system [ (root + "/modules/tcfs-user.nix") { config.programs.tcfs = c; } ]);
  tummycrypt = system: each (c: homeResult system [ (root + "/home-manager/tummycrypt.nix") { config = c; } ]);
  nats = each (c: nixosResult [ (root + "/nats-leaf.nix") { config.networking.hostName = "yoga"; config.services.tcfs-nats = c; } ]);
  hosts = b.mapAttrs (_: h: { inherit (h) system; } // homeResult h.system [ h.module ]) (import (root + "/hosts"));

  labLeaf = nixosResult [ (root + "/hosts/yoga-leaf.nix") ];
  inherit nodes;
  fleet = nodes (import (root + "/tests/fleet.nix") { pkgs = { testers.runNixOSTest = t: t; }; }).nodes;

  options = {
    daemon = optionPaths "" (declared systems.nixos [ (root + "/modules/tcfs-daemon.nix") ]).services.tcfsd;
    user = optionPaths "" (declared systems.homeManager [ (root + "/modules/tcfs-user.nix") ]).programs.tcfs;
    tummycrypt = optionPaths "" (declared systems.homeManager [ (root + "/home-manager/tummycrypt.nix") ]).tinyland;
    nats = optionPaths "" (declared systems.nixos [ (root + "/nats-leaf.nix") ]).services.tcfs-nats;
    settings = optionPaths "" (import (root + "/modules/settings.nix") { inherit lib; });
  };
}
