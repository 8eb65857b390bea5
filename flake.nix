{
  description = "A virtual drive for a fleet of machines: every file listed everywhere, bytes on demand, conflicts side by side";

  # No lock file: it is for Nix to write, where nixpkgs can be reached.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      each = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      of = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system};
      app = pkgs: name: {
        type = "app";
        program = "${(of pkgs).default}/bin/${name}";
      };
    in
    {
      packages = each (pkgs: rec {
        tcfs-cli = pkgs.callPackage ./nix/package.nix { };
        # The same program: by this name it is the daemon.
        tcfsd = tcfs-cli;
        default = tcfs-cli;
      });

      apps = each (pkgs: {
        default = app pkgs "tcfs";
        tcfsd = app pkgs "tcfsd";
      });

      # What `tests/run` needs, but for what only Debian has: user-mode-linux and slirp (the kernel's NFS client), and a system
      # whose files whole machines can be made of (tests/lab).
      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            cargo
            cargo-nextest
            clippy
            deadnix
            git
            nats-server
            nixpkgs-fmt
            openssl
            python3
            rsync
            rustc
            rustfmt
            seaweedfs
            sqlite
            tmux
            vim
          ] ++ lib.optionals stdenv.hostPlatform.isLinux [
            attr
            bindfs
            btrfs-progs
            dpkg
            e2fsprogs
            fio
            fuse3
            iproute2
            kmod
            rclone
            stress-ng
            systemd
          ];
        };
      });

      checks = each (pkgs: {
        build = (of pkgs).default;
        tests = pkgs.callPackage ./nix/package.nix { withTests = true; };
        modules = pkgs.callPackage ./nix/tests/modules.nix { tcfs = (of pkgs).default; };
      } // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
        fleet = import ./nix/tests/fleet.nix { inherit pkgs; };
      });

      formatter = each (pkgs: pkgs.nixpkgs-fmt);

      overlays.default = import ./nix/overlay.nix;

      nixosModules = {
        default = import ./nix/modules/tcfs-daemon.nix;
        nats-leaf = import ./nix/nats-leaf.nix;
      };

      homeManagerModules = {
        default = import ./nix/modules/tcfs-user.nix;
        tummycrypt = import ./nix/home-manager/tummycrypt.nix;
      };
    };
}
