# The program among other packages: `pkgs.tcfs`.
final: _: { tcfs = final.callPackage ./package.nix { }; }
