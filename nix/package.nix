# The drive as a package, for Linux and macOS alike: on macOS Cargo leaves FUSE out, and nothing else differs.
{ lib
, stdenv
, rustPlatform
, installShellFiles
, git
, withTests ? false # build and run the tests that a builder can run: no mounts, no servers
}:

let
  manifest = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).package;
  # What the build reads: a change of anything else builds nothing anew.
  wanted = [ "Cargo.toml" "Cargo.lock" "src" "bench" "README.md" ] ++ lib.optional withTests "tests";
  top = toString ../. + "/";
  first = path: builtins.head (builtins.match "([^/]*)(/.*)?" (builtins.substring (builtins.stringLength top) (-1) path));
in
rustPlatform.buildRustPackage {
  pname = manifest.name;
  inherit (manifest) version;

  src = builtins.path {
    name = "tcfs-source";
    path = ../.;
    filter = path: _: builtins.elem (first path) wanted;
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];

  doCheck = withTests;
  nativeCheckInputs = [ git ];
  # The rest mounts and starts servers: `tests/run` is for a machine.
  cargoTestFlags = [ "--lib" "--test" "layers" "--test" "formats" "--test" "formats_hostile" "--test" "model_algebra" "--test" "model_ops" "--test" "model_traces" "--test" "fleet_sim" ];
  preCheck = "export HOME=$TMPDIR";

  # It prints its own manual, completions and units.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) (''
    export HOME=$TMPDIR
    for shell in bash zsh fish; do
      $out/bin/tcfs completions $shell > tcfs.$shell
      installShellCompletion --cmd tcfs tcfs.$shell
    done
    $out/bin/tcfs man manual
    installManPage manual/*.1
  '' + lib.optionalString stdenv.hostPlatform.isLinux ''
    mkdir -p $out/lib/systemd/user $out/lib/systemd/system
    $out/bin/tcfs service print --packaged $out/bin/tcfs > $out/lib/systemd/user/tcfs.service
    $out/bin/tcfs service print --packaged $out/bin/tcfs --template > $out/lib/systemd/system/tcfs@.service
  '');

  # Repositories are carried by git itself.
  propagatedUserEnvPkgs = [ git ];

  meta = {
    inherit (manifest) description;
    license = [ lib.licenses.mit lib.licenses.asl20 ];
    mainProgram = "tcfs";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
