# The hosts of the lab: what their configurations make of the drive's file is read by the drive itself. With the real `lib` here;
# the project's own tests do the same, and each option with each of its values, with a stand-in for it (tests/nix).
{ lib, runCommand, tcfs, writeText }:

let
  hosts = (import ../../tests/nix/eval.nix { inherit lib; }).hosts;
  file = name: host: writeText "${name}.toml" (builtins.head (builtins.attrValues host.files));
  read = name: host:
    assert host.failed == [ ];
    "${tcfs}/bin/tcfs --config ${file name host} config show > $out/${name}\n";
in
runCommand "tcfs-modules" { } ''
  export HOME=$TMPDIR
  mkdir $out
  ${lib.concatStringsSep "" (lib.mapAttrsToList read hosts)}
''
