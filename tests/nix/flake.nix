{
  description = "A stand-in for nixpkgs: what the project's flake takes from it, with packages that nothing builds";

  outputs = _:
    let
      lib = import ./minilib.nix // {
        licenses = { mit = "mit"; asl20 = "asl20"; };
        platforms = { linux = [ "x86_64-linux" "aarch64-linux" ]; darwin = [ "x86_64-darwin" "aarch64-darwin" ]; };
      };
      legacyPackages = lib.genAttrs (lib.platforms.linux ++ lib.platforms.darwin) (system:
        let
          build = name: more: derivation ({ inherit name system; builder = "/bin/sh"; } // more);
          named = lib.genAttrs [
            "attr"
            "bindfs"
            "btrfs-progs"
            "cargo"
            "cargo-nextest"
            "clippy"
            "coreutils"
            "deadnix"
            "dpkg"
            "e2fsprogs"
            "fio"
            "fuse3"
            "git"
            "installShellFiles"
            "iproute2"
            "kmod"
            "nats-server"
            "nixpkgs-fmt"
            "openssl"
            "python3"
            "rclone"
            "rsync"
            "rustc"
            "rustfmt"
            "seaweedfs"
            "sqlite"
            "stress-ng"
            "systemd"
            "tmux"
            "vim"
          ]
            (name: build name { });
          pkgs = named // {
            inherit lib system;
            stdenv = {
              hostPlatform = (import ./pkgs.nix { inherit lib system; }).stdenv.hostPlatform;
              buildPlatform.canExecute = _: true;
            };
            callPackage = f: more: let g = if builtins.isFunction f then f else import f; in g (builtins.intersectAttrs (builtins.functionArgs g) pkgs // more);
            rustPlatform.buildRustPackage = a: build "${a.pname}-${a.version}" { inherit (a) src postInstall; lock = "${a.cargoLock.lockFile}"; } // { inherit (a) meta; };
            mkShell = a: build "shell" { inherit (a) packages; };
            writeText = name: text: build name { inherit text; };
            runCommand = name: _: script: build name { inherit script; };
            testers.runNixOSTest = t: build t.name {
              inherit (t) testScript;
              nodes = builtins.toJSON ((import ./eval.nix { inherit lib; }).nodes t.nodes);
            };
          };
        in
        pkgs);
    in
    { inherit lib legacyPackages; };
}
