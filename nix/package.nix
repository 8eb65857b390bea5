# The drive as a package, for Linux and macOS alike: on macOS Cargo leaves FUSE out, and nothing else differs.
{ lib, rustPlatform, git }:

let
  manifest = (lib.importTOML ../Cargo.toml).package;
  # What the build reads: a change of anything else builds nothing anew.
  wanted = [ "Cargo.toml" "Cargo.lock" "src" "bench" "tests" "README.md" ];
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  version = manifest.version;

  src = lib.cleanSourceWith {
    name = "tcfs-source";
    src = ../.;
    filter = path: _: lib.elem (lib.head (lib.splitString "/" (lib.removePrefix (toString ../. + "/") (toString path)))) wanted;
  };
  cargoLock.lockFile = ../Cargo.lock;

  # They mount, and start servers: `tests/run` is for a machine, not for a builder.
  doCheck = false;

  # Repositories are carried by git itself.
  propagatedUserEnvPkgs = [ git ];

  meta = {
    description = manifest.description;
    license = [ lib.licenses.mit lib.licenses.asl20 ];
    mainProgram = "tcfs";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
