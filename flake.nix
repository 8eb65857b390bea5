{
  description = "A virtual drive for a fleet of machines: every file listed everywhere, bytes on demand, conflicts side by side";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: rec {
        tcfs-cli = pkgs.callPackage ./nix/package.nix { };
        default = tcfs-cli;
      });
      apps = each (pkgs: {
        default = {
          type = "app";
          program = "${self.packages.${pkgs.stdenv.hostPlatform.system}.default}/bin/tcfs";
        };
      });
    };
}
